"""Keeps XLA's compiled programs from one process to the next.

TensorFlow reads and writes such programs where a flag tells it to, but fails on a damaged one and
knows nothing of other processes. So each process has a folder of its own, which begins with links
to the entries whose digests hold, and what it adds is checked in when the process ends.
"""

import atexit
import contextlib
import hashlib
import logging
import os
import platform
import shutil
import socket
import tempfile
import time
from importlib import metadata
from pathlib import Path

from asl_fast.system.storage import cache_folder

__all__ = ["SWITCH", "enable", "folder", "reason_off", "size"]

_log = logging.getLogger(__name__)

SWITCH = "ASL_FAST_COMPILE_CACHE"  # "off" in the environment turns the cache off
_FLAG = "--tf_xla_persistent_cache_directory"
_LARGEST = 512 << 20  # bytes of all entries; the oldest go first
_ROOM = 256 << 20  # bytes that the disk must have left: TensorFlow fails where it can't write
_DAY = 24 * 60 * 60.0  # seconds
_DIGEST = 64  # hexadecimal digits of SHA-256, after the last dot of an entry's name


def folder() -> Path:
    """Returns where entries for this machine and these versions lie.

    A home folder may be shared by unlike machines, so the name holds what machine code depends on.
    """
    machine = [platform.machine(), *_processor(), *_gpus()]
    digest = hashlib.sha256("\n".join(machine).encode()).hexdigest()[:16]
    return cache_folder() / "xla" / f"tensorflow-{metadata.version('tensorflow')}-{digest}"


def reason_off() -> str | None:
    """Returns why programs are not kept, or None if they are."""
    if os.environ.get(SWITCH, "").lower() in ("off", "0", "false", "no"):
        return f"{SWITCH} is off"
    if _FLAG in _foreign_flags():
        return "TF_XLA_FLAGS names a folder of its own"
    try:
        place = folder()
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(place, os.W_OK | os.X_OK):
            return f"{place} can't be written to"
        if shutil.disk_usage(place).free < _ROOM:
            return f"the disk of {place} has less than {_ROOM >> 20} MiB left"
    except (OSError, metadata.PackageNotFoundError) as error:
        return f"the folder can't be made: {error}"
    return None


def enable() -> bool:
    """Lets TensorFlow keep XLA's programs; returns whether it does.

    It has an effect only before TensorFlow runs its first operation in the process. A second call
    does nothing.
    """
    if f"-{os.getpid()}-" in os.environ.get("TF_XLA_FLAGS", "") or reason_off() is not None:
        return False
    shared = folder()
    try:
        _remove_stale(shared)
        own = Path(tempfile.mkdtemp(prefix=f".{socket.gethostname()}-{os.getpid()}-", dir=shared))
        known = {name for entry in _entries(shared) if (name := _link(entry, own))}
    except OSError as error:
        _log.info("Compiled programs are not kept in %s: %s.", shared, error.strerror)
        return False
    os.environ["TF_XLA_FLAGS"] = f"{_foreign_flags()} {_FLAG}={own}".strip()
    atexit.register(_check_in, own, shared, known, os.getpid())
    return True


def size() -> int:
    """Returns the bytes of all entries for this machine."""
    try:
        return sum(entry.stat().st_size for entry in _entries(folder()))
    except (OSError, metadata.PackageNotFoundError):
        return 0


def _foreign_flags() -> str:
    """Returns TF_XLA_FLAGS without what a parent process set here."""
    flags = os.environ.get("TF_XLA_FLAGS", "").split()
    ours = f"{_FLAG}={cache_folder()}"
    return " ".join(flag for flag in flags if not flag.startswith(ours))


def _entries(shared: Path) -> list[Path]:
    return [path for path in shared.iterdir() if len(path.suffix) == _DIGEST + 1]


def _link(entry: Path, own: Path) -> str | None:
    """Puts an entry into a process's folder, or removes it where its digest does not hold."""
    with contextlib.suppress(OSError):  # another process may remove it meanwhile
        if hashlib.sha256(entry.read_bytes()).hexdigest() == entry.suffix[1:]:
            os.utime(entry)  # in use, and so not among the oldest
            try:
                os.link(entry, own / entry.stem)
            except OSError:  # a file system without links
                shutil.copyfile(entry, own / entry.stem)
            return entry.stem
        entry.unlink()
    return None


def _check_in(own: Path, shared: Path, known: set[str], process: int) -> None:
    """Moves a process's new programs to the others, and clears up; never raises."""
    if os.getpid() != process:  # a fork of it
        return
    with contextlib.suppress(OSError):
        for path in own.iterdir():
            if path.name not in known and path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                path.replace(shared / f"{path.name}.{digest}")
    shutil.rmtree(own, ignore_errors=True)
    with contextlib.suppress(OSError):
        _shrink(shared)


def _shrink(shared: Path) -> None:
    newest = sorted(_entries(shared), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for entry in newest:
        total += entry.stat().st_size
        if total > _LARGEST:
            entry.unlink(missing_ok=True)


def _remove_stale(shared: Path) -> None:
    """Removes the folders of processes that were killed."""
    for path in shared.glob(".*"):
        if path.is_dir() and path.stat().st_mtime < time.time() - _DAY:
            shutil.rmtree(path, ignore_errors=True)


def _processor() -> list[str]:
    """Returns what Linux says of the processor; elsewhere its name alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.processor()]
    wanted = ("model name", "flags", "Features", "CPU part")
    return sorted({line for line in lines if line.startswith(wanted)})


def _gpus() -> list[str]:
    """Returns driver and models of NVIDIA's GPUs, as their driver says without being started."""
    driver = Path("/proc/driver/nvidia")
    found = []
    for path in [driver / "version", *sorted(driver.glob("gpus/*/information"))]:
        with contextlib.suppress(OSError):
            lines = path.read_text().splitlines()
            found += [line for line in lines if line.startswith(("NVRM", "Model"))]
    return found
