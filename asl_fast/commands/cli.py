"""The `asl-fast` command line: its subcommands, and how their errors end the program."""

import io
import logging
import sys
from typing import Annotated

import typer
from rich.logging import RichHandler

from asl_fast import __version__
from asl_fast.commands import data
from asl_fast.commands.bench import bench
from asl_fast.commands.check import check
from asl_fast.commands.console import notes
from asl_fast.commands.demo import demo
from asl_fast.commands.doctor import doctor
from asl_fast.commands.evaluate import evaluate
from asl_fast.commands.export import export
from asl_fast.commands.predict import predict
from asl_fast.commands.preview import preview
from asl_fast.commands.report import report
from asl_fast.commands.run import CONTEXT, run
from asl_fast.commands.train import train
from asl_fast.system.errors import InputError, printable

__all__ = ["app", "main"]

# Plain help: Rich's would take "[kaggle]" for markup and cut long options short.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(train)
app.command()(preview)
app.command()(evaluate)
app.command()(predict)
app.command()(export)
app.command(context_settings=CONTEXT)(run)
app.command()(check)
app.command()(doctor)
app.command()(bench)
app.command()(report)
app.command()(demo)

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
data_app.command()(data.info)
data_app.command()(data.fetch)
data_app.command()(data.convert)
data_app.command()(data.serve)
data_app.command()(data.render)
app.add_typer(data_app, name="data", help="Show, download, convert, serve or render data sets.")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"asl-fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Train the Sign Language MNIST network with augmentation on the device."""


def _as_text(record: logging.LogRecord) -> bool:
    """Escapes, in this package's messages, what a terminal would obey."""
    if record.name.startswith("asl_fast."):
        record.msg, record.args = printable(record.getMessage()), None
    return True


def main() -> None:
    """Runs the command line; an `InputError` is printed as one line, and the exit code is 2."""
    handler = RichHandler(console=notes, show_time=False, show_path=False)
    handler.addFilter(_as_text)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may not be valid text
    try:
        app()
    except InputError as error:
        print(f"asl-fast: {error}", file=sys.stderr)
        sys.exit(2)
