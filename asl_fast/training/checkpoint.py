"""Checkpoints: what a training needs to continue as if it had never been stopped."""

import contextlib
import hashlib
import io
import json
import logging
import math
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import filelock
import keras
import numpy as np
import tensorflow as tf

from asl_fast.system.errors import InputError
from asl_fast.system.signals import handled
from asl_fast.system.storage import make_folder, open_file, replacing

__all__ = ["Checkpointing", "Checkpoints"]

_log = logging.getLogger(__name__)

# A worker's wish to stop, added to the number of workers that wish to save.
_STOP = 1 << 20

# The header of a checkpoint, and its types.
_FACTS: dict[str, Any] = {
    "identity": dict,
    "epoch": int,
    "step": int,
    "steps": int | None,
    "history": dict,
    "epochs": list,
    "callbacks": list,
}
_DIGEST_SIZE = hashlib.sha256().digest_size


class _Saved(NamedTuple):
    """A checkpoint's content: its header, and the variables' values in their order."""

    facts: dict[str, Any]
    values: list[np.ndarray]


def _parsed(payload: bytes) -> _Saved:
    """Parses what `Checkpoints.save` wrote.

    Raises:
        Exception: Of any kind, if the payload is something else.
    """
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed")  # and might expand to any size
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        header, *values = (arrays[f"arr_{i}"] for i in range(len(arrays.files)))
    facts = json.loads(header.tobytes())
    for name, kind in _FACTS.items():
        if not isinstance(facts[name], kind) or isinstance(facts[name], bool):
            raise ValueError(f"its {name} is {facts[name]!r}"[:80])
    steps = facts["steps"]
    if not (facts["epoch"] >= 0 and 0 <= facts["step"] <= (1 if steps is None else steps)):
        raise ValueError(f"its step is {facts['step']} of {steps}")
    for name, row in {**facts["history"], "epochs": facts["epochs"]}.items():
        if not isinstance(row, list) or not all(isinstance(n, int | float) for n in row):
            raise ValueError(f"its {name} is {row!r}"[:80])
    return _Saved(facts, values)


def _fits(variable: keras.Variable, value: np.ndarray) -> bool:
    """Returns whether a value is a variable's; NumPy loads bfloat16 as raw bytes."""
    dtype = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)
    return value.shape == variable.shape and value.dtype in (
        dtype,
        np.dtype((np.void, dtype.itemsize)),
    )


