"""`asl-fast report`."""

from pathlib import Path
from typing import Annotated

import typer

from asl_fast.commands import console, options

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write.", show_default="RUN/report.html")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the run's data, if they were moved."),
    ] = None,
    train: options.TrainFile = None,
    valid: options.ValidFile = None,
    pixels: options.Pixels = None,
    verbose: options.Verbose = False,
) -> None:
    """Write a run as one HTML page that needs no other file."""
    dataset = console.load_data(data, train, valid) if data or train or valid else None
    console.load_tensorflow(verbose)
    from asl_fast.training import run_report

    out = out or run / "report.html"
    with console.status("Reading the run") as progress:
        run_report.write(run, out, dataset, progress=progress, pixels=pixels)
    console.say(f"Wrote {out}")
