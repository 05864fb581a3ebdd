"""The `asl-fast` command line: its subcommands, and how their errors end the program."""

import io
import logging
import sys
from typing import Annotated, Any

import typer
from rich.logging import RichHandler
from typer.core import TyperCommand

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


class _Sectioned(TyperCommand):
    """A command whose plain help lists options under headings, those of `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                usual = f"{parameter.param_type_name.capitalize()}s"
                heading = getattr(parameter, "rich_help_panel", None) or usual
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


# Plain help: Rich's would take "[kaggle]" for markup and cut long options short.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(cls=_Sectioned)(train)
app.command(cls=_Sectioned)(preview)
app.command(cls=_Sectioned)(evaluate)
app.command(cls=_Sectioned)(predict)
app.command(cls=_Sectioned)(export)
app.command(cls=_Sectioned, context_settings=CONTEXT)(run)
app.command(cls=_Sectioned)(check)
app.command(cls=_Sectioned)(doctor)
app.command(cls=_Sectioned)(bench)
app.command(cls=_Sectioned)(report)
app.command(cls=_Sectioned)(demo)

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
data_app.command(cls=_Sectioned)(data.info)
data_app.command(cls=_Sectioned)(data.fetch)
data_app.command(cls=_Sectioned)(data.convert)
data_app.command(cls=_Sectioned)(data.serve)
data_app.command(cls=_Sectioned)(data.render)
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
    """Train image classifiers with the augmentation inside the training step."""


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
