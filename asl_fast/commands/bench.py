"""`asl-fast bench`."""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from asl_fast.commands import console, options
from asl_fast.system import extras
from asl_fast.system.errors import InputError

__all__ = ["bench"]


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Under 3 minutes on two cores.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Every image size, and the race: hours.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure one group: augmentation, pipeline, files, table, accelerator, "
            "processes, training or race; repeatable."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("bench"),
    data: options.Data = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="Measure nothing; report what moved between two results.json beyond the noise. "
            "The exit code is 1 if this package got slower.",
        ),
    ] = None,
    verbose: options.Verbose = False,
) -> None:
    """Measure this package against its rivals.

    Writes results, tables and plots to a folder. The benchmarks are part of the source, not of
    the installed package.
    """
    if quick and full:
        raise InputError("--quick and --full exclude each other.")
    if compare is not None:
        raise typer.Exit(_benchmarks("comparison").show(*compare, console.output))
    _benchmarks("cell")  # reports what is missing before TensorFlow takes its seconds
    console.load_tensorflow(verbose)
    size = "quick" if quick else "full" if full else "standard"
    _benchmarks("bench").run(size, only or [], out, data, console.output, console.notes)


def _benchmarks(module: str) -> Any:
    """Imports a module of the benchmarks, which are not installed with the package."""
    try:
        return importlib.import_module(f"benchmarks.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "benchmarks":
            raise InputError(
                "The benchmarks are part of the source, not of the installed package. Run this in "
                "a clone of the repository."
            ) from None
        how = extras.how_to_install("bench", "peers")
        raise InputError(
            f"The benchmarks can't start: there is no module {error.name}. They need the extras "
            f"asl-fast[bench,peers]. Install them with: {how}"
        ) from None
