"""What ends a program from outside."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["handled"]


@contextlib.contextmanager
def handled(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Calls a handler at SIGINT and SIGTERM within the block.

    A SIGINT that is ignored stays so: a shell's `&` asks for that. Only the main thread receives
    signals; in others this does nothing.

    Args:
        handler: Takes the signal's number and the frame, as for `signal.signal`.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for one, earlier in before.items():
            signal.signal(one, earlier)
