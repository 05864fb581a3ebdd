"""Processes of their own that have TensorFlow loaded but not yet used: seconds less each."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["pytest", "asl_fast.training.run"])

pipe = _FORKSERVER.Pipe


def start(
    log: Path, function: Callable[..., object], *arguments: Any, **environment: str
) -> BaseProcess:
    """Starts a function of a module in a process of its own, which writes to a log."""
    process = _FORKSERVER.Process(target=_run, args=(log, environment, function, arguments))
    process.start()
    return process


def command_line(*arguments: object) -> None:
    """Is `asl-fast` with arguments, to be started."""
    from asl_fast.commands import cli

    sys.argv = ["asl-fast", *map(str, arguments)]
    cli.main()


def in_background(*arguments: object) -> None:
    """Is `asl-fast` with arguments as a shell's `&` starts it, to be started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command_line(*arguments)


def _run(
    log: Path,
    environment: Mapping[str, str],
    function: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # the default again, as in any program
    function(*arguments)
