"""TensorBoard's event files."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from asl_fast.system.private_api import file_error_reason

__all__ = ["EventLog"]

_log = logging.getLogger(__name__)

_WRITING = (
    *("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end"),
    *("on_test_begin", "on_test_end"),
)


class EventLog(keras.callbacks.TensorBoard):
    """TensorBoard's callback; if a file can't be written, it warns and stops, and training goes on.

    The arguments are those of `keras.callbacks.TensorBoard`.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._broken = False
        for name in _WRITING:
            setattr(self, name, functools.partial(self._try, getattr(self, name)))

    def _try(self, method: Callable[..., None], *arguments: Any, **keywords: Any) -> None:
        if self._broken:
            return
        try:
            method(*arguments, **keywords)
        except tf.errors.OpError as error:
            self._broken = True
            reason = file_error_reason(error)
            _log.warning("%s can't be written: %s. Training goes on.", self.log_dir, reason)
