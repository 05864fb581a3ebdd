"""What the commands print, and what they show while the user waits."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from asl_fast.system import quiet
from asl_fast.system.errors import InputError, printable

if TYPE_CHECKING:
    from asl_fast.data.dataset import Dataset

__all__ = [
    "data_progress",
    "facts",
    "load_data",
    "load_data_of",
    "load_tensorflow",
    "notes",
    "output",
    "quietly",
    "say",
    "status",
]

# Paths and names are printed as they are: "[b]" is no markup in them, and ":cat:" no picture.
output = Console(markup=False, emoji=False, highlight=False)
notes = Console(stderr=True, markup=False, emoji=False, highlight=False)


def say(text: str | Text, *, to: Console = output) -> None:
    """Prints a line, unwrapped; what a terminal would obey in it is escaped."""
    to.print(printable(text) if isinstance(text, str) else text, soft_wrap=True)


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Prints a table of names and values."""
    table = Table(show_header=False)
    for name, value in rows:
        table.add_row(name, printable(value))
    output.print(table)


@contextlib.contextmanager
def status(doing: str) -> Iterator[Callable[[str], None]]:
    """Shows a spinner; yields a function that changes its text."""
    with notes.status(Text(printable(doing))) as spinner:
        yield lambda text: spinner.update(Text(printable(text)))


@contextlib.contextmanager
def quietly(doing: str, verbose: bool = False) -> Iterator[None]:
    """Shows a spinner and holds back what libraries write to standard error, unless `verbose`."""
    if verbose:
        yield
        return
    # The spinner writes to a duplicate of standard error, or it would be held back too.
    with os.fdopen(os.dup(2), "w") as stderr, Console(file=stderr).status(doing), quiet.held():
        yield


def load_tensorflow(verbose: bool = False) -> None:
    """Imports TensorFlow, without its messages unless `verbose`."""
    from asl_fast.system import compile_cache

    compile_cache.enable()
    if verbose:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import tensorflow  # noqa: F401
    else:
        with quietly("Starting TensorFlow"):
            quiet.import_tensorflow()


def load_data(folder: Path | str | None = None, **options: Any) -> "Dataset":
    """Loads a data set, with a progress bar, and prints what it is.

    Args:
        folder: The folder or file, or None.
        **options: As for `dataset.load`.
    """
    with data_progress() as advance:
        from asl_fast.data import dataset as datasets

        dataset = datasets.load(folder, progress=advance, **options)
    for name, split in (("train", dataset.train), ("valid", dataset.valid)):
        images = datasets.in_words(split.shape)
        kind = {
            "either": "",
            "own": f" of {images} in {len(split.classes)} classes",
        }.get(split.spelling, f", {split.spelling} labels")
        say(f"{name}: {split.source}, {split.rows:,} rows{kind}", to=notes)
    if dataset.name == datasets.BUILT_IN:
        warning = ("These are drawn hands, not photographs:", "bold yellow")
        advice = (
            " no data folder was given. The accuracy says nothing about photographs. Pass --data "
            "FOLDER to use some; asl-fast data fetch downloads the course's."
        )
        say(Text.assemble(warning, advice), to=notes)
    return dataset


def load_data_of(
    path: Path, model: Any, data: Path | None, train: Path | None, valid: Path | None
) -> "Dataset":
    """Loads the data set that was given, as the model takes it, or else that of the model's run.

    Args:
        path: The model's file, or the folder of its run.
        model: The Keras model.
        data: As for `dataset.load`; a single set is measured whole.
        train: As for `dataset.load`.
        valid: As for `dataset.load`.

    Raises:
        InputError: As for `dataset.load`, or the run's data are not what they were.
    """
    from asl_fast.training import run_folder

    metrics = run_folder.read_metrics(path)
    if metrics is not None and not (data or train or valid):
        try:
            return run_folder.reload(metrics, load_data)
        except InputError as error:
            raise InputError(f"{error} Other data can be given with --data.") from None
    shape = getattr(model, "input_shape", None)
    as_taken: dict[str, Any] = {}
    if isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:]:
        as_taken = {"image_size": shape[1:3], "color": "grayscale" if shape[3] == 1 else "rgb"}
    return load_data(data, train=train, valid=valid, undivided=True, **as_taken)


@contextlib.contextmanager
def data_progress() -> Iterator[Callable[[int], None]]:
    """Shows that data is being read; yields a function that counts images rendered instead."""
    from asl_fast.data import synthetic_hands as hands

    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as bar:
        task = bar.add_task("Reading the data", total=None)

        def advance(images: int) -> None:
            bar.update(
                task,
                description="Rendering the built-in hands (once)",
                total=hands.TRAIN_ROWS + hands.VALID_ROWS,
                advance=images,
            )

        yield advance
