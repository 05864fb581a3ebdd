"""The command line: parse, call the library, print."""

import contextlib
import csv
import dataclasses
import datetime
import enum
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from asl_fast.models.recipe import DEFAULT, OPTIMIZERS, RECIPES, SCHEDULES
from asl_fast.system import quiet
from asl_fast.system.errors import InputError

if TYPE_CHECKING:
    from asl_fast.data.dataset import Dataset

__all__ = ["app", "main"]

app = typer.Typer(
    help="Train the Sign Language MNIST CNN with augmentation on the device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at, fetch or render data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

_console = Console()
_notes = Console(stderr=True)

_INSTEAD = "In place of the recipe's."
RecipeName = enum.StrEnum("RecipeName", list(RECIPES))  # type: ignore[misc]  # by design

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder with sign_mnist_train.csv and sign_mnist_valid.csv or sign_mnist_test.csv, "
        "compressed or not. Default: $ASL_FAST_DATA, or else the built-in rendered hands.",
    ),
]
TrainFileOption = Annotated[
    Path | None, typer.Option("--train", help="A single train file instead of a folder.")
]
ValidFileOption = Annotated[
    Path | None, typer.Option("--valid", help="A single valid file instead of a folder.")
]
SeedOption = Annotated[int, typer.Option(help="Of everything random.")]
VerboseOption = Annotated[bool, typer.Option(help="Show what TensorFlow logs.")]


