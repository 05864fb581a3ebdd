"""`asl-fast demo`."""

import warnings
from typing import Annotated

import typer

from asl_fast.commands import console, options

__all__ = ["demo"]


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

    page.serve(Classifier.load(model, letters, pixels), host, port, ready)
