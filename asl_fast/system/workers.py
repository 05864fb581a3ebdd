"""Worker processes."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any

__all__ = ["Workers"]


class Workers(ProcessPoolExecutor):
    """A pool of processes that don't import the caller's main module.

    They don't need it, it may take seconds to import, and a script without the usual
    `if __name__ == "__main__"` would run again in each of them. They end with the caller's process,
    however that ends.

    Args:
        count: Int, at least 1, the most processes.
        begin: Called first in each of them.
    """

    def __init__(self, count: int, begin: Callable[[], object] | None = None) -> None:
        # Not "fork": TensorFlow's threads may hold locks that a child would wait for forever.
        super().__init__(count, multiprocessing.get_context("spawn"), _begin, (begin,))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `concurrent.futures.Executor.submit`, which starts the processes."""
        with _hidden_main():
            return super().submit(fn, *args, **kwargs)


def _begin(begin: Callable[[], object] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _hidden_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
