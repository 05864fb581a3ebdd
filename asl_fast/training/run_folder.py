"""The folder of a run: its settings, and its results."""

import contextlib
import csv
import dataclasses
import json
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from asl_fast.data import dataset as datasets
from asl_fast.data.dataset import BUILT_IN, Dataset
from asl_fast.models.network import COURSE, Network
from asl_fast.models.recipe import DEFAULT, RECIPES
from asl_fast.system.errors import InputError
from asl_fast.system.storage import make_folder, read_text, replacing
from asl_fast.training.checkpoint import Checkpoints

__all__ = [
    "RunSettings",
    "already_finished",
    "begun",
    "check_same_data",
    "finished",
    "load_arguments",
    "opened",
    "read_metrics",
    "reload",
    "resumed",
    "stopped",
    "write_history",
    "write_metrics",
]

_PLACES = {"folder", "train", "valid"}
_DATA = dict.fromkeys((*_PLACES, "color"), str) | {"image_size": list, "seed": int}
_DATA["validation_split"] = float
_CHOICES = {
    "recipe": tuple(RECIPES),
    "precision": ("auto", "float32", "mixed_float16", "mixed_bfloat16"),
    "jit": ("auto", "on", "off"),
    "resident": ("auto", "on", "off"),
    "damaged": ("stop", "skip"),
}


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What a run trains, and how.

    Attributes:
        data: The arguments of `dataset.load` for the data.
        network: As `Network.name`.
        weights: As `Network.weights`.
        frozen: As `Network.frozen`.
        recipe: Name in `RECIPES`; by default the one that suits the network.
        changes: Values that replace the recipe's, by the names of its fields.
        augment: Bool. False trains on the images as they are.
        seed: Int in [0, 2**32), of initial weights, dropout, order and augmentation.
        precision: "auto", "float32", "mixed_float16" or "mixed_bfloat16".
        jit: "auto", "on" or "off": whether XLA compiles the whole training step.
        resident: "auto", "on" or "off": whether the images stay on the device.
        steps_per_execution: Int, steps per host call, or None for what suits the device.
        deterministic: Bool. True makes TensorFlow choose operations that give the same bits each
            time, for the rest of the process.
        damaged: "stop" or "skip": what the data were loaded with, for those that load them again.

    Raises:
        InputError: A value out of its range.
    """

    data: dict
    network: str = COURSE
    weights: str | None = None
    frozen: bool = False
    recipe: str = ""
    changes: dict = dataclasses.field(default_factory=dict)
    augment: bool = True
    seed: int = 0
    precision: str = "auto"
    jit: str = "auto"
    resident: str = "auto"
    steps_per_execution: int | None = None
    deterministic: bool = False
    damaged: str = "stop"

    def __post_init__(self) -> None:
        suited = self.recipe or suited_recipe(self.architecture)
        object.__setattr__(self, "recipe", suited)
        for name, choices in _CHOICES.items():
            if (given := getattr(self, name)) not in choices:
                raise InputError(
                    f"The {name} must be one of {', '.join(choices)}. Received: {given!r}."
                )
        if self.steps_per_execution is not None and self.steps_per_execution < 1:
            raise InputError(
                f"The steps per execution must be at least 1. Received: {self.steps_per_execution}."
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"The seed must be in [0, 2**32). Received: {self.seed}.")

    @property
    def architecture(self) -> Network:
        """The network."""
        return Network(self.network, self.weights, self.frozen)


def suited_recipe(network: Network) -> str:
    """Returns the name of the recipe for a network where none is asked for."""
    if network.name == COURSE:
        return DEFAULT
    return "finetune" if network.weights and not network.frozen else "transfer"


def stopped(out: Path) -> dict[str, Any] | None:
    """Returns the `RunSettings` of the stopped run in a folder, by name, or None if there is none.

    Raises:
        InputError: They can't be read.
    """
    try:
        return _checked(json.loads(read_text(_settings(out))), _settings(out))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(_settings(out), error) from None


def finished(out: Path) -> dict[str, Any] | None:
    """Returns the metrics of the finished run in a folder, or None if there is none.

    Raises:
        InputError: They can't be read.
    """
    path = out / "metrics.json"
    try:
        metrics = json.loads(read_text(path))
        _checked(metrics["settings"], path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(path, error) from None
    return metrics


def already_finished(out: Path) -> InputError:
    """Returns the error that a folder holds a finished run."""
    return InputError(f"The folder {out} holds a finished run already. Choose another one.")


def begun(out: Path) -> dict[str, Any] | None:
    """Returns the `RunSettings` of the stopped or finished run in a folder, or None.

    Raises:
        InputError: They can't be read.
    """
    return stopped(out) or (finished(out) or {}).get("settings")


def _checked(settings: Any, path: Path) -> dict[str, Any]:
    try:
        # Earlier versions did not note what happens to damaged records.
        settings = {"damaged": "stop"} | settings
        for name, kind in typing.get_type_hints(RunSettings).items():
            if not isinstance(settings[name], kind):
                raise ValueError(f"{name} is {settings[name]!r}"[:80])
        _check_place(settings["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from None
    return settings


def _check_place(place: Mapping[str, Any]) -> None:
    for name, value in place.items():
        if not isinstance(value, _DATA[name]):
            raise ValueError(f"{name} is {value!r}"[:80])


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} can't be read, or a run did not write it ({error}). Choose another folder."
    )


def read_metrics(out: Path) -> dict[str, Any] | None:
    """Returns the metrics of the finished run in a folder; None for any other folder or file.

    Raises:
        InputError: They can't be read, or don't name the run's data.
    """
    path = out / "metrics.json"
    if not path.is_file():
        return None
    try:
        metrics = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read: {error}. Give --data.") from None
    load_arguments(metrics)
    return metrics


def load_arguments(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `dataset.load` for the data of a run.

    Raises:
        InputError: The metrics don't tell them.
    """
    try:
        splits = metrics["dataset"]
        if "place" in splits:
            place = dict(splits["place"])
        elif splits.get("name") == BUILT_IN:  # the run is older than the entry
            place = {"folder": BUILT_IN}
        else:
            place = {name: splits[name]["source"] for name in ("train", "valid")}
        _check_place(place)
        return place | {"damaged": metrics.get("settings", {}).get("damaged", "stop")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The metrics.json does not name the run's data: {error}. Give --data."
        ) from None