class Checkpoints:
    """A folder of the last two checkpoints of a training.

    A checkpoint is written to a temporary file and renamed, so that a process killed at any moment
    leaves the earlier ones; and it ends with its own SHA-256, so that damage is noticed and the
    earlier one used.

    Args:
        folder: Created if missing.
        seconds: Float, at least 0, between two checkpoints within an epoch. Each epoch ends with
            one, too.
        identity: What must stay the same for a training to continue, by readable names, for JSON:
            the settings, and hashes of the data.

    Raises:
        InputError: The seconds are below 0 or not finite.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float = 30.0,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= seconds < math.inf:
            raise InputError(f"The seconds between checkpoints must be at least 0: {seconds}.")
        self.folder = folder
        self.seconds = seconds
        self._identity = json.loads(json.dumps(dict(identity or {})))
        self._lock = filelock.FileLock(folder / "lock", timeout=0)

    def __enter__(self) -> Self:
        """Locks the folder; the end of the process unlocks it, too.

        Raises:
            InputError: Another training writes to it, or it can't be written to.
        """
        make_folder(self.folder)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise InputError(
                f"Another training writes to {self.folder}. Wait until it ends, or choose another "
                "folder."
            ) from None
        for leftover in self.folder.glob(".*.partial*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def save(self, facts: Mapping[str, Any], values: Sequence[np.ndarray]) -> None:
        """Writes a checkpoint and removes all but the last two.

        If it can't be written, that is logged as a warning, and the earlier ones are kept.

        Args:
            facts: The header but for the identity, for JSON.
            values: Of the variables, in the order of restoration.
        """
        paths = self._paths()
        number = 1 + max((int(path.stem) for path in paths), default=0)
        header = json.dumps({"identity": self._identity, **facts}).encode()
        content = io.BytesIO()
        np.savez(content, np.frombuffer(header, np.uint8), *values)
        payload = content.getbuffer()
        path = self.folder / f"{number:08}.checkpoint"
        try:
            with replacing(path) as aside, aside.open("wb") as file:
                file.write(payload)
                file.write(hashlib.sha256(payload).digest())
        except InputError as error:
            _log.warning("The checkpoint %s Training goes on; the earlier one is kept.", error)
            return
        for old in paths[:-1]:
            with contextlib.suppress(OSError):
                old.unlink()

    def load(self) -> _Saved | None:
        """Returns the last intact checkpoint, or None if there is none.

        Each damaged one is logged as a warning.

        Raises:
            InputError: It belongs to a training with another identity; names the difference.
        """
        for path in reversed(self._paths()):
            try:
                with open_file(path) as file:
                    content = file.read()
            except OSError as error:
                _log.warning("%s can't be read (%s).", path, error.strerror)
                continue
            payload, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
            if hashlib.sha256(payload).digest() != digest:
                _log.warning("%s is damaged; the checkpoint before it is used.", path)
                continue
            try:
                saved = _parsed(payload)
            except Exception as error:  # reading archives and headers raises many kinds
                _log.warning("%s is not a checkpoint of this package (%s).", path, error)
                continue
            self.check(saved.facts.pop("identity"))
            return saved
        return None

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raises an `InputError` if this is another training's identity; names the difference."""
        for name in self._identity | identity:  # in the given order
            before, now = identity.get(name), self._identity.get(name)
            if before != now:
                raise InputError(
                    f"The training in {self.folder} was begun with another {name}: {before}, and "
                    f"now it is {now}. Restore the former, or choose another folder."
                )

    def clear(self) -> None:
        """Removes the folder of a training that has finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*.checkpoint") if p.stem.isdecimal())


class Checkpointing(keras.callbacks.Callback):
    """Saves a training's state regularly, and restores it.

    Args:
        checkpoints: The folder.
        steps: Int, steps per epoch; or None if that is unknown or batches can't resume within an
            epoch, so that only whole epochs are saved.
        first_epoch: Int, where a training without a checkpoint begins.
        callbacks: Those with `get_state()`, whose result must suit JSON, and `set_state(state)`
            are saved too.
        writes: Bool. False where another worker writes for all.

    Attributes:
        epoch: Int, the epoch to begin with.
        done: Int, how many of its steps are done.
        agree: From this worker's wish, an int, to the sum of all workers'. All ask at the same
            steps.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        steps: int | None,
        first_epoch: int,
        callbacks: Sequence[Any] = (),
        writes: bool = True,
    ) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._steps = steps
        self._stateful = [c for c in callbacks if hasattr(c, "get_state")]
        self._writes = writes
        self.agree: Callable[[int], int] = lambda wish: wish
        self._history: dict[str, list[float]] = {}
        self._epochs: list[int] = []
        self._stopped_by: signal.Signals | None = None
        self._metrics: list[np.ndarray] | None = None
        self._saved = checkpoints.load()
        self.epoch, self.done = first_epoch, 0
        if self._saved is not None:
            facts = self._saved.facts
            self.epoch, self.done = facts["epoch"], facts["step"]
            if None in (facts["steps"], steps):
                if self.done:
                    raise InputError(
                        f"The training in {checkpoints.folder} was stopped within an epoch, and "
                        "the order of these batches may be another. Give the data and model that "
                        "it was begun with, or choose another folder."
                    )
            elif facts["steps"] != steps:
                raise InputError(
                    f"The training in {checkpoints.folder} was begun with {facts['steps']} steps "
                    f"an epoch, and now it has {steps}. Choose another folder."
                )
        self._position = self.epoch, self.done

    def restore(self, model: keras.Model) -> None:
        """Restores the saved values, once.

        Args:
            model: Compiled and built; within an epoch its metrics too.

        Raises:
            InputError: The checkpoint belongs to another model.
        """
        if self._saved is None:
            return
        facts, values = self._saved
        self._saved = None
        variables = self._variables(model, within=facts["step"] > 0)
        if len(variables) != len(values) or not all(map(_fits, variables, values)):
            raise InputError(
                f"The checkpoint in {self._checkpoints.folder} belongs to another model or "
                "optimizer. Choose another folder."
            )
        if len(self._stateful) != len(facts["callbacks"]):
            raise InputError(
                f"The training in {self._checkpoints.folder} was begun with other callbacks. Give "
                "the same ones, or choose another folder."
            )
        for variable, value in zip(variables, values, strict=True):
            # NumPy loads bfloat16, which it does not know, as raw bytes.
            typed = value.view(variable.numpy().dtype) if value.dtype.kind == "V" else value
            variable.assign(typed)
        self._history, self._epochs = facts["history"], facts["epochs"]
        for callback, state in zip(self._stateful, facts["callbacks"], strict=True):
            try:
                callback.set_state(state)
            except Exception as error:
                raise InputError(
                    f"{type(callback).__name__} can't continue from the checkpoint in "
                    f"{self._checkpoints.folder} ({error!r}). Choose another folder."
                ) from error

    def put_history(self, model: keras.Model) -> None:
        """Puts the earlier epochs into the model's history."""
        model.history.history = {name: list(values) for name, values in self._history.items()}
        model.history.epoch = list(self._epochs)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Restores, after Keras has reset the metrics."""
        if self._saved is not None:
            self.restore(self.model)
            self.put_history(self.model)
        self._position = epoch, self.done if epoch == self.epoch else 0
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves if that is due, and stops if a signal asked for it."""
        if self._steps is not None:
            done = min(batch + 1, self._steps)
            if done <= self._position[1]:
                return  # a step from before the resumption
            self._position = self._position[0], done
        due = time.monotonic() - self._last >= self._checkpoints.seconds
        self._save_or_stop(due and self._steps is not None)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Copies the training's metrics, before Keras reuses the variables for the validation."""
        self._metrics = [variable.numpy() for variable in self.model.metrics_variables]

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops if a signal asked for it."""
        self._save_or_stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves."""
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))
        self._epochs.append(epoch)
        self._position = epoch + 1, 0
        self._metrics = None
        self._save()
        self._save_or_stop(saved=True)

    def __enter__(self) -> Self:
        """Makes SIGINT and SIGTERM stop the training after a checkpoint, a second one at once.

        See `signals.handled` for where this does nothing.
        """
        self._handled = handled(self._stop)
        self._handled.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._handled.__exit__(None, None, None)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped_by = signal.Signals(number)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _save_or_stop(self, due: bool = False, saved: bool = False) -> None:
        """Saves if that is due on any worker, and stops if a signal reached one."""
        wishes = self.agree(due + _STOP * (self._stopped_by is not None))
        if wishes and self._steps is not None and not saved:
            self._save()
        if wishes < _STOP:
            return
        if self._stopped_by is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _variables(self, model: keras.Model, within: bool) -> list[keras.Variable]:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        # Metrics start anew with each epoch.
        metrics = model.metrics_variables if within else []
        return [*model.variables, *model.optimizer.variables, *metrics]

    def _save(self) -> None:
        epoch, step = self._position
        facts = {
            "epoch": epoch,
            "step": step,
            "steps": self._steps,
            "history": self._history,
            "epochs": self._epochs,
            "callbacks": [callback.get_state() for callback in self._stateful],
        }
        validating = self._metrics is not None
        variables = self._variables(self.model, within=step > 0 and not validating)
        values = [variable.numpy() for variable in variables]  # which needs all workers
        values += self._metrics or []
        if self._writes:
            self._checkpoints.save(facts, values)
        self._last = time.monotonic()
