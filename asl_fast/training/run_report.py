"""A run as one self-contained HTML page."""

import base64
import csv
import dataclasses
import datetime
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from asl_fast.data import dataset as datasets
from asl_fast.data.dataset import Dataset, Split
from asl_fast.inference import figures
from asl_fast.inference.evaluation import count, matched, measure, predict, worst_mistakes
from asl_fast.models.recipe import Recipe
from asl_fast.models.saving import load_model
from asl_fast.system import device, storage
from asl_fast.system.errors import InputError
from asl_fast.training import diagnosis, run_folder
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.random_augment import RandomAugment

__all__ = ["date_of", "read_history", "read_metrics", "shown", "template", "uri", "write"]

_NUMBERS = ("val_accuracy", "best_val_accuracy", "train_seconds", "images_per_second", "epochs")
_HISTORY = ("accuracy", "loss", "val_accuracy", "val_loss", "train_seconds")
_SETTINGS = ("augment", "seed", "precision", "jit", "resident", "deterministic", "devices")
_SETTING_NAMES = {
    "augment": "augmentation",
    "jit": "XLA for the whole step",
    "resident": "images on the device",
}
_MISTAKES, _CONFUSIONS, _AUGMENTED, _DRAWS, _SAMPLES = 24, 8, 8, 3, 48
_SHOWN = 112  # pixels, at most, of an image's longer side on the page
_BATCH = 1024


def write(
    run: Path,
    out: Path,
    dataset: Dataset | None = None,
    progress: Callable[[str], object] = lambda activity: None,
    pixels: str | None = None,
) -> None:
    """Writes a run as one HTML page that needs no network, script or other file.

    Args:
        run: A folder written by `run.train`.
        out: The HTML file.
        dataset: The data set of the run. None: it is loaded from where it was during the run; if
            it can't be, the page says why and omits what depends on it.
        progress: Called with each activity as it begins.
        pixels: The range of pixels that the model takes, as for `Classifier`.

    Raises:
        InputError: `run` is not the folder of a finished run or has a damaged file, `dataset` is
            not the run's, or `out` can't be written.
    """
    metrics = read_metrics(run)
    history = read_history(run / "history.csv")
    recipe = _read_recipe(run, metrics)
    model = load_model(run)
    progress("Reading the data")
    data_error = None
    if dataset is not None:
        run_folder.check_same_data(dataset, metrics)
    else:
        try:
            dataset = run_folder.reload(metrics)
        except InputError as error:
            data_error = str(error)
    page: dict[str, Any] = {
        "name": run.resolve().name,
        "date": date_of(run, metrics),
        "run": run,
        "metrics": metrics,
        "history": history,
        "charts": {
            quantity: uri(figures.curve_svg(history, quantity), "svg+xml")
            for quantity in ("accuracy", "loss")
        },
        "built_in": metrics["dataset"].get("name") == datasets.BUILT_IN,
        "data_error": data_error,
        "configuration": _configuration(metrics),
        # Through JSON, as the recipe that it is compared with.
        "neutral_options": json.loads(json.dumps(dataclasses.asdict(AugmentOptions()))),
        "version": metadata.version("asl-fast"),
    }
    if dataset is not None:
        valid = matched(model, dataset.valid, run)
        classes = valid.classes
        page["samples"], page["augmented"] = _examples(dataset.train, recipe, metrics)
        progress("Looking for mistakes")
        labels, probabilities = predict(model, valid, pixels=pixels)
        page["measured"] = measure(labels, probabilities, classes)
        counts = count(labels, probabilities.argmax(axis=-1), len(classes))
        page["confusion"] = _confusion(counts, classes)
        page["mistakes"] = _mistakes(valid, labels, probabilities)
    elif (run / "confusion.png").is_file():
        page["confusion_picture"] = uri((run / "confusion.png").read_bytes())
    progress("Measuring a few steps")  # last, since it trains the model
    page["speed"] = _speed(metrics, history)
    page["step"] = _time_step(model, recipe) if metrics.get("augment") else None
    storage.make_folder(out.parent)
    with storage.replacing(out) as aside:
        aside.write_text(template("run_report.html").render(page), encoding="utf-8")