@app.command()
def train(
    context: typer.Context,
    data: DataOption = None,
    train: TrainFileOption = None,
    valid: ValidFileOption = None,
    recipe: Annotated[RecipeName, typer.Option(help="How to train.")] = RecipeName(DEFAULT),
    epochs: Annotated[int | None, typer.Option(help=_INSTEAD)] = None,
    batch_size: Annotated[int | None, typer.Option(help=_INSTEAD)] = None,
    optimizer: Annotated[str | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest.")] = None,
    schedule: Annotated[str | None, typer.Option(help=f"{', '.join(SCHEDULES)}.")] = None,
    warm_up: Annotated[
        float | None, typer.Option(help="The share of all steps in which the rate rises.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Times the learning rate.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help=_INSTEAD)] = None,
    batch_norm_momentum: Annotated[float | None, typer.Option(help=_INSTEAD)] = None,
    damaged: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="What to do where a record of converted data is damaged."),
    ] = "stop",
    service: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Let a tf.data service (asl-fast data serve) read converted train data.",
        ),
    ] = None,
    augment: Annotated[bool, typer.Option(help="Without: see what augmentation is worth.")] = True,
    seed: SeedOption = 0,
    precision: Annotated[
        Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"],
        typer.Option(help="auto: what the device is good at; float32 on CPUs."),
    ] = "auto",
    jit: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(help="Compile the whole step with XLA. auto: on for GPUs, off for CPUs."),
    ] = "auto",
    resident: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(help="Keep the images on the device. auto: if they take half of it at most."),
    ] = "auto",
    steps_per_execution: Annotated[
        int | None,
        typer.Option(help="Steps between two looks of the host. Default: what suits the device."),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="The same bits each time on the same machine, also on a GPU. Costs speed there: "
            "slower gradients of convolutions, and no XLA for the step.",
        ),
    ] = False,
    strategy: Annotated[
        Literal["auto", "none", "mirrored", "multiworker"],
        typer.Option(
            help="Devices to train on. mirrored: all of this machine; multiworker: of those that "
            "TF_CONFIG names. auto: as many as there are."
        ),
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results. Default: runs/TIME-RECIPE.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, with its options, if one was stopped there; "
            "otherwise begin one.",
        ),
    ] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Of training between two checkpoints within an epoch.")
    ] = 30.0,
    verbose: VerboseOption = False,
) -> None:
    """Train the CNN; leave model, metrics and pictures in a folder."""
    changes = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warm_up": warm_up,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "batch_norm_momentum": batch_norm_momentum,
    }
    settings: dict[str, Any] = {
        "recipe": recipe.value,
        "changes": {name: value for name, value in changes.items() if value is not None},
        "augment": augment,
        "seed": seed,
        "precision": precision,
        "jit": jit,
        "resident": resident,
        "steps_per_execution": steps_per_execution,
        "deterministic": deterministic,
    }
    # What is out of range is refused before anything is read.
    dataclasses.replace(RECIPES[recipe.value], **settings["changes"])
    if resume and out is None:
        raise InputError("--resume needs --out, the folder of the run to go on with.")
    if out is None:
        out = Path("runs") / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{recipe.value}"
    place: dict[str, Any] = {"data": data, "train": train, "valid": valid}
    if resume:
        _load_tensorflow(verbose)
        from asl_fast.training.run_folder import stopped

        if (before := stopped(out)) is not None:
            place, settings = _as_before(context, place, settings, before)
    dataset = _load(**place, damaged=damaged, service=service or "")
    _load_tensorflow(verbose)
    from asl_fast.training import run

    try:
        metrics = run.train(
            dataset,
            out,
            **settings,
            strategy=strategy,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            # Keras's bar rewrites its line, which only a terminal understands.
            verbose=1 if sys.stdout.isatty() else 2,
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        _notes.print(
            f"Stopped. Go on with: asl-fast train --resume --out {out}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(143 if isinstance(stop, SystemExit) else 130) from None
    table = Table(show_header=False)
    table.add_row("valid accuracy", f"{metrics['val_accuracy']:.4f}")
    table.add_row("best epoch's", f"{metrics['best_val_accuracy']:.4f}")
    table.add_row("training", f"{metrics['train_seconds']:.0f} s")
    table.add_row("images/s", f"{metrics['images_per_second']:,.0f}")
    devices = f"{metrics['devices']} × " if metrics["devices"] > 1 else ""
    table.add_row("on", f"{devices}{metrics['device']}, {metrics['precision']}")
    table.add_row("results", f"{out}/")
    _console.print(table)
    _tell_built_in(dataset)


def _as_before(
    context: typer.Context,
    place: dict[str, Any],
    settings: dict[str, Any],
    before: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what the command line says, and where it says nothing what a stopped run had."""
    given = {
        name
        for name in (*place, *settings)
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    if not given & set(place):
        from asl_fast.data.dataset import BUILT_IN

        train, valid = before["data"]
        if train != BUILT_IN:
            place = {"data": None, "train": Path(train), "valid": Path(valid)}
    changes = before["changes"] | settings["changes"]
    settings = {name: settings[name] if name in given else before[name] for name in settings}
    return place, settings | {"changes": changes}


@app.command()
def preview(
    data: DataOption = None,
    train: TrainFileOption = None,
    valid: ValidFileOption = None,
    recipe: Annotated[RecipeName, typer.Option(help="Whose augmentation to show.")] = RecipeName(
        DEFAULT
    ),
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("preview.png"),
    verbose: VerboseOption = False,
) -> None:
    """Write a picture of 32 train images before and after augmentation."""
    dataset = _load(data, train, valid)
    _load_tensorflow(verbose)
    import numpy as np

    from asl_fast.inference import figures
    from asl_fast.system import storage
    from asl_fast.transforms.random_augment import RandomAugment

    storage.make_folder(out.parent)
    rows = dataset.train.rows
    if rows < 32:
        raise InputError(f"{dataset.train.source} has {rows} rows; the picture shows 32.")
    images, labels = dataset.train.images, dataset.train.labels
    if dataset.train.records is not None:  # the first ones, as the others would have to be read
        from asl_fast.data.records import damage_in_words

        with damage_in_words(dataset.train.records):
            images, labels = next(dataset.train.records.batches(1024).as_numpy_iterator())
    samples = np.random.default_rng(seed).choice(len(labels), 32, replace=False)
    images, labels = images[samples], labels[samples]
    options = RECIPES[recipe.value].augment
    layer = RandomAugment(**dataclasses.asdict(options), seed=seed, dtype="float32")
    augmented = np.asarray(layer(images, samples=samples, epoch=0, training=True))
    figures.preview(out, images, augmented, labels)
    _console.print(f"Wrote {out}", highlight=False, markup=False)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A .keras file, or the folder of a run.")],
    data: DataOption = None,
    train: TrainFileOption = None,
    valid: ValidFileOption = None,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Average over each image and its mirror image.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for pictures and tables: confusion, worst mistakes, calibration, and the "
            "accuracy on images turned and shifted."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure how well a saved model does on the valid set, by letter."""
    dataset = _load(data, train, valid)
    _load_tensorflow(verbose)
    from asl_fast.inference import evaluation

    with _notes.status("Loading the model") as status:
        result = evaluation.evaluate(
            evaluation.load_model(model), dataset.valid, mirrored, out, status.update
        )
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        _show_evaluation(result)
        if out is not None:
            _console.print(f"Pictures and tables: {out}/", highlight=False, markup=False)


def _show_evaluation(result: dict[str, Any]) -> None:
    letters = Table("letter", "precision", "recall", "F1", "images")
    for letter, row in result["letters"].items():
        shares = ("" if row[k] is None else f"{row[k]:.3f}" for k in ("precision", "recall", "f1"))
        letters.add_row(letter, *shares, f"{row['images']:,}")
    _console.print(letters)
    table = Table(show_header=False)
    low, high = result["interval"]
    table.add_row("accuracy", f"{result['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})")
    mirrored = ", mirror images averaged in" if result["mirrored"] else ""
    table.add_row("right", f"{result['right']:,} of {result['rows']:,}{mirrored}")
    table.add_row("calibration error", f"{result['calibration']['error']:.4f}")
    signs = {"rotation": "°", "shift": " px"}
    for kind, found in result.get("robustness", {}).items():
        shares = (f"{by}{signs[kind]} {share:.4f}" for by, share in found.items())
        table.add_row(f"under {kind}", ", ".join(shares))
    _console.print(table)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A .keras file, or the folder of a run.")],
    images: Annotated[
        list[str],
        typer.Argument(
            help="Photographs: files, folders of them, or - for one from standard input."
        ),
    ],
    letters: Annotated[
        str | None,
        typer.Option(help="What the outputs stand for, in order, if the model doesn't say so."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a CSV table.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Name the letters in photographs of any size and colour.

    Files that can't be read are named, and the others done; the exit code is then 1.
    """
    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other.")
    from asl_fast.images import photograph

    sources = [source for image in images for source in photograph.find(image)]
    _quiet_pillow()
    _load_tensorflow(verbose)
    from rich.progress import track

    from asl_fast.inference.classifier import Classifier

    with _notes.status("Loading the model"):
        classifier = Classifier.load(model, letters)
    files: list[str | bytes] = [
        sys.stdin.buffer.read() if source == photograph.STANDARD_INPUT else source
        for source in sources
    ]
    found = track(
        zip(sources, classifier.predict_files(files), strict=True),
        "Predicting",
        total=len(files),
        console=_notes,
        transient=True,
        disable=len(files) < 100 or not _notes.is_terminal,
    )
    rows: list[dict[str, Any]] = []
    failed = False
    for source, (prediction, note) in found:
        if note:
            _notes.print(f"asl-fast: {note}", highlight=False, markup=False, soft_wrap=True)
        if isinstance(prediction, InputError):
            failed = True
            _notes.print(f"asl-fast: {prediction}", highlight=False, markup=False, soft_wrap=True)
            continue
        top = [{"letter": letter, "probability": share} for letter, share in prediction.top]
        rows.append({"file": source, **top[0], "top": top})
    _show_predictions(rows, "json" if as_json else "csv" if as_csv else "text")
    if failed:
        raise typer.Exit(1)


def _show_predictions(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        print(json.dumps(rows, indent=2))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        places = [f"{name}_{place}" for place in (2, 3) for name in ("letter", "probability")]
        writer.writerow(["file", "letter", "probability", *places])
        for row in rows:
            cells = [(one["letter"], f"{one['probability']:.6f}") for one in row["top"]]
            writer.writerow([row["file"], *(cell for pair in cells for cell in pair)])
    else:
        width = max((len(row["file"]) for row in rows), default=0)
        for row in rows:
            shares = [f"{one['letter']} {one['probability']:6.1%}" for one in row["top"]]
            print(f"{row['file']:{width}}  {'   '.join(shares)}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A .keras file, or the folder of a run.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="savedmodel, litert, onnx or all, the default; repeatable."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="The file, or the SavedModel's folder; for several formats a folder for them."
        ),
    ] = Path("exported"),
    int8: Annotated[
        bool, typer.Option("--int8", help="LiteRT in int8, calibrated with train images.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    data: DataOption = None,
    train: TrainFileOption = None,
    valid: ValidFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Export a saved model to SavedModel, LiteRT or ONNX, and compare each file with it."""
    _load_tensorflow(verbose)
    from asl_fast.data.csv_table import SIDE
    from asl_fast.inference import export as exports
    from asl_fast.models import saving

    network = saving.load_model(model)
    images = calibration = None
    if getattr(network, "input_shape", None) == (None, SIDE, SIDE, 1):
        dataset = _load(data, train, valid)
        images, calibration = dataset.valid.some(1000), dataset.train.some(1000)
    with _quietly("Exporting", verbose):
        written = exports.export(
            network,
            out,
            formats or ["all"],
            letters=saving.read_letters(model),
            images=images,
            calibration=calibration,
            int8=int8,
            force=force,
            name="model" if model.is_dir() else model.stem,
        )
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in written], indent=2))
        return
    table = Table("", *(one.format for one in written))
    table.add_row("precision", *(one.precision for one in written))
    table.add_row("size", *(f"{one.bytes / 1e6:.2f} MB" for one in written))
    table.add_row("largest difference", *(f"{one.difference:.1e}" for one in written))
    table.add_row("same letter", *(f"{one.same:.1%}" for one in written))
    table.add_row("an image, median", *(f"{one.median_ms:.2f} ms" for one in written))
    table.add_row("95th percentile", *(f"{one.p95_ms:.2f} ms" for one in written))
    table.add_row("in", *(one.runtime for one in written))
    _console.print(table)
    first = written[0]
    _console.print(
        f"Compared with the model on {first.images:,} images, timed on {first.runs} one by one.",
        highlight=False,
        soft_wrap=True,
    )
    for one in written:
        _console.print(f"Wrote {one.path}", highlight=False, markup=False, soft_wrap=True)


@app.command(
    # What follows the script is the script's, also what looks like an option of ours.
    context_settings={
        "allow_extra_args": True,
        "allow_interspersed_args": False,
        "ignore_unknown_options": True,
    }
)
def run(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(help="A Python script; its arguments follow it.")],
) -> None:
    """Run a Keras script unchanged, with the fast generator in place of Keras's."""
    _load_tensorflow(verbose=False)
    from asl_fast.migration import script_runner as scripts

    def note(text: str) -> None:
        _notes.print(f"asl-fast: {text}", highlight=False, markup=False, soft_wrap=True)

    raise typer.Exit(scripts.run(script, context.args, note))


@app.command()
def check(
    script: Annotated[Path, typer.Argument(help="A Python script or a notebook.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Say what in a Keras script breaks today, is slow, or is silently wrong; run nothing.

    The exit code is 1 if there is anything to say.
    """
    from asl_fast.migration import lint

    try:
        source = script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise InputError(f"{script} can't be read: {reason}.") from None
    found = lint.check(source, str(script))
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=2))
    for finding in [] if as_json else found:
        place = f"line {finding.line}"
        if finding.cell is not None:
            place = f"cell {finding.cell}, {place}"
        print(f"{place}, {finding.kind}: {finding.message}")
    if found:
        raise typer.Exit(1)
    _notes.print(f"{script}: nothing to say.", highlight=False, markup=False)


@app.command()
def doctor(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="A .keras file, or the folder of a run. Default: the course's network."
        ),
    ] = None,
    recipe: Annotated[RecipeName, typer.Option(help="How to train it.")] = RecipeName(DEFAULT),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Say how this machine would train, why so, and what of the model a GPU would not do.

    The exit code is 1 if there are such operations.
    """
    _load_tensorflow(verbose)
    from asl_fast.data import synthetic_hands as hands
    from asl_fast.models import saving
    from asl_fast.training import diagnosis as doctors

    with _notes.status("Looking at the machine") as status:
        found = doctors.diagnose(
            RECIPES[recipe.value],
            hands.TRAIN_ROWS,
            saving.load_model(model) if model is not None else None,
            progress=status.update,
        )
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _show_diagnosis(found)
    if found["operations"]["found"]:
        raise typer.Exit(1)


def _show_diagnosis(found: dict[str, Any]) -> None:
    from asl_fast.training.memory import megabytes

    table = Table(show_header=False)

    def row(name: str, value: str, why: str = "") -> None:
        table.add_row(name, value + (f" ({why})" if why else ""))

    versions = [f"{name} {version}" for name, version in found["versions"].items() if version]
    row("versions", ", ".join(versions))
    row("trains on", found["device"], found["cpu"])
    row("NVIDIA driver", found["driver"] or "none found")
    for gpu in found["gpus"]:
        row("GPU", ", ".join(f"{name} {value}" for name, value in gpu.items()))
    row("precision", found["precision"]["value"], found["precision"]["why"])
    row("XLA for the step", "on" if found["jit"]["value"] else "off", found["jit"]["why"])
    resident = found["resident"]
    row("images on the device", "yes" if resident["value"] else "no", resident["why"])
    needed = found["memory_needed"]
    parts = ", ".join(f"{name} {megabytes(size)}" for name, size in needed.items())
    row(
        "memory needed",
        f"about {megabytes(sum(needed.values()))} of {megabytes(found['memory'])}",
        parts,
    )
    row("cached data", megabytes(found["cache"]["bytes"]), found["cache"]["folder"])
    times = found["microseconds_an_image"].items()
    row(
        "bottleneck",
        found["bottleneck"],
        ", ".join(f"{name} {value:,.0f} µs an image" for name, value in times),
    )
    operations = found["operations"]
    if not operations["checked"]:
        row("not for GPUs", "not checked", operations["why"])
    elif not operations["found"]:
        row("not for GPUs", "none of the step's operations", operations["why"])
    for finding in operations["found"]:
        kind = f"{finding['op']} ({', '.join(finding['dtypes'])})"
        row(
            "not for GPUs", f"{finding['times']} × {kind} {finding['problem']}", finding["names"][0]
        )
    _console.print(table)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Under 3 minutes on two cores.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Every image size, and the race: hours.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A group: augmentation, pipeline, files, table, host, accelerator, processes, "
            "training or race. May be given several times."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("bench"),
    data: DataOption = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="Measure nothing: say what moved between two results.json beyond the noise. The "
            "exit code is 1 if we got slower.",
        ),
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Measure this package against its rivals; leave results, tables and pictures in a folder.

    The benchmarks are part of the source, not of the installed package.
    """
    if quick and full:
        raise InputError("--quick and --full exclude each other.")
    try:
        import benchmarks  # noqa: F401  # not installed: found from its folder, or not at all
    except ModuleNotFoundError:
        raise InputError(
            "The benchmarks are not installed. They come with the source: from its folder, "
            "pip install -e '.[bench,peers]', and run asl-fast bench there."
        ) from None
    if compare is not None:
        from benchmarks import comparison

        raise typer.Exit(comparison.show(*compare, _console))
    _load_tensorflow(verbose)
    from benchmarks import bench as suite

    size = "quick" if quick else "full" if full else "standard"
    suite.run(size, only or [], out, data, _console, _notes)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The folder that a training left.")],
    out: Annotated[Path | None, typer.Option(help="The page. Default: RUN/report.html.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Where the run's data are now. Default: where they were."),
    ] = None,
    train: TrainFileOption = None,
    valid: ValidFileOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Write a run's folder as one HTML page, which needs no other file and no network."""
    dataset = _load(data, train, valid) if data or train or valid else None
    _load_tensorflow(verbose)
    from asl_fast.training import run_report as reports

    out = out or run / "report.html"
    with _notes.status("Reading the run") as status:
        reports.write(run, out, dataset, progress=status.update)
    _console.print(f"Wrote {out}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def demo(
    model: Annotated[Path, typer.Argument(help="A .keras file, or the folder of a run.")],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    verbose: VerboseOption = False,
) -> None:
    """Try a model in the browser: name pictures, see the augmentation (needs the extra demo)."""
    _quiet_pillow()
    _load_tensorflow(verbose)
    from asl_fast.inference import demo as demos
    from asl_fast.inference.classifier import Classifier

    def ready(url: str) -> None:
        _console.print(f"Open {url} – Ctrl-C ends it.", highlight=False, markup=False)

    demos.serve(Classifier.load(model), host, port, ready)


@data_app.command("info")
def data_info(
    data: DataOption = None, train: TrainFileOption = None, valid: ValidFileOption = None
) -> None:
    """Say which data a command with these options would use."""
    dataset = _load(data, train, valid)
    _console.print_json(json.dumps(dataset.describe()))


@data_app.command("fetch")
def data_fetch(
    to: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path("data"),
) -> None:
    """Download the real data set from Kaggle (needs the extra asl-fast[kaggle])."""
    from asl_fast.data import kaggle

    for path in kaggle.fetch(to):
        _console.print(f"Wrote {path}", highlight=False, markup=False)
    _console.print(f"Use it with: --data {to}", highlight=False, markup=False)


@data_app.command("convert")
def data_convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="A CSV file of pixels, a folder of class folders, or a CSV file with the columns "
            "filename and class."
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder for the records.")],
    height: Annotated[int, typer.Option(help="That image files are resized to.")] = 28,
    width: Annotated[int, typer.Option(help="That image files are resized to.")] = 28,
    color_mode: Annotated[
        Literal["grayscale", "rgb", "rgba"], typer.Option(help="Of image files.")
    ] = "grayscale",
    compress: Annotated[bool, typer.Option("--compress", help="By gzip.")] = False,
    shard_rows: Annotated[int, typer.Option(help="Images of a shard.")] = 16384,
    workers: Annotated[int | None, typer.Option(help="Processes. Default: as cores.")] = None,
) -> None:
    """Convert data of any size to records that training streams. Goes on where it was stopped."""
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), "{task.description}", MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_notes) as bar:
        task = bar.add_task("Converting", total=None)

        def advance(rows: int, total: int | None) -> None:
            bar.update(task, advance=rows, total=total)

        _load_tensorflow(verbose=False)
        from asl_fast.data.convert import convert

        records = convert(
            source,
            to,
            size=(height, width),
            color_mode=color_mode,
            compress=compress,
            shard_rows=shard_rows,
            workers=workers,
            progress=advance,
        )
    _console.print(
        f"Wrote {records.rows:,} images in {len(records.shards)} shards to {to}",
        highlight=False,
        markup=False,
    )


