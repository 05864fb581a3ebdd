"""`asl-fast data`: info, fetch, convert, serve, render."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from asl_fast.commands import console, options

__all__ = ["convert", "fetch", "info", "render", "serve"]


def info(
    data: options.Data = None,
    train: options.TrainFile = None,
    valid: options.ValidFile = None,
    image_size: options.ImageSize = None,
    color: options.Color = None,
    validation_split: options.ValidationSplit = None,
    seed: options.Seed = 0,
) -> None:
    """Show which data a command with these options would use."""
    dataset = console.load_data(
        data,
        train=train,
        valid=valid,
        image_size=options.parse_size(image_size),
        color=color,
        validation_split=validation_split,
        seed=seed,
        undivided=validation_split is None,
    )
    console.output.print_json(data=dataset.describe())


def fetch(
    to: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path("data"),
) -> None:
    """Download the real data set from Kaggle.

    Needs the extra asl-fast[kaggle].
    """
    from asl_fast.data import kaggle

    for path in kaggle.fetch(to):
        console.say(f"Wrote {path}")
    console.say(f"Use it with: --data {to}")


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="A CSV file of pixels, a folder of class folders, a CSV file with the columns "
            "filename and class, a .npz file, or a folder with a training and a validation set."
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder for the records.")],
    height: Annotated[int, typer.Option(help="Height to resize image files to.")] = 28,
    width: Annotated[int, typer.Option(help="Width to resize image files to.")] = 28,
    color_mode: Annotated[
        Literal["grayscale", "rgb", "rgba"], typer.Option(help="Channels to read of image files.")
    ] = "grayscale",
    compress: Annotated[bool, typer.Option("--compress", help="Compress with gzip.")] = False,
    shard_rows: Annotated[int, typer.Option(help="Images per shard.")] = 16384,
    workers: Annotated[
        int | None, typer.Option(help="Number of processes.", show_default="one per core")
    ] = None,
) -> None:
    """Convert data of any size to records that training streams.

    Repeat the command to resume a conversion that was stopped.
    """
    console.load_tensorflow()
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    from asl_fast.data import convert as conversion

    columns = (SpinnerColumn(), "{task.description}", MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console.notes) as bar:
        task = bar.add_task("Converting", total=None)

        def advance(rows: int, total: int | None) -> None:
            bar.update(task, advance=rows, total=total)

        written = conversion.convert_all(
            source,
            to,
            size=(height, width),
            color_mode=color_mode,
            compress=compress,
            shard_rows=shard_rows,
            workers=workers,
            progress=advance,
        )
    for records in written:
        shards = len(records.shards)
        console.say(f"Wrote {records.rows:,} images in {shards} shards to {records.folder}")


def serve(
    port: Annotated[
        int, typer.Option(help="Port of the dispatcher; the workers take the next ones.")
    ] = 5050,
    workers: Annotated[int, typer.Option(help="Number of workers; each uses all cores.")] = 1,
    host: Annotated[
        str, typer.Option(help="Name under which trainings reach this machine.")
    ] = "localhost",
    join: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Start only workers, for the dispatcher at this address."
        ),
    ] = None,
    verbose: options.Verbose = False,
) -> None:
    """Run a tf.data service that reads converted data for trainings.

    It runs until Ctrl-C or SIGTERM, and listens on all addresses. Anyone who reaches its ports can
    make it read and write files: use it in closed networks only.
    """
    console.load_tensorflow(verbose)
    from asl_fast.data import service

    def ready(address: str) -> None:
        console.say(
            f"tf.data service at {address} – Ctrl-C stops it. It listens on all addresses of this "
            "machine, and whoever reaches its ports can make it read and write files."
        )

    service.serve(port, workers, host, join, ready)


def render(
    to: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path("data/rendered"),
) -> None:
    """Write the built-in rendered hands as the course's two CSV files."""
    with console.data_progress() as advance:
        from asl_fast.data import dataset as datasets

        dataset = datasets.built_in(progress=advance)
    with console.status(f"Writing to {to}"):
        paths = datasets.write_csv(dataset, to)
    for path in paths:
        console.say(f"Wrote {path}")
