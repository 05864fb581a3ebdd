"""The folder of a run: its settings, and its results."""

import contextlib
import csv
import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from asl_fast.data.dataset import BUILT_IN
from asl_fast.models.network import COURSE, Network
from asl_fast.models.recipe import DEFAULT, RECIPES
from asl_fast.system.errors import InputError
from asl_fast.system.storage import make_folder, replacing
from asl_fast.training.checkpoint import Checkpoints

__all__ = [
    "RunSettings",
    "data_files",
    "opened",
    "refuse_finished",
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
    path = _settings(out)
    try:
        settings = json.loads(path.read_text())
        for name, kind in typing.get_type_hints(RunSettings).items():
            if not isinstance(settings[name], kind):
                raise ValueError(f"{name} is {settings[name]!r}"[:80])
        for name, value in settings["data"].items():
            if not isinstance(value, _DATA[name]):
                raise ValueError(f"{name} is {value!r}"[:80])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} can't be read, or a run did not write it ({error}). Choose another folder."
        ) from None
    return settings


def data_files(out: Path) -> dict[str, Any]:
    """Returns the arguments of `dataset.load` for the data of the finished run in a folder.

    They are empty for the folder of no finished run, and for a file.

    Raises:
        InputError: The run's metrics can't be read.
    """
    path = out / "metrics.json"
    if not path.is_file():
        return {}
    try:
        dataset = json.loads(path.read_text())["dataset"]
        if "place" in dataset:
            return dict(dataset["place"])
        if dataset.get("name") == BUILT_IN:
            return {"folder": BUILT_IN}
        return {name: dataset[name]["source"] for name in ("train", "valid")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} does not name the run's data: {error}. Give --data.") from None


def resumed(
    out: Path, data: Mapping[str, Any], settings: Mapping[str, Any], given: Set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fills in, from the run that was stopped in a folder, the options that were not given again.

    Args:
        out: The folder of the run. Without a stopped run in it, nothing changes.
        data: The arguments of `dataset.load` for the data.
        settings: Arguments of `train`, with `changes`, to which the run's are added.
        given: The names in `data` and `settings` that were given, and stay.

    Returns:
        `data` and `settings` to resume with.

    Raises:
        InputError: The settings of the stopped run can't be read.
    """
    begun = stopped(out)
    if begun is None:
        return dict(data), dict(settings)
    there = begun["data"]
    if given & _PLACES:
        there = {name: value for name, value in there.items() if name not in _PLACES}
    data = {**dict.fromkeys(data), **there, **{n: data[n] for n in data if n in given}}
    remembered = {name: begun[name] for name in settings if name not in given}
    changes = begun["changes"] | settings["changes"]
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
        refuse_finished(out)  # another process may have finished it meanwhile
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


def refuse_finished(out: Path) -> None:
    """Raises an `InputError` if a folder holds a finished run."""
    if (out / "metrics.json").exists():
        raise InputError(f"The folder {out} holds a finished run already. Choose another one.")


def _write_json(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(content, indent=2) + "\n"
    with replacing(path) as aside:
        aside.write_text(text)
    return json.loads(text)