def template(name: str) -> jinja2.Template:
    """Returns a template of this folder, whose pages need no network and run no script."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template(name)


def shown(value: Any) -> str:
    """Returns a JSON value as text for readers."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case int():
            return f"{value:,}"
        case list() | tuple():
            return ", ".join(map(shown, value))
        case _:
            return str(value)


def date_of(run: Path, metrics: Mapping[str, Any]) -> str:
    """Returns when a run was finished, for readers."""
    recorded = metrics.get("finished")
    try:
        when = datetime.datetime.fromisoformat(str(recorded))
    except ValueError:  # the run is older than the entry
        when = datetime.datetime.fromtimestamp((run / "metrics.json").stat().st_mtime)
    return f"{when.day} {when:%B %Y, %H:%M}"


def read_metrics(run: Path) -> dict[str, Any]:
    """Reads the `metrics.json` of a finished run, and checks what pages show of it.

    Raises:
        InputError: There is none, or it is damaged.
    """
    path = run / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{run} is not the folder of a finished run: it has no metrics.json. Give a folder "
            "that `asl-fast train` wrote."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read: {error}.") from None
    if not isinstance(metrics, dict):
        raise InputError(f"{path} is damaged: it must hold an object.")
    for name in _NUMBERS:
        value: Any = metrics.get(name)
        if type(value) not in (int, float) or value < 0:
            raise InputError(f"{path} is damaged: {name} must be a number, not {value!r}.")
    splits = metrics["dataset"] if isinstance(metrics.get("dataset"), dict) else {}
    objects = {f"dataset.{name}": splits.get(name) for name in ("train", "valid")}
    objects |= {name: metrics.get(name) for name in ("recipe", "versions")}
    for name, value in objects.items():
        if not isinstance(value, dict):
            raise InputError(f"{path} is damaged: {name} must be an object, not {value!r}.")
    seed = metrics.get("seed")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise InputError(f"{path} is damaged: seed must be in [0, 2**32), not {seed!r}.")
    return metrics


def read_history(path: Path) -> dict[str, list[float]]:
    """Reads the `history.csv` of a run: a value per epoch.

    Raises:
        InputError: It can't be read or is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        history = {name: [float(row[name]) for row in rows] for name in _HISTORY}
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    except KeyError as error:
        raise InputError(f"{path} is damaged: it has no column {error}.") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    if not rows or not all(math.isfinite(value) for column in history.values() for value in column):
        raise InputError(f"{path} is damaged: every epoch must have finite numbers.")
    return history


def _read_recipe(run: Path, metrics: Mapping[str, Any]) -> Recipe:
    values = {name: value for name, value in metrics["recipe"].items() if name != "name"}
    try:
        return Recipe(**{**values, "augment": AugmentOptions(**values["augment"])})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run / 'metrics.json'}: this version does not know such a recipe: {error}"
        ) from None


def _configuration(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    network = metrics.get("network") or {"name": "course"}
    recipe = [("network" if name == "name" else name, value) for name, value in network.items()]
    recipe += [
        ("recipe" if name == "name" else name, value)
        for name, value in metrics["recipe"].items()
        if name != "augment"
    ]
    settings = [
        (_SETTING_NAMES.get(name, name), metrics.get(name, "not recorded")) for name in _SETTINGS
    ]
    return recipe + settings


def _examples(
    train: Split, recipe: Recipe, metrics: Mapping[str, Any]
) -> tuple[list[tuple[str, str]], list[tuple[str, list[str]]]]:
    """Returns (class, image) for each class, and (class, images) before and after augmentation.

    Images are data URIs, and of many classes the first ones are shown.
    """
    images, labels = train.images, train.labels
    if train.records is not None:  # only the first batch is read
        images, labels = next(train.records.batches(_BATCH).as_numpy_iterator())
    random = np.random.default_rng(metrics["seed"])
    present = np.unique(labels)[:_SAMPLES]
    rows = [random.choice(np.flatnonzero(labels == label)) for label in present]
    samples = [(train.classes[labels[row]], _png(images[row])) for row in rows]
    if not metrics.get("augment"):
        return samples, []
    chosen = np.sort(random.choice(rows, min(_AUGMENTED, len(rows)), replace=False))
    layer = RandomAugment(
        **dataclasses.asdict(recipe.augment), seed=metrics["seed"], dtype="float32"
    )
    stored = images[chosen]
    draws = [
        np.asarray(layer(stored, samples=chosen, epoch=epoch, training=True))
        for epoch in range(_DRAWS)
    ]
    pictures = np.stack([stored, *np.clip(np.rint(draws), 0, 255).astype(np.uint8)], axis=1)
    augmented = [
        (train.classes[labels[row]], [_png(image) for image in four])
        for row, four in zip(chosen, pictures, strict=True)
    ]
    return samples, augmented


def _confusion(counts: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the confusion matrix as table rows, and its largest cells off the diagonal."""
    images = counts.sum(axis=1)
    shares = counts / np.maximum(images, 1)[:, None]
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    worst = [divmod(int(cell), len(classes)) for cell in order if wrong.flat[cell]]
    return {
        "rows": [
            (
                name,
                list(zip(classes, counts[i].tolist(), shares[i].tolist(), strict=True)),
                float(shares[i, i]) if images[i] else None,
            )
            for i, name in enumerate(classes)
        ],
        "worst": [
            (classes[i], classes[j], int(counts[i, j]), int(images[i]), float(shares[i, j]))
            for i, j in worst
        ],
    }


