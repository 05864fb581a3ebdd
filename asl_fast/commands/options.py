"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from asl_fast.models.recipe import RECIPES

__all__ = [
    "Data",
    "Json",
    "Letters",
    "Model",
    "Pixels",
    "Recipe",
    "Seed",
    "TrainFile",
    "ValidFile",
    "Verbose",
]

Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with sign_mnist_train.csv and sign_mnist_valid.csv or sign_mnist_test.csv, "
        "compressed or not, or with converted data in train/ and valid/; or a .npz file with "
        "x_train, y_train, x_test and y_test.",
        show_default="$ASL_FAST_DATA, or else the built-in rendered hands",
    ),
]
TrainFile = Annotated[
    Path | None, typer.Option(help="A training file instead of a folder; needs --valid.")
]
ValidFile = Annotated[
    Path | None, typer.Option(help="A validation file instead of a folder; needs --train.")
]
Recipe = Annotated[
    Literal[*RECIPES],  # type: ignore[valid-type]  # mypy can't know the names
    typer.Option(help="How to augment and train."),
]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Model = Annotated[Path, typer.Argument(help="A .keras file, or the folder of a run.")]
Letters = Annotated[
    str | None,
    typer.Option(
        help="Letters of the outputs, in order, if the model's file has none. 25 or 26 outputs "
        "are A to Y or A to Z by default."
    ),
]
Pixels = Annotated[
    Literal["0-1", "-1-1", "0-255"] | None,
    typer.Option(
        help="Range of pixels that the model was trained on.",
        show_default="what its file or its graph tells; else 0-1, with a warning",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[bool, typer.Option(help="Show TensorFlow's messages.")]