def reload(metrics: Mapping[str, Any], load: Callable[..., Dataset] = datasets.load) -> Dataset:
    """Loads the data of a run again.

    Args:
        metrics: Of the run.
        load: `dataset.load`, or a function that takes its arguments.

    Raises:
        InputError: As for `dataset.load`, or they are not what they were.
    """
    dataset = load(**load_arguments(metrics))
    check_same_data(dataset, metrics)
    return dataset


def check_same_data(dataset: Dataset, metrics: Mapping[str, Any]) -> None:
    """Raises an `InputError` if data are not those of a run, by their SHA-256."""
    splits = {"train": ("training", dataset.train), "valid": ("validation", dataset.valid)}
    for name, (title, split) in splits.items():
        expected = metrics["dataset"].get(name, {}).get("sha256")
        if split.sha256 != expected:
            raise InputError(
                f"{split.source} is not the {title} set of the run: its SHA-256 is {split.sha256}, "
                f"the run's was {expected}."
            )


def resumed(
    out: Path, data: Mapping[str, Any], settings: Mapping[str, Any], given: Set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fills in, from the run in a folder, the options that were not given again.

    Args:
        out: The folder of the run, stopped or finished. Without one in it, nothing changes.
        data: The arguments of `dataset.load` for the data.
        settings: Arguments of `train`, with `changes`, to which the run's are added.
        given: The names in `data` and `settings` that were given, and stay.

    Returns:
        `data` and `settings` to resume with.

    Raises:
        InputError: The settings of the run can't be read.
    """
    before = begun(out)
    if before is None:
        return dict(data), dict(settings)
    there = before["data"]
    if given & _PLACES:
        there = {name: value for name, value in there.items() if name not in _PLACES}
    data = {**dict.fromkeys(data), **there, **{n: data[n] for n in data if n in given}}
    remembered = {name: before[name] for name in settings if name not in given}
    changes = before["changes"] | settings["changes"]
    return data, {**settings, **remembered, "changes": changes}


@contextlib.contextmanager
def opened(
    out: Path, checkpoints: Checkpoints, settings: RunSettings, *, resume: bool
) -> Iterator[None]:
    """Locks a folder for a run, and writes its settings there.

    Raises:
        InputError: The folder holds another run or can't be written to.
    """
    make_folder(out)
    with checkpoints:
        if finished(out) is not None:  # another process may have finished it meanwhile
            raise already_finished(out)
        if stopped(out) is None:
            _write_json(_settings(out), dataclasses.asdict(settings))
        elif not resume:
            raise InputError(
                f"The folder {out} holds a run that was stopped. Continue it (--resume), or "
                "choose another folder."
            )
        yield


def write_history(out: Path, history: Mapping[str, Sequence[float]], seconds: Any) -> None:
    """Writes a line per epoch, with its seconds of training."""
    columns = {"epoch": range(1, len(seconds) + 1), **history, "train_seconds": seconds}
    with replacing(out / "history.csv") as aside, aside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_metrics(out: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the metrics, which marks the run as finished; returns them as they can be read."""
    return _write_json(out / "metrics.json", metrics)


def _settings(out: Path) -> Path:
    return out / "checkpoints" / "settings.json"


def _write_json(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(content, indent=2) + "\n"
    with replacing(path) as aside:
        aside.write_text(text)
    return json.loads(text)
