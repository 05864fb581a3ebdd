"""The input side on other machines: TensorFlow's tf.data service.

A dispatcher hands out the parts of a data set to workers, which read and send them to trainings.
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

__all__ = ["SECONDS", "Waiting", "check", "passes", "serve"]

# How long a training waits for an answer before it says that there is none.
SECONDS = 20.0

_PATIENCE = 60.0  # seconds without a step, after which a training says what it may be waiting for

_HOST = re.compile(r"[^\s\x00-\x1f\[\]/:]+|\[[0-9A-Fa-f:.]+\]")
_PORT = re.compile(r"[0-9]{1,5}")

_HEARTBEAT = 1000  # milliseconds; with TensorFlow's 30 s, work goes on for as long after its end

_log = logging.getLogger(__name__)


def serve(
    port: int,
    workers: int,
    host: str,
    join: str | None,
    ready: Callable[[str], object],
) -> None:
    """Runs a dispatcher and workers in this process until Ctrl-C.

    They have no locks: whoever reaches their ports can have them compute any TensorFlow graph,
    which may read and write files.

    Trainings wait for a worker that died, an hour at most, and go on once the same call has started
    it again, without what it had at hand. The dispatcher's end is that of its trainings.

    Args:
        port: Int, of the dispatcher; the workers have the next ones.
        workers: Int, at least 1; each of them uses all cores.
        host: Under which trainings reach this machine.
        join: Address "host:port" of another dispatcher that the workers are for, and then there
            is none here; or None.
        ready: Called with the dispatcher's address once all run.

    Raises:
        InputError: A port is taken, a host that can be none, or no dispatcher answers.
    """
    if workers < 1:
        raise InputError(f"There must be at least 1 worker. Received: {workers}.")
    if not _HOST.fullmatch(host):
        raise InputError(
            f"The host must be the name or address, in brackets if of IPv6, under which trainings "
            f"reach this machine. Received: {host!r}."
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
    with contextlib.suppress(KeyboardInterrupt):
        ready(join or f"{host}:{port}")
        threading.Event().wait()


class Waiting(keras.callbacks.Callback):
    """Says once, in a log's warning, that a training waits long for a service.

    TensorFlow itself is silent, and can't be interrupted, while it tries for an hour to reach a
    worker or dispatcher that is gone. A context manager, to be entered while it trains.

    Args:
        address: "host:port" of the dispatcher.
        seconds: Float, how long a step may take.
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
        """Begins to wait."""
        self._since = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Waits no longer."""
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
    """Sees whether a service does its work.

    Args:
        address: "host:port" of its dispatcher.
        seconds: Float, how long to wait.

    Raises:
        InputError: It does not within this time.
    """
    _connect(address, seconds)
    found: list[int] = []

    def read() -> None:
        with contextlib.suppress(tf.errors.OpError):
            one = passes([tf.data.Dataset.range(1).batch(1)], 0, 1, address)
            found.extend(number.numpy() for (number,), _ in one)

    # TensorFlow itself would try for an hour.
    asking = threading.Thread(target=read, daemon=True)
    asking.start()
    asking.join(seconds)
    if not found:
        raise InputError(
            f"No tf.data service with a worker answered at {address} within {seconds:.0f} s. "
            f"Start one there: asl-fast data serve."
        )


def passes(
    each: Sequence[tf.data.Dataset], first: int, batch_size: int, address: str
) -> tf.data.Dataset:
    """Returns data sets that a service reads, one after the other.

    Each element of a data set's source goes to one worker, so that all come exactly once as long
    as no worker is lost; in which order depends on which worker is faster.

    Args:
        each: Of the same structure, in batches.
        first: Int, the first one's number.
        batch_size: Int, of the batches returned; the last one of each holds what is left.
        address: "host:port" of the dispatcher.

    Returns:
        A dataset of (an element, its data set's number).
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
            f"A tf.data service's address is HOST:PORT, that of IPv6 [HOST]:PORT. Received: "
            f"{shown!r}."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except (OSError, UnicodeError) as error:  # the latter for names that the DNS can't have
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
