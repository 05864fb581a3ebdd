"""Checkpoints: all that a training needs to go on as if it had never been stopped."""

import contextlib
import hashlib
import io
import json
import logging
import math
import shutil
import signal
import threading
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
from asl_fast.system.storage import make_folder, replacing

__all__ = ["Checkpointing", "Checkpoints"]

_log = logging.getLogger(__name__)

# The wish to end, among many workers' wishes to save.
_END = 1 << 20

# What a checkpoint states besides the values, and how.
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
    """A checkpoint's content: what JSON holds, and the variables' values in their order."""

    facts: dict[str, Any]
    values: list[np.ndarray]


def _parsed(payload: bytes) -> _Saved:
    """Returns what `Checkpoints.save` wrote.

    Raises:
        Exception: Of any kind, where it did not write that.
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
        raise ValueError(f"it stands at step {facts['step']} of {steps}")
    return _Saved(facts, values)


class Checkpoints:
    """A folder of checkpoints, the last two of a training.

    A checkpoint is written aside and renamed, so that a process killed at any moment leaves the
    ones before it; and it ends with its own SHA-256, so that one that was damaged later is
    noticed, and the one before it used.

    Args:
        folder: Made if need be.
        seconds: Float, at least 0: how long to train before the next checkpoint within an epoch.
            Each epoch ends with one besides.
        identity: What must be the same for a training to go on, by names for people to read, as
            JSON holds it: the settings, and hashes of the data.

    Raises:
        InputError: The seconds are below 0 or no number.
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
        """Locks the folder, which the end of the process would free too.

        Raises:
            InputError: Another training writes to it, or it can't be written to.
        """
        make_folder(self.folder)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise InputError(
                f"Another training writes to {self.folder}. Wait for its end, or choose another "
                "folder."
            ) from None
        for left in self.folder.glob(".*.partial*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def save(self, facts: Mapping[str, Any], values: Sequence[np.ndarray]) -> None:
        """Writes a checkpoint and removes those before the last two.

        Where it can't be written, a warning says so; the ones before it are kept.

        Args:
            facts: As JSON holds it.
            values: In the order in which they will be wanted.
        """
        paths = self._paths()
        number = 1 + max((int(path.stem) for path in paths), default=0)
        text = json.dumps({"identity": self._identity, **facts})
        content = io.BytesIO()
        header = np.frombuffer(text.encode(), np.uint8)
        np.savez(content, header, *values)
        payload = content.getbuffer()
        path = self.folder / f"{number:08}.checkpoint"
        try:
            with replacing(path) as aside, aside.open("wb") as file:
                file.write(payload)
                file.write(hashlib.sha256(payload).digest())
        except InputError as error:
            _log.warning("The checkpoint %s Training goes on; the one before it is kept.", error)
            return
        for old in paths[:-1]:
            with contextlib.suppress(OSError):
                old.unlink()

    def load(self) -> _Saved | None:
        """Returns the last whole checkpoint, or None where there is none.

        A warning names each that is damaged.

        Raises:
            InputError: It is of a training with another identity; names the difference.
        """
        for path in reversed(self._paths()):
            try:
                content = path.read_bytes()
            except OSError as error:
                _log.warning("%s can't be read (%s).", path, error.strerror)
                continue
            payload, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
            if hashlib.sha256(payload).digest() != digest:
                _log.warning("%s is damaged; the checkpoint before it is used.", path)
                continue
            try:
                saved = _parsed(payload)
            except Exception as error:  # whatever comes up in what reads archives and headers
                _log.warning("%s is no checkpoint of this package's (%s).", path, error)
                continue
            self._check(saved.facts.pop("identity"))
            return saved
        return None

    def clear(self) -> None:
        """Removes the folder, of a training that has come to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*.checkpoint") if p.stem.isdecimal())

    def _check(self, identity: Mapping[str, Any]) -> None:
        for name in self._identity | identity:  # in the order in which they were given
            before, now = identity.get(name), self._identity.get(name)
            if before != now:
                raise InputError(
                    f"The training in {self.folder} was begun with another {name}: {before}, and "
                    f"now it is {now}. Give what it was begun with, or choose another folder."
                )


class Checkpointing(keras.callbacks.Callback):
    """Saves a training's state as it goes, and restores it.

    Args:
        checkpoints: Where.
        steps: Int, steps of an epoch, or None if it is not known or batches can't be taken up
            within an epoch; then only whole epochs are saved.
        first_epoch: Int, where a training begins that has no checkpoint.
        callbacks: Those whose state is kept: with `get_state()`, to what JSON holds, and
            `set_state(state)`.
        writes: Bool. False where another worker writes what all have come to.

    Attributes:
        epoch: Int, the epoch to begin with.
        done: Int, the steps of it that are done already.
        agree: From an int that this worker wishes to the sum of all workers'; all of them ask at
            the same steps.
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
                if self.done:  # what may have another order is taken up at whole epochs only
                    raise InputError(
                        f"The training in {checkpoints.folder} was stopped within an epoch, where "
                        "only batches in the order that they had can be taken up. Give what it "
                        "was begun with, or choose another folder."
                    )
            elif facts["steps"] != steps:
                raise InputError(
                    f"The training in {checkpoints.folder} was begun with {facts['steps']} steps "
                    f"an epoch, and now it has {steps}. Choose another folder."
                )
        self._position = self.epoch, self.done

    def restore(self, model: keras.Model) -> None:
        """Gives everything the values that were saved.

        Args:
            model: Compiled and built; within an epoch its metrics too.

        Raises:
            InputError: They are of another model.
        """
        if self._saved is None:
            return
        facts, values = self._saved
        self._saved = None
        variables = self._variables(model, within=facts["step"] > 0)
        wanted = [(variable.shape, tf.as_dtype(variable.dtype).size) for variable in variables]
        if wanted != [(value.shape, value.dtype.itemsize) for value in values]:
            raise InputError(
                f"The checkpoint in {self._checkpoints.folder} is of another model or optimizer. "
                "Choose another folder."
            )
        if len(self._stateful) != len(facts["callbacks"]):
            raise InputError(
                f"The training in {self._checkpoints.folder} was begun with other callbacks. Give "
                "the same, or choose another folder."
            )
        for variable, value in zip(variables, values, strict=True):
            # NumPy knows no bfloat16, and gives the bytes as they are.
            typed = value.view(variable.numpy().dtype) if value.dtype.kind == "V" else value
            variable.assign(typed)
        self._history, self._epochs = facts["history"], facts["epochs"]
        for callback, state in zip(self._stateful, facts["callbacks"], strict=True):
            callback.set_state(state)

    def put_history(self, model: keras.Model) -> None:
        """Gives the model's history the epochs that were done before."""
        model.history.history = {name: list(values) for name, values in self._history.items()}
        model.history.epoch = list(self._epochs)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Restores, after Keras has set the metrics back."""
        if self._saved is not None:
            self.restore(self.model)
            self.put_history(self.model)
        self._position = epoch, self.done if epoch == self.epoch else 0
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves where it is time, or where a signal asked for an end."""
        if self._steps is not None:
            done = min(batch + 1, self._steps)
            if done <= self._position[1]:
                return  # a step that was taken before the training was stopped
            self._position = self._position[0], done
        overdue = time.monotonic() - self._last >= self._checkpoints.seconds
        self._do_as_wished(overdue and self._steps is not None)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Keeps the training's metrics, before Keras takes the same variables for validation."""
        self._metrics = [variable.numpy() for variable in self.model.metrics_variables]

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Ends where a signal asked for it."""
        self._do_as_wished()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves."""
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))
        self._epochs.append(epoch)
        self._position = epoch + 1, 0
        self._metrics = None
        self._save()
        self._do_as_wished(saved=True)

    def __enter__(self) -> Self:
        """Lets SIGINT and SIGTERM end the training after a checkpoint.

        A second one ends it at once. Only the main thread receives signals; in others this does
        nothing.
        """
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped_by = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _do_as_wished(self, overdue: bool = False, saved: bool = False) -> None:
        """Saves, if that is overdue, and ends the training, if a signal asked for it."""
        wishes = self.agree(overdue + _END * (self._stopped_by is not None))
        if wishes and self._steps is not None and not saved:
            self._save()
        if wishes < _END:
            return
        if self._stopped_by is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _variables(self, model: keras.Model, within: bool) -> list[keras.Variable]:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        # The metrics begin anew with each epoch.
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
        values = [variable.numpy() for variable in variables]  # with the other workers' help
        values += self._metrics or []
        if self._writes:
            self._checkpoints.save(facts, values)
        self._last = time.monotonic()
