"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from asl_fast.models.recipe import RECIPES
from asl_fast.system.errors import InputError

__all__ = [
    "DATA",
    "MACHINE",
    "OUTPUT",
    "RECIPE",
    "Color",
    "Data",
    "ImageSize",
    "Json",
    "Letters",
    "Model",
    "Pixels",
    "Recipe",
    "Seed",
    "TrainFile",
    "ValidFile",
    "ValidationSplit",
    "Verbose",
    "parse_size",
]

# Headings in the help.
DATA, RECIPE, MACHINE, OUTPUT = "Data", "Recipe", "Machine", "Output"

Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the course's two tables, compressed or not; folder of class folders, or of "
        "train/ and valid/ (or test/) with class folders or converted data; CSV file with the "
        "columns filename and class; or .npz file with x_train, y_train, x_test and y_test.",
        show_default="$ASL_FAST_DATA, or else the built-in rendered hands",
        rich_help_panel=DATA,
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Size that images are cropped and resized to: 64, or 64x48, height first.",
        show_default="the images' own, if they share one",
        rich_help_panel=DATA,
    ),
]
Color = Annotated[
    Literal["grayscale", "rgb"] | None,
    typer.Option(
        help="Channels that images are turned into.",
        show_default="grayscale if no image has colours",
        rich_help_panel=DATA,
    ),
]
ValidationSplit = Annotated[
    float | None,
    typer.Option(
        help="Share of each class to validate on, where the data are a single set; by --seed.",
        rich_help_panel=DATA,
    ),
]
TrainFile = Annotated[
    Path | None,
    typer.Option(
        help="The training set alone, in place of --data; needs --valid.", rich_help_panel=DATA
    ),
]
ValidFile = Annotated[
    Path | None,
    typer.Option(
        help="The validation set alone, in place of --data; needs --train.", rich_help_panel=DATA
    ),
]
Recipe = Annotated[
    Literal[*RECIPES],  # type: ignore[valid-type]  # mypy can't know the names
    typer.Option(help="How to augment and train.", rich_help_panel=RECIPE),
]
Seed = Annotated[int, typer.Option(help="Random seed.", rich_help_panel=RECIPE)]
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
Json = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=OUTPUT)]
Verbose = Annotated[bool, typer.Option(help="Show TensorFlow's messages.", rich_help_panel=OUTPUT)]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Returns the height and width of an option like 64 or 64x48.

    Raises:
        InputError: It is something else.
    """
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise InputError(f"--image-size must be a side, as 64, or 64x48. Received: {text}.")
    return int(sides[0]), int(sides[-1])
