"""A run's folder as one HTML page, to look at and to send on."""

import base64
import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image

from asl_fast.data import dataset as datasets
from asl_fast.data.dataset import Dataset, Split
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.inference.evaluation import count, load_model, measure, predict, worst_mistakes
from asl_fast.models.recipe import Recipe
from asl_fast.system import device, storage
from asl_fast.system.errors import InputError
from asl_fast.training import diagnosis as doctor
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.random_augment import RandomAugment

__all__ = ["write"]

_NUMBERS = ("val_accuracy", "best_val_accuracy", "train_seconds", "images_per_second", "epochs")
_HISTORY = ("accuracy", "loss", "val_accuracy", "val_loss", "train_seconds")
_MISTAKES, _CONFUSIONS, _AUGMENTED, _DRAWS = 24, 8, 8, 3
_CHART = (340.0, 200.0)  # width and height of the lines' field, in the units of the SVG
_BATCH = 1024


def write(
    run: Path,
    out: Path,
    dataset: Dataset | None = None,
    progress: Callable[[str], object] = lambda what: None,
) -> None:
    """Writes a page that needs neither network nor scripts nor other files.

    Args:
        run: A folder that `run.train` left.
        out: The HTML file.
        dataset: What the run was trained on. None: it is looked for where it was; if it is not
            there any more, the page says so and does without what needs it.
        progress: Is told what goes on.

    Raises:
        InputError: No folder of a finished run, a file in it that is damaged, another data set
            than the run's, or a folder that can't be written to.
    """
    metrics = _metrics(run)
    history = _history(run / "history.csv")
    recipe = _recipe(run, metrics)
    model = load_model(run)
    progress("Reading the data")
    if dataset is not None:
        _refuse_other(dataset, metrics)
        without = None
    else:
        dataset, without = _found(metrics)
    page: dict[str, Any] = {
        "name": run.resolve().name,
        "run": run,
        "metrics": metrics,
        "history": history,
        "charts": [
            _chart(quantity, [history[quantity], history[f"val_{quantity}"]])
            for quantity in ("accuracy", "loss")
        ],
        "drawn": metrics["dataset"].get("name") == datasets.BUILT_IN,
        "without": without,
        # As JSON has it, to tell which options do something.
        "plain": json.loads(json.dumps(dataclasses.asdict(AugmentOptions()))),
        "version": metadata.version("asl-fast"),
    }
    if dataset is not None:
        page["samples"], page["augmented"] = _examples(dataset.train, recipe, metrics)
        progress("Looking for mistakes")
        labels, probabilities = predict(model, dataset.valid)
        page["measured"] = measure(labels, probabilities)
        page["confusion"] = _confusion(count(labels, probabilities.argmax(axis=-1)))
        page["mistakes"] = _mistakes(dataset.valid, labels, probabilities)
    elif (run / "confusion.png").is_file():
        page["confusion_picture"] = _uri((run / "confusion.png").read_bytes())
    progress("Measuring a few steps")  # the last thing, as it trains the model
    page["speed"] = _speed(metrics, history)
    page["step"] = _step(model, recipe) if metrics.get("augment") else None
    storage.make_folder(out.parent)
    with storage.replacing(out) as aside:
        aside.write_text(_template().render(page), encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = _shown
    return environment.get_template("run_report.html")


def _shown(value: Any) -> str:
    """Returns a value of JSON in words."""
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
            return ", ".join(map(_shown, value))
        case _:
            return str(value)


def _metrics(run: Path) -> dict[str, Any]:
    path = run / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{run} is not the folder of a finished run: it has no metrics.json. Give one that "
            "`asl-fast train` has left."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read: {error}.") from None
    if not isinstance(metrics, dict):
        raise InputError(f"{path} is damaged: it holds no object.")
    for name in _NUMBERS:
        value = metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise InputError(f"{path} is damaged: {name} must be a number, not {value!r}.")
    dataset = metrics.get("dataset")
    parts = {"recipe": metrics.get("recipe"), "versions": metrics.get("versions")}
    for name in ("train", "valid"):
        parts[f"dataset.{name}"] = dataset.get(name) if isinstance(dataset, dict) else None
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise InputError(f"{path} is damaged: {name} must be an object, not {part!r}.")
    seed = metrics.get("seed")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"{path} is damaged: seed must be in [0, 2**32), not {seed!r}.")
    return metrics


def _history(path: Path) -> dict[str, list[float]]:
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
        raise InputError(f"{path} is damaged: each epoch must have finite numbers.")
    return history


def _recipe(run: Path, metrics: Mapping[str, Any]) -> Recipe:
    told = {name: value for name, value in metrics["recipe"].items() if name != "name"}
    try:
        return Recipe(**{**told, "augment": AugmentOptions(**told["augment"])})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run / 'metrics.json'}: its recipe is none that this version knows: {error}"
        ) from None


def _found(metrics: Mapping[str, Any]) -> tuple[Dataset | None, str | None]:
    """Returns the data set from where it was when the run began; or None, and why."""
    sources = [str(metrics["dataset"][name].get("source")) for name in ("train", "valid")]
    try:
        if metrics["dataset"].get("name") == datasets.BUILT_IN:
            dataset = datasets.built_in()
        else:
            dataset = datasets.load(train=sources[0], valid=sources[1])
        _refuse_other(dataset, metrics)
    except InputError as error:
        return None, str(error)
    return dataset, None