@data_app.command("serve")
def data_serve(
    port: Annotated[
        int, typer.Option(help="Of the dispatcher; the workers have the next ones.")
    ] = 5050,
    workers: Annotated[int, typer.Option(help="Each uses all cores.")] = 1,
    host: Annotated[
        str, typer.Option(help="Under which trainings reach this machine.")
    ] = "localhost",
    join: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Start only workers, for the dispatcher at this address."
        ),
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Run a tf.data service, which reads converted data for trainings, until Ctrl-C.

    Whoever reaches its ports can have it read and write files: for closed networks only.
    """
    _load_tensorflow(verbose)
    from asl_fast.data import service

    def ready(address: str) -> None:
        _console.print(
            f"tf.data service at {address} – Ctrl-C ends it.", highlight=False, markup=False
        )

    service.serve(port, workers, host, join, ready)


@data_app.command("render")
def data_render(
    to: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path("data/rendered"),
) -> None:
    """Write the built-in rendered hands as the two CSV files that the course reads."""
    with _rendering() as progress:
        from asl_fast.data import dataset as datasets

        dataset = datasets.built_in(progress=progress)
    from asl_fast.data import csv_table as table
    from asl_fast.system import storage

    storage.make_folder(to)
    for name, split in (("train", dataset.train), ("valid", dataset.valid)):
        path = to / f"sign_mnist_{name}.csv"
        with _notes.status(f"Writing {path}"), storage.replacing(path) as aside:
            table.write(aside, split.images, split.labels)
        _console.print(f"Wrote {path}", highlight=False, markup=False)


def main() -> None:
    """Runs the command line; a mistake in what the user gave is one line and exit code 2."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=_notes, show_time=False, show_path=False)],
    )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may be no text
    try:
        app()
    except InputError as error:
        print(f"asl-fast: {error}", file=sys.stderr)
        sys.exit(2)


