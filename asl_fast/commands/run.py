"""`asl-fast run`."""

from pathlib import Path
from typing import Annotated

import typer

from asl_fast.commands import console

__all__ = ["CONTEXT", "run"]

# What follows the script belongs to it, even if it looks like an option of ours.
CONTEXT = {
    "allow_extra_args": True,
    "allow_interspersed_args": False,
    "ignore_unknown_options": True,
}


def run(
    context: typer.Context,
    script: Annotated[
        Path, typer.Argument(help="A Python script or a notebook; its arguments follow it.")
    ],
) -> None:
    """Run a Keras script or notebook unchanged, with the fast generator."""
    console.load_tensorflow()
    from asl_fast.migration import script_runner

    def note(text: str) -> None:
        console.say(f"asl-fast: {text}", to=console.notes)

    raise typer.Exit(script_runner.run(script, context.args, note))
