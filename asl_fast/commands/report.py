"""`asl-fast report`."""

from pathlib import Path
from typing import Annotated

import typer

from asl_fast.commands import console, options
from asl_fast.system.errors import InputError

__all__ = ["report"]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folder of a finished run; several are put side by side."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write.", show_default="RUN/report.html, or comparison.html"
        ),
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
    """Write runs as one HTML page that needs no other file."""
    console.load_tensorflow(verbose)
    from asl_fast.training import run_comparison, run_folder, run_report

    run, *others = runs
    dataset = None
    if others:
        if data or train or valid or pixels:
            raise InputError(
                "Runs side by side show what they recorded. Leave out the data and --pixels."
            )
        out = out or Path("comparison.html")
        run_comparison.write(runs, out)
        console.say(f"Wrote {out}")
        return
    if data or train or valid:
        arguments = run_folder.load_arguments(run_report.read_metrics(run))
        dataset = console.load_data(**arguments | {"folder": data, "train": train, "valid": valid})

    out = out or run / "report.html"
    with console.status("Reading the run") as progress:
        run_report.write(run, out, dataset, progress=progress, pixels=pixels)
    console.say(f"Wrote {out}")
