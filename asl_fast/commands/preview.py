"""`asl-fast preview`."""

from pathlib import Path
from typing import Annotated

import typer

from asl_fast.commands import console, options
from asl_fast.models.recipe import DEFAULT, RECIPES

__all__ = ["preview"]


def preview(
    data: options.Data = None,
    train: options.TrainFile = None,
    valid: options.ValidFile = None,
    recipe: options.Recipe = DEFAULT,
    seed: options.Seed = 0,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("preview.png"),
    verbose: options.Verbose = False,
) -> None:
    """Picture 32 training images before and after augmentation."""
    dataset = console.load_data(data, train, valid)
    console.load_tensorflow(verbose)
    from asl_fast.inference import figures

    figures.preview(out, dataset.train, RECIPES[recipe].augment, seed)
    console.say(f"Wrote {out}")
