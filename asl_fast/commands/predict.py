"""`asl-fast predict`."""

import csv
import json
import sys
import warnings
from typing import Annotated, Any

import typer

from asl_fast.commands import console, options
from asl_fast.system.errors import InputError, printable

__all__ = ["predict"]


def predict(
    model: options.Model,
    images: Annotated[
        list[str],
        typer.Argument(help="Photographs: files, folders, or - for one from standard input."),
    ],
    letters: options.Letters = None,
    pixels: options.Pixels = None,
    as_json: options.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    verbose: options.Verbose = False,
) -> None:
    """Name the letters in photographs of any size and colour.

    Files that can't be read are reported, and the others predicted; the exit code is then 1.
    """
    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other.")
    warnings.filterwarnings("ignore", module="PIL")  # what matters is reported below
    from asl_fast.images import photograph

    sources = [source for image in images for source in photograph.find(image)]
    console.load_tensorflow(verbose)
    from rich.progress import track

    from asl_fast.inference.classifier import Classifier

    with console.status("Loading the model"):
        classifier = Classifier.load(model, letters, pixels)
    files: list[str | bytes] = [
        sys.stdin.buffer.read(photograph.MOST_BYTES + 1)
        if source == photograph.STANDARD_INPUT
        else source
        for source in sources
    ]
    results = track(
        zip(sources, classifier.predict_files(files), strict=True),
        "Predicting",
        total=len(files),
        console=console.notes,
        transient=True,
        disable=len(files) < 100 or not console.notes.is_terminal,
    )
    rows: list[dict[str, Any]] = []
    for source, (prediction, note) in results:
        if note:
            console.say(f"asl-fast: {note}", to=console.notes)
        if isinstance(prediction, InputError):
            console.say(f"asl-fast: {prediction}", to=console.notes)
            continue
        top = [{"letter": letter, "probability": share} for letter, share in prediction.top]
        rows.append({"file": source, **top[0], "top": top})
    _show(rows, "json" if as_json else "csv" if as_csv else "text")
    if len(rows) < len(files):
        raise typer.Exit(1)


def _show(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        print(json.dumps(rows, indent=2))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        ranks = [f"{name}_{rank}" for rank in (2, 3) for name in ("letter", "probability")]
        writer.writerow(["file", "letter", "probability", *ranks])
        for row in rows:
            cells = [(one["letter"], f"{one['probability']:.6f}") for one in row["top"]]
            writer.writerow([row["file"], *(cell for pair in cells for cell in pair)])
    else:
        width = max((len(printable(row["file"])) for row in rows), default=0)
        for row in rows:
            top = (f"{one['letter']} {one['probability']:6.1%}" for one in row["top"])
            print(f"{printable(row['file']):{width}}  {printable('   '.join(top))}")