def _load(
    data: Path | None,
    train: Path | None,
    valid: Path | None,
    damaged: str = "stop",
    service: str = "",
) -> "Dataset":
    """Loads a data set with a sign of life, and says what it is."""
    with _rendering() as progress:
        from asl_fast.data import dataset as datasets

        dataset = datasets.load(
            data, train=train, valid=valid, progress=progress, damaged=damaged, service=service
        )
    for name, split in (("train", dataset.train), ("valid", dataset.valid)):
        spelling = "" if split.spelling == "either" else f", {split.spelling} labels"
        _notes.print(
            f"{name}: {split.source}, {split.rows:,} rows{spelling}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    _tell_built_in(dataset)
    return dataset


def _tell_built_in(dataset: "Dataset") -> None:
    from asl_fast.data.dataset import BUILT_IN

    if dataset.name == BUILT_IN:
        _notes.print(
            "[bold yellow]These are drawn hands, not photographs:[/] no data folder was given. "
            "The accuracy says nothing about real ones; give them with --data FOLDER.",
            highlight=False,
            soft_wrap=True,
        )


@contextlib.contextmanager
def _rendering() -> Iterator[Callable[[int], None]]:
    """Shows that data is being read, or how far its rendering has come once it reports."""
    from rich.progress import Progress

    from asl_fast.data import synthetic_hands as hands

    with Progress(console=_notes, transient=True, disable=not _notes.is_terminal) as bar:
        task = bar.add_task("Reading the data", total=None)

        def advance(images: int) -> None:
            bar.update(
                task,
                description="Rendering the built-in hands, this once",
                total=hands.TRAIN_ROWS + hands.VALID_ROWS,
                advance=images,
            )

        yield advance


def _quiet_pillow() -> None:
    """Lets Pillow not warn of photographs: what matters of it is told in words."""
    warnings.filterwarnings("ignore", module="PIL")


def _load_tensorflow(verbose: bool) -> None:
    """Imports TensorFlow, without what it writes to standard error meanwhile unless `verbose`."""
    if verbose:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import tensorflow  # noqa: F401

        return
    with _quietly("Starting TensorFlow"):
        quiet.import_tensorflow()


@contextlib.contextmanager
def _quietly(doing: str, verbose: bool = False) -> Iterator[None]:
    """Shows a sign of life, and of what is written to standard error nothing unless `verbose`."""
    if verbose:
        yield
        return
    # The spinner writes to a duplicate, or it would be swallowed too.
    with _notes.status(doing), os.fdopen(os.dup(2), "w") as duplicate:
        original, _notes.file = _notes.file, duplicate
        try:
            with quiet.held():
                yield
        finally:
            _notes.file = original