def _refuse_other(dataset: Dataset, metrics: Mapping[str, Any]) -> None:
    for name, split in (("train", dataset.train), ("valid", dataset.valid)):
        told = metrics["dataset"][name].get("sha256")
        if split.sha256 != told:
            raise InputError(
                f"{split.source} is not the {name} set of the run: its SHA-256 is {split.sha256}, "
                f"the run's was {told}."
            )


class _Chart(NamedTuple):
    """Lines over epochs, in the units of the SVG; y grows downwards.

    Attributes:
        title: Str.
        lines: Of train and of valid: the points.
        x_ticks: Pairs of place and epoch.
        y_ticks: Pairs of place and value, in words.
        last: The last values, of train and of valid.
    """

    title: str
    lines: list[list[tuple[float, float]]]
    x_ticks: list[tuple[float, int]]
    y_ticks: list[tuple[float, str]]
    last: list[float]


def _chart(title: str, columns: Sequence[Sequence[float]]) -> _Chart:
    epochs = len(columns[0])
    values = [value for column in columns for value in column]
    ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(min(values), max(values))
    (low, *_, high), (width, height) = ticks, _CHART

    def x(epoch: float) -> float:
        return width / 2 if epochs == 1 else (epoch - 1) / (epochs - 1) * width

    def y(value: float) -> float:
        return (1 - (value - low) / (high - low)) * height

    whole = MaxNLocator(6, integer=True).tick_values(1, epochs) if epochs > 1 else [1]
    return _Chart(
        title,
        [[(x(i), y(value)) for i, value in enumerate(column, 1)] for column in columns],
        [(x(epoch), round(epoch)) for epoch in whole if 1 <= epoch <= epochs],
        [(y(tick), f"{tick:g}") for tick in ticks],
        [column[-1] for column in columns],
    )


def _examples(
    train: Split, recipe: Recipe, metrics: Mapping[str, Any]
) -> tuple[list[tuple[str, str]], list[tuple[str, list[str]]]]:
    """Returns an image of each letter, and some before and after augmentation, with letters."""
    images, labels = train.images, train.labels
    if train.records is not None:  # the first ones, as the others would have to be read
        images, labels = next(train.records.batches(_BATCH).as_numpy_iterator())
    random = np.random.default_rng(metrics["seed"])
    rows = [random.choice(found) for i in range(len(LETTERS)) if len(found := _rows_of(labels, i))]
    samples = [(LETTERS[labels[row]], _png(images[row])) for row in rows]
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
        (LETTERS[labels[row]], [_png(image) for image in four])
        for row, four in zip(chosen, pictures, strict=True)
    ]
    return samples, augmented


def _rows_of(labels: np.ndarray, label: int) -> np.ndarray:
    return np.flatnonzero(labels == label)


def _confusion(counts: np.ndarray) -> dict[str, Any]:
    """Returns the table of letters taken for letters, and its largest cells off the diagonal."""
    rows = counts.sum(axis=1)
    shares = counts / np.maximum(rows, 1)[:, None]
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    worst = [divmod(int(place), len(LETTERS)) for place in order if wrong.flat[place]]
    return {
        "letters": LETTERS,
        "rows": [
            (
                letter,
                list(zip(LETTERS, counts[i].tolist(), shares[i].tolist(), strict=True)),
                float(shares[i, i]) if rows[i] else None,
            )
            for i, letter in enumerate(LETTERS)
        ],
        "worst": [
            (LETTERS[i], LETTERS[j], int(counts[i, j]), int(rows[i]), float(shares[i, j]))
            for i, j in worst
        ],
    }


def _mistakes(valid: Split, labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, Any]]:
    rows, images = worst_mistakes(valid, labels, probabilities, _MISTAKES)
    predictions = probabilities.argmax(axis=1)
    return [
        {
            "letter": LETTERS[labels[row]],
            "said": LETTERS[predictions[row]],
            "probability_said": float(probabilities[row, predictions[row]]),
            "probability": float(probabilities[row, labels[row]]),
            "picture": _png(image),
        }
        for row, image in zip(rows, images, strict=True)
    ]


def _speed(
    metrics: Mapping[str, Any], history: Mapping[str, Sequence[float]]
) -> list[tuple[str, str]]:
    first, *later = seconds = history["train_seconds"]
    facts = [
        ("images a second, median over epochs", f"{metrics['images_per_second']:,.0f}"),
        ("the first epoch, which compiles", f"{first:.2f}\u00a0s"),
    ]
    if later:
        facts.append(("an epoch after it, median", f"{np.median(later):.2f}\u00a0s"))
    beside = max(0.0, metrics["train_seconds"] - sum(seconds))
    facts += [
        ("the whole training", f"{metrics['train_seconds']:.1f}\u00a0s"),
        ("of it start, validation and saving", f"{beside:.1f}\u00a0s"),
    ]
    return facts


def _step(model: Any, recipe: Recipe) -> dict[str, Any]:
    """Measures what the network waits for augmentation in a step, on this machine."""
    # A batch that the run's machine held need not fit into this one.
    recipe = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, _BATCH))
    found = doctor.microseconds_an_image(model, recipe)
    return {
        **found,
        "share": found["augmentation"] / sum(found.values()),
        "batch_size": recipe.batch_size,
        "device": device.describe(),
        "turns": doctor.TURNS,
    }


def _png(image: np.ndarray) -> str:
    """Returns the data URI of a grey image, uint8 (height, width, 1)."""
    stream = io.BytesIO()
    Image.fromarray(image[..., 0]).save(stream, "PNG", optimize=True)
    return _uri(stream.getvalue())


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
