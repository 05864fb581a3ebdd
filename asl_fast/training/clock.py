"""The clock of a training: seconds per epoch, without the validation."""

import time
from collections.abc import Mapping
from typing import Any

import keras

__all__ = ["TrainingClock"]


class TrainingClock(keras.callbacks.Callback):
    """Times the training part of each epoch, without the validation.

    Attributes:
        seconds: Wall time of each epoch; the first includes tracing and compiling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._begin: float | None = None
        self._end: float | None = None
        self._before = 0.0
        self._total_before = 0.0
        self._created = time.perf_counter()

    @property
    def total(self) -> float:
        """Wall time since this was made, and of the training before it was resumed."""
        return self._total_before + time.perf_counter() - self._created

    def get_state(self) -> dict[str, Any]:
        """Returns the times so far, also of the current epoch, for JSON."""
        running = 0.0 if self._begin is None else self._elapsed()
        return {"seconds": self.seconds, "running": running, "total": self.total}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `get_state` returned."""
        self.seconds, self._before = list(state["seconds"]), state["running"]
        self._total_before = state["total"]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self._begin, self._end = time.perf_counter(), None

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Stops the clock where validation follows the epoch."""
        self._end = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stops the clock where no validation did."""
        self.seconds.append(self._elapsed())
        self._begin, self._before = None, 0.0

    def _elapsed(self) -> float:
        assert self._begin is not None
        return self._before + (self._end or time.perf_counter()) - self._begin
