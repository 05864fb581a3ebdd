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
    image_size: options.ImageSize = None,
    color: options.Color = None,
    recipe: options.Recipe = DEFAULT,
    seed: options.Seed = 0,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("preview.png"),
    verbose: options.Verbose = False,
) -> None:
    """Picture up to 32 training images before and after augmentation."""
    dataset = console.load_data(
        data,
        train=train,
        valid=valid,
        image_size=options.parse_size(image_size),
        color=color,
        undivided=True,
    )
    console.load_tensorflow(verbose)
    from asl_fast.inference import figures

    figures.preview(out, dataset.train, RECIPES[recipe].augment, seed)
    console.say(f"Wrote {out}")
