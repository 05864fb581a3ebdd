"""`asl-fast export`."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from asl_fast.commands import console, options
from asl_fast.inference.targets import TARGETS

if TYPE_CHECKING:
    from asl_fast.inference.export import Exported

__all__ = ["export"]


def export(
    model: options.Model,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help=f"{', '.join(TARGETS)} or all; repeatable.", show_default="all"
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write, or folder for a format that is one; for several, their folder."
        ),
    ] = Path("exported"),
    int8: Annotated[
        bool, typer.Option("--int8", help="LiteRT in int8, calibrated with training images.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    data: options.Data = None,
    train: options.TrainFile = None,
    valid: options.ValidFile = None,
    pixels: options.Pixels = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Export a model to other runtimes, and compare each file.

    Each file is compared with the model on the same images, and timed. The images are
    the run's own for the folder of a run, unless others are given.
    """
    console.load_tensorflow(verbose)
    from asl_fast.data.csv_table import CsvTable
    from asl_fast.inference import export as exports
    from asl_fast.models import saving
    from asl_fast.training import run_folder

    network = saving.load_model(model)
    images = calibration = None
    is_ours = getattr(network, "input_shape", None) == (None, *CsvTable.shape)
    if data or train or valid or run_folder.read_metrics(model) or is_ours:
        dataset = console.load_data_of(model, network, data, train, valid)
        images, calibration = dataset.valid.some(1000), dataset.train.some(1000)
    with console.quietly("Exporting", verbose):
        written = exports.export(
            network,
            out,
            formats or ["all"],
            letters=saving.read_letters(model),
            images=images,
            calibration=calibration,
            int8=int8,
            force=force,
            name="model" if model.is_dir() else model.stem,
            pixels=pixels,
        )
    if as_json:
        print(json.dumps([dataclasses.asdict(file) for file in written], indent=2))
    else:
        _show(written)


def _show(written: "list[Exported]") -> None:
    table = Table("", *(file.format for file in written))
    table.add_row("precision", *(file.precision for file in written))
    table.add_row("size", *(f"{file.bytes / 1e6:.2f} MB" for file in written))
    table.add_row("largest difference", *(f"{file.difference:.1e}" for file in written))
    table.add_row("same letter", *(f"{file.same:.1%}" for file in written))
    table.add_row("an image, median", *(f"{file.median_ms:.2f} ms" for file in written))
    table.add_row("95th percentile", *(f"{file.p95_ms:.2f} ms" for file in written))
    table.add_row("runtime", *(file.runtime for file in written))
    console.output.print(table)
    first = written[0]
    console.say(
        f"Compared with the model on {first.images:,} images; timed on {first.runs}, one by one."
    )
    for file in written:
        console.say(f"Wrote {file.path}")
