"""`asl-fast evaluate`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from asl_fast.commands import console, options

__all__ = ["evaluate"]


def evaluate(
    model: options.Model,
    data: options.Data = None,
    train: options.TrainFile = None,
    valid: options.ValidFile = None,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Average over each image and its mirror image.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for plots and tables: confusion, worst mistakes, calibration, and the "
            "accuracy on rotated and shifted images."
        ),
    ] = None,
    letters: options.Letters = None,
    pixels: options.Pixels = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure a saved model on the validation set, class by class.

    The folder of a run is measured on the run's own data, unless others are given.
    """
    console.load_tensorflow(verbose)
    from asl_fast.inference import evaluation
    from asl_fast.models import saving

    with console.status("Loading the model"):
        network = saving.load_model(model)
    dataset = console.load_data_of(model, network, data, train, valid)
    with console.status("Evaluating") as progress:
        split = evaluation.matched(network, dataset.valid, model, letters)
        result = evaluation.evaluate(network, split, mirrored, out, progress, pixels)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    _show(result)
    if out is not None:
        console.say(f"Plots and tables: {out}/")


def _show(result: dict[str, Any]) -> None:
    letters = Table("class", "precision", "recall", "F1", "images")
    for letter, row in result["letters"].items():
        scores = ("" if row[k] is None else f"{row[k]:.3f}" for k in ("precision", "recall", "f1"))
        letters.add_row(letter, *scores, f"{row['images']:,}")
    console.output.print(letters)
    low, high = result["interval"]
    mirrored = ", mirror images averaged in" if result["mirrored"] else ""
    rows = [
        ("accuracy", f"{result['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})"),
        ("right", f"{result['right']:,} of {result['rows']:,}{mirrored}"),
        ("calibration error", f"{result['calibration']['error']:.4f}"),
    ]
    units = {"rotation": "°", "shift": " px"}
    for kind, accuracies in result.get("robustness", {}).items():
        cells = (f"{by}{units[kind]} {accuracy:.4f}" for by, accuracy in accuracies.items())
        rows.append((f"under {kind}", ", ".join(cells)))
    console.facts(rows)
