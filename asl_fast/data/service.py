"""Reading on other machines: TensorFlow's tf.data service.

A dispatcher assigns the parts of a data set to workers, which read them and send them to trainings.
"""

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from asl_fast.system.errors import InputError
from asl_fast.system.signals import handled

__all__ = ["SECONDS", "Waiting", "check", "passes", "serve"]

SECONDS = 20.0  # that a training waits for an answer before it is an error

_PATIENCE = 60.0  # seconds without a step, after which a training warns

_HOST = re.compile(r"[^\s\x00-\x1f\[\]/:]+|\[[0-9A-Fa-f:.]+\]")
_PORT = re.compile(r"[0-9]{1,5}")

_HEARTBEAT = 1000  # milliseconds; workers continue for as long after a training has ended

_log = logging.getLogger(__name__)


def serve(
    port: int,
    workers: int,
    host: str,
    join: str | None,
    ready: Callable[[str], object],
) -> None:
    """Runs a dispatcher and workers in this process until Ctrl-C or SIGTERM.

    They listen on all addresses of the machine.

    There is no authentication: anyone who reaches the ports can run any TensorFlow graph, which
    may read and write files.

    Trainings wait up to an hour for a worker that died, and continue once the same call has
    restarted it, without the records it held. They end with the dispatcher.

    Args:
        port: Of the dispatcher; the workers have the next ones.
        workers: At least 1; each of them uses all cores.
        host: The name or address by which trainings reach this machine.
        join: Address "host:port" of another dispatcher to run workers for, without one here; or
            None.
        ready: Called with the dispatcher's address once all run.

    Raises:
        InputError: A port is taken, the host is no host name, or no dispatcher answers.
    """
    if workers < 1:
        raise InputError(f"There must be at least 1 worker. Received: {workers}.")
    if not _HOST.fullmatch(host):
        raise InputError(
            f"The host must be the name or address, in brackets for IPv6, by which trainings reach "
            f"this machine. Received: {host!r}."
        )
    servers = tf.data.experimental.service
    ports = range(port + 1, port + 1 + workers)
    for one in ports if join else range(port, port + 1 + workers):
        _check_free(one)
    running: list[object] = []
    if join is None:
        running.append(servers.DispatchServer(servers.DispatcherConfig(port=port)))
    else:
        _connect(join)
    for one in ports:
        config = servers.WorkerConfig(
            join or f"localhost:{port}",
            f"{host}:{one}",
            port=one,
            heartbeat_interval_ms=_HEARTBEAT,
        )
        running.append(servers.WorkerServer(config))
    stop = threading.Event()
    with handled(lambda *_: stop.set()):
        ready(join or f"{host}:{port}")
        stop.wait()


class Waiting(keras.callbacks.Callback):
    """Logs one warning when a training waits long for a service.

    TensorFlow itself is silent, and can't be interrupted, while it tries for an hour to reach a
    worker or dispatcher that is gone. A context manager around the training.

    Args:
        address: "host:port" of the dispatcher.
        seconds: How long a step may take.
    """

    def __init__(self, address: str, seconds: float = _PATIENCE) -> None:
        super().__init__()
        self._address, self._seconds = address, seconds
        self._since: float | None = None
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Waiting":
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watching.join()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._since = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops the clock."""
        self._since = None

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._seconds / 4)):
            since = self._since
            if since is not None and time.monotonic() - since > self._seconds:
                _log.warning(
                    "No step has ended for %.0f s. If a worker of the tf.data service at %s is "
                    "gone, start it again as it was: the training goes on then. If the dispatcher "
                    "is gone, end this training (kill) and start it again with --resume.",
                    self._seconds,
                    self._address,
                )
                return


def check(address: str, seconds: float = SECONDS) -> None:
    """Checks that a service reads data.

    Args:
        address: "host:port" of its dispatcher.
        seconds: How long to wait.

    Raises:
        InputError: It does not within this time.
    """
    _connect(address, seconds)
    answers: list[int] = []

    def read() -> None:
        with contextlib.suppress(tf.errors.OpError):
            one = passes([tf.data.Dataset.range(1).batch(1)], 0, 1, address)
            answers.extend(number.numpy() for (number,), _ in one)

    # TensorFlow itself would try for an hour.
    asking = threading.Thread(target=read, daemon=True)
    asking.start()
    asking.join(seconds)
    if not answers:
        raise InputError(
            f"No tf.data service with a worker answered at {address} within {seconds:.0f} s. "
            f"Start one there: asl-fast data serve."
        )


def passes(
    each: Sequence[tf.data.Dataset], first: int, batch_size: int, address: str
) -> tf.data.Dataset:
    """Returns datasets, one after the other, that a service reads.

    Each element of a dataset's source goes to one worker, so that all come exactly once as long as
    no worker is lost; their order depends on which worker is faster.

    Args:
        each: Datasets of batches, of one structure.
        first: The number of the first.
        batch_size: Of the batches returned; the last one of each dataset may be smaller.
        address: "host:port" of the dispatcher.

    Returns:
        A dataset of (element, number of its dataset).
    """
    service = tf.data.experimental.service
    spec = each[0].element_spec
    # Compressing small images costs more than sending them.
    names = [service.register_dataset(_url(address), one, compression=None) for one in each]
    numbered = tf.data.Dataset.from_tensor_slices(
        (tf.stack(names), tf.range(first, first + len(names), dtype=tf.int64))
    )

    def read(name: tf.Tensor, number: tf.Tensor) -> tf.data.Dataset:
        read = service.from_dataset_id(
            service.ShardingPolicy.DYNAMIC, _url(address), name, element_spec=spec
        )
        return read.rebatch(batch_size).map(lambda *element: (element, number))

    return numbered.flat_map(read)


def _url(address: str) -> str:
    return f"grpc://{address}"


def _connect(address: str, seconds: float = SECONDS) -> None:
    host, _, port = address.rpartition(":")
    if not _HOST.fullmatch(host) or not _PORT.fullmatch(port) or int(port) >= 2**16:
        shown = address if len(address) < 100 else f"{address[:100]}…"
        raise InputError(
            f"A tf.data service's address is HOST:PORT, or [HOST]:PORT for IPv6. Received: "
            f"{shown!r}."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except (OSError, UnicodeError) as error:  # the latter for names that are invalid in the DNS
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"No tf.data service answers at {address} ({reason}). Start one there: asl-fast data "
            "serve."
        ) from None


def _check_free(port: int) -> None:
    if not 0 < port < 2**16:
        raise InputError(f"There is no port {port}. Choose another one with --port.")
    try:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("", port))
    except OSError as error:
        raise InputError(
            f"Can't listen at port {port}: {error.strerror}. Choose another one with --port."
        ) from None
