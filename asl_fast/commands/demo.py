"""`asl-fast demo`."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asl_fast.commands import console, options
from asl_fast.system.errors import InputError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["demo"]

_SHOWN = 8  # examples, at most


def demo(
    model: options.Model,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 7860,
    letters: options.Letters = None,
    pixels: options.Pixels = None,
    verbose: options.Verbose = False,
) -> None:
    """Try a model and the augmentation in the browser.

    Needs the extra asl-fast[demo].
    """
    warnings.filterwarnings("ignore", module="PIL")  # the page reports what matters
    console.load_tensorflow(verbose)
    from asl_fast.inference import demo as page
    from asl_fast.inference.classifier import Classifier

    def ready(url: str) -> None:
        console.say(f"Open {url} – Ctrl-C stops it.")

    classifier = Classifier.load(model, letters, pixels)
    page.serve(classifier, host, port, ready, _examples(model, classifier.letters))


def _examples(model: Path, classes: Sequence[str]) -> "dict[str, np.ndarray]":
    """Returns a validation image of some classes of a run, or drawn hands, or nothing."""
    from asl_fast.data.synthetic_hands import LETTERS
    from asl_fast.inference import demo as page
    from asl_fast.training import run_folder

    try:
        metrics = run_folder.read_metrics(model)
        valid = None if metrics is None else run_folder.reload(metrics).valid
    except InputError as error:
        console.say(f"asl-fast: The run's own images can't be shown: {error}", to=console.notes)
        valid = None
    if valid is None or valid.records is not None:
        return page.drawn_examples() if set(classes) == set(LETTERS) else {}
    rows = {valid.classes[label]: row for row, label in enumerate(valid.labels)}
    return {name: valid.images[row] for name, row in list(rows.items())[:_SHOWN]}