def _mistakes(valid: Split, labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, Any]]:
    rows, images = worst_mistakes(valid, labels, probabilities, _MISTAKES)
    predictions = probabilities.argmax(axis=1)
    return [
        {
            "true": valid.classes[labels[row]],
            "probability": float(probabilities[row, labels[row]]),
            "predicted": valid.classes[predictions[row]],
            "predicted_probability": float(probabilities[row, predictions[row]]),
            "picture": _png(image),
        }
        for row, image in zip(rows, images, strict=True)
    ]


def _speed(
    metrics: Mapping[str, Any], history: Mapping[str, Sequence[float]]
) -> list[tuple[str, str]]:
    first, *later = seconds = history["train_seconds"]
    facts = [
        ("images per second, median over epochs", f"{metrics['images_per_second']:,.0f}"),
        ("first epoch, including compilation", f"{first:.2f}\u00a0s"),
    ]
    if later:
        facts.append(("later epochs, median", f"{np.median(later):.2f}\u00a0s"))
    outside_epochs = max(0.0, metrics["train_seconds"] - sum(seconds))
    return [
        *facts,
        ("whole training", f"{metrics['train_seconds']:.1f}\u00a0s"),
        ("of which start, validation and saving", f"{outside_epochs:.1f}\u00a0s"),
    ]


def _time_step(model: Any, recipe: Recipe) -> dict[str, Any]:
    """Measures how long the network waits for augmentation in a step on this machine."""
    # A batch that fitted the memory of the run's machine need not fit here.
    recipe = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, _BATCH))
    microseconds = diagnosis.microseconds_an_image(model, recipe)
    return {
        **microseconds,
        "share": microseconds["augmentation"] / sum(microseconds.values()),
        "batch_size": recipe.batch_size,
        "device": device.describe(),
        "turns": diagnosis.TURNS,
    }


def _png(image: np.ndarray) -> str:
    """Returns the data URI of an image, uint8 (height, width, 1 or 3), made smaller if large."""
    stream = io.BytesIO()
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    picture.thumbnail((_SHOWN, _SHOWN))
    picture.save(stream, "PNG", optimize=True)
    return uri(stream.getvalue())


def uri(picture: bytes, kind: str = "png") -> str:
    """Returns a picture as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
