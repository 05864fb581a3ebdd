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
    verbose: options.Verbose = False,
) -> None:
    """Write a run as one HTML page that needs no other file."""
    console.load_tensorflow(verbose)
    from asl_fast.training import run_folder, run_report

    dataset = None
    if data or train or valid:
        moved = {**run_folder.data_files(run), "folder": data, "train": train, "valid": valid}
        dataset = console.load_data(moved.pop("folder"), **moved)

    out = out or run / "report.html"
    with console.status("Reading the run") as progress:
        run_report.write(run, out, dataset, progress=progress)
    console.say(f"Wrote {out}")
