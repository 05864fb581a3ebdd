"""`asl-fast doctor`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from asl_fast.commands import console, options
from asl_fast.models.recipe import DEFAULT, RECIPES

__all__ = ["doctor"]


def doctor(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="A .keras file, or the folder of a run.", show_default="the course's network"
        ),
    ] = None,
    recipe: options.Recipe = DEFAULT,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Report how this machine would train a model, and why.

    Also lists the operations of the training step that a GPU can't run. The exit code is 1 if
    there are any.
    """
    console.load_tensorflow(verbose)
    from asl_fast.data import synthetic_hands as hands
    from asl_fast.models import saving
    from asl_fast.training import diagnosis

    with console.status("Inspecting the machine") as progress:
        report = diagnosis.diagnose(
            RECIPES[recipe],
            hands.TRAIN_ROWS,
            saving.load_model(model) if model is not None else None,
            progress=progress,
        )
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        console.facts(_rows(report))
    if report["operations"]["found"]:
        raise typer.Exit(1)


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    from asl_fast.training.memory import megabytes

    precision, jit, resident = report["precision"], report["jit"], report["resident"]
    needed, cache = report["memory_needed"], report["cache"]
    programs = report["compile_cache"]
    versions = (f"{name} {version}" for name, version in report["versions"].items() if version)
    needs = ", ".join(f"{name} {megabytes(size)}" for name, size in needed.items())
    times = ", ".join(
        f"{name} {value:,.0f} µs an image"
        for name, value in report["microseconds_an_image"].items()
    )
    return [
        ("versions", ", ".join(versions)),
        ("trains on", f"{report['device']} ({report['cpu']})"),
        ("NVIDIA driver", report["driver"] or "none found"),
        *(
            ("GPU", ", ".join(f"{name} {value}" for name, value in gpu.items()))
            for gpu in report["gpus"]
        ),
        ("precision", f"{precision['value']} ({precision['why']})"),
        ("XLA for the step", f"{'on' if jit['value'] else 'off'} ({jit['why']})"),
        ("images on the device", f"{'yes' if resident['value'] else 'no'} ({resident['why']})"),
        (
            "memory needed",
            f"about {megabytes(sum(needed.values()))} of {megabytes(report['memory'])} ({needs})",
        ),
        ("cached data", f"{megabytes(cache['bytes'])} ({cache['folder']})"),
        (
            "compiled programs",
            f"not kept: {programs['off']}"
            if programs["off"]
            else f"{megabytes(programs['bytes'])} ({programs['folder']})",
        ),
        ("bottleneck", f"{report['bottleneck']} ({times})"),
        *(("not for GPUs", text) for text in _operations(report["operations"])),
    ]


def _operations(operations: dict[str, Any]) -> list[str]:
    """Returns a line for each operation that a GPU can't run, or one that says there is none."""
    if not operations["checked"]:
        return [f"not checked ({operations['why']})"]
    if not operations["found"]:
        return [f"none of the step's operations ({operations['why']})"]
    return [
        f"{found['times']} × {found['op']} ({', '.join(found['dtypes'])}) {found['problem']} "
        f"({found['names'][0]})"
        for found in operations["found"]
    ]
