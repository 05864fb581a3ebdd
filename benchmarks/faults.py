"""Injects faults at many points and checks that nothing is lost.

    python -m benchmarks.faults [--points 0.1] [FAULT …]

prints a table and what was lost; the exit code is 1 if anything was. At full length that takes an
hour or two. To add a kind of fault, write a function and name it in `FAULTS`.

Trainings run in processes forked from one that has TensorFlow loaded but has not used it. "The same
bits" are those of all weights and of the history.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asl_fast.data import csv_table, dataset
from asl_fast.system import storage
from asl_fast.system.errors import InputError

__all__ = ["FAULTS", "Fault", "full_after"]

# Where a fault was injected, and what went wrong, or None.
Outcomes = Iterator[tuple[str, str | None]]

RANDOM = random.Random(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (300, 28, 28, 1), np.uint8)
LABELS = (np.arange(300) % 24).astype(np.int32)
EPOCHS, BATCH = 3, 50  # six steps an epoch


class Fault(NamedTuple):
    """A way things go wrong.

    Attributes:
        inject: Takes an empty folder and a number of points, yields outcomes.
        points: Int, at full length.
        survived: What must hold, in words.
    """

    inject: Callable[[Path, int], Outcomes]
    points: int
    survived: str


def wrong(**checks: bool) -> str | None:
    """Returns the names of the checks that do not hold, or None."""
    return ", ".join(name for name, holds in checks.items() if not holds).replace("_", " ") or None


# Full disks


@contextlib.contextmanager
def full_after(size: int) -> Iterator[None]:
    """Makes writes fail once a file has `size` bytes, within TensorFlow and HDF5 too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def sizes(largest: int, points: int) -> list[int]:
    """Returns sizes from 0 to just beyond a file's own, with the ends of both."""
    return sorted({0, 1, largest - 1, largest, *np.linspace(0, largest + 1, points, dtype=int)})


def cache_full(folder: Path, points: int) -> Outcomes:
    os.environ["ASL_FAST_CACHE"] = str(folder)
    for size in sizes(IMAGES.nbytes + 128, points):
        with full_after(size):
            entry = storage.save_entry(f"key-{size}", IMAGES, LABELS, {"sha256": "0"})
        cached = storage.load_entry(f"key-{size}", IMAGES.shape[1:], 24)
        yield (
            f"{size} bytes",
            wrong(
                returned=np.array_equal(entry.images, IMAGES),
                whole_or_none=cached is None or np.array_equal(cached.images, IMAGES),
                nothing_left=not list(folder.glob(".*")),
            ),
        )
        shutil.rmtree(folder / f"key-{size}", ignore_errors=True)


def checkpoint_full(folder: Path, points: int) -> Outcomes:
    from asl_fast.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(folder)
    facts: dict[str, Any] = {"step": 0, "steps": 6, "history": {}, "epochs": [], "callbacks": []}
    checkpoints.save({**facts, "epoch": 1}, [IMAGES])
    (first,) = folder.iterdir()
    largest = first.stat().st_size
    for size in sizes(largest, points):
        with full_after(size):
            checkpoints.save({**facts, "epoch": 2}, [IMAGES])
        last = checkpoints.load()
        assert last is not None
        yield (
            f"{size} bytes",
            wrong(
                last_or_one_before=last.facts["epoch"] == (2 if size >= largest else 1),
                values=np.array_equal(last.values[0], IMAGES),
                nothing_left=not list(folder.glob(".*")),
            ),
        )
        for path in folder.iterdir():
            if path != first:
                path.unlink()


def shard_full(folder: Path, points: int) -> Outcomes:
    from asl_fast.data import records

    for compression in ("", "GZIP"):
        path = folder / "a.tfrecord"
        whole = records.write_shard(path, IMAGES, LABELS, compression)
        largest = path.stat().st_size
        for size in sizes(largest, points // 2):
            path.unlink(missing_ok=True)
            message = ""
            try:
                with full_after(size):
                    written = records.write_shard(path, IMAGES, LABELS, compression)
            except InputError as error:
                message = str(error)
            fits = size >= largest
            yield (
                f"{compression or 'plain'}, {size} bytes",
                wrong(
                    named=fits or message == f"{path} can't be written: File too large.",
                    whole_or_none=written == whole if fits else not list(folder.iterdir()),
                ),
            )


# The cache of parsed tables


def cache_killed(folder: Path, points: int) -> Outcomes:
    os.environ["ASL_FAST_CACHE"] = str(folder)
    for point in range(points):
        process = os.fork()
        if process == 0:
            while True:
                storage.save_entry("key", IMAGES, LABELS, {"sha256": "0"})
        moment = RANDOM.uniform(0, 0.02)
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        cached = storage.load_entry("key", IMAGES.shape[1:], 24)
        whole = cached is None or (
            np.array_equal(cached.images, IMAGES) and np.array_equal(cached.labels, LABELS)
        )
        yield f"after {moment * 1000:.1f} ms", wrong(whole_or_none=whole)
        if point % 3 == 0:
            shutil.rmtree(folder / "key", ignore_errors=True)


def cache_damaged(folder: Path, points: int) -> Outcomes:
    """Files are cut, and single bits turned."""
    os.environ["ASL_FAST_CACHE"] = str(folder / "cache")
    path = folder / "train.csv"
    csv_table.write(path, IMAGES[:30], LABELS[:30])
    dataset.load_csv(path)
    (entry,) = (folder / "cache").iterdir()
    for part in sorted(entry.iterdir()):
        content = part.read_bytes()
        for place in sorted({*np.linspace(0, len(content) - 1, points // 4, dtype=int)}):
            turned = (
                content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]
            )
            part.write_bytes(RANDOM.choice([content[:place], turned]))
            images, labels = dataset.load_csv(path)
            yield (
                f"{part.name}, at {place} of {len(content)} bytes",
                wrong(
                    images=np.array_equal(images, IMAGES[:30]),
                    labels=np.array_equal(labels, LABELS[:30]),
                    mended=part.read_bytes() == content,
                ),
            )


def cache_unwritable(folder: Path, points: int) -> Outcomes:
    (folder / "file").touch()
    os.environ["ASL_FAST_CACHE"] = str(folder / "file" / "cache")
    for _ in range(points):
        entry = storage.save_entry("key", IMAGES, LABELS, {})
        yield "a file in its place", wrong(returned=np.array_equal(entry.images, IMAGES))


# Folders that replace others, and processes that lose their parent


def folder_killed(folder: Path, points: int) -> Outcomes:
    """An export that replaces an earlier one is killed anywhere, and given again."""
    path = folder / "model"
    path.mkdir()
    (path / "0").touch()

    def replace(name: str) -> None:
        with storage.replacing_folder(path) as aside:
            (aside / name).touch()

    for point in range(points):
        process = os.fork()
        if process == 0:
            while True:
                replace("1")
        time.sleep(RANDOM.uniform(0, 0.01))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        with contextlib.suppress(ZeroDivisionError), storage.replacing_folder(path):
            1 / 0  # noqa: B018
        kept = [part.name for part in folder.rglob("*")]
        yield f"kill {point}", wrong(old_or_new_alone=kept in (["model", "0"], ["model", "1"]))


def rendering(points: int) -> None:
    from asl_fast.data import synthetic_hands

    synthetic_hands.render(384 * points, split="train", workers=2)


def lives(process: str) -> bool:
    """Returns whether a process runs; one that nobody waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent_killed(folder: Path, points: int) -> Outcomes:
    """A process with workers is killed: none of them lives on."""
    for point in range(points):
        process = begin(rendering, 1000, log=folder / "log")
        time.sleep(RANDOM.uniform(0, 2))
        children = set(Path(f"/proc/{process}/task/{process}/children").read_text().split())
        number = [signal.SIGKILL, signal.SIGTERM][point % 2]
        os.kill(process, number)
        end(process)
        for _ in range(600):
            left = [child for child in children if lives(child)]
            if not left:
                break
            time.sleep(0.1)
        yield f"{number.name}, {len(children)} workers", wrong(none_left=not left)


# Trainings


def train(out: Path, resume: bool = True, tables: Path | None = None) -> None:
    """Trains the course's network with a checkpoint after each step.

    Args:
        out: Folder of the run; a cache of its own lies beside it.
        resume: Whether to continue a stopped run.
        tables: Folder of the CSV files; None takes the one beside `out`.
    """
    from asl_fast.training import precision, run

    os.environ["ASL_FAST_CACHE"] = f"{out}-cache"
    folder = tables or out.parent
    data = dataset.load(train=folder / "train.csv", valid=folder / "valid.csv")
    # Not "auto": each of many caches would get a measurement of its own.
    options: dict[str, Any] = {
        "changes": {"epochs": EPOCHS, "batch_size": BATCH},
        "precision": "mixed_bfloat16" if precision.has_bfloat16() else "float32",
        "steps_per_execution": 1,
        "verbose": 0,
    }
    run.train(data, out, resume=resume, checkpoint_seconds=0, **options)


def write_tables(folder: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> None:
    folder.mkdir(exist_ok=True)
    csv_table.write(folder / "train.csv", images, labels)
    csv_table.write(folder / "valid.csv", IMAGES[:48], LABELS[:48])


def begin(function: Callable[..., None], *arguments: Any, log: Path) -> int:
    """Calls a function in a process of its own: exit code 2 and a line for an `InputError`."""
    process = os.fork()
    if process:
        return process
    code = 1
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        message = ""
        try:
            function(*arguments)
            code = 0
        except InputError as error:
            message, code = f"InputError: {error}\n", 2
        except (KeyboardInterrupt, SystemExit):
            code = 130
        except BaseException:
            message = traceback.format_exc()
        finally:
            # The log is a file, too.
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            file.write(message)
            file.flush()
            os._exit(code)


def end(process: int) -> int:
    """Waits for a process and returns its exit code, below 0 for a signal's."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def ended(function: Callable[..., None], *arguments: Any, log: Path) -> int:
    """Calls a function in a process of its own and returns its exit code."""
    return end(begin(function, *arguments, log=log))


def result(out: Path) -> str:
    """Returns a digest of all weights and of the history, but for the times; "" without."""
    import h5py

    if not (out / "metrics.json").exists():
        return ""
    digest = hashlib.sha256()
    with zipfile.ZipFile(out / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(name.encode() + np.asarray(item).tobytes())

    with h5py.File(content) as file:
        file.visititems(add)
    with (out / "history.csv").open() as file:
        rows = [{**row, "train_seconds": 0} for row in csv.DictReader(file)]
    return hashlib.sha256(digest.digest() + json.dumps(rows).encode()).hexdigest()


class Training(NamedTuple):
    """A training to disturb.

    Attributes:
        out: Folder of the run, empty.
        log: File for what its processes write.
        point: Int, its number.
        share: Float in (0, 1]: 1 for the last one.
        seconds: Float, how long a training takes that nothing disturbs.
        largest: Int, bytes of the largest file that such a training writes.
    """

    out: Path
    log: Path
    point: int
    share: float
    seconds: float
    largest: int

    def checkpoints(self) -> list[Path]:
        return list(self.out.glob("checkpoints/*.checkpoint"))

    def begin(self) -> int:
        """Starts it and waits for its first checkpoint, or its end; returns the process."""
        process = begin(train, self.out, log=self.log)
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while not self.checkpoints() and os.waitid(os.P_PID, process, look) is None:
            time.sleep(0.01)
        return process


def resumed(disturb: Callable[[Training], tuple[str, str | None]]) -> Callable[..., Outcomes]:
    """Returns an injector: disturbs trainings, resumes each and compares it with a whole one."""

    def inject(folder: Path, points: int) -> Outcomes:
        write_tables(folder)
        whole, log = folder / "whole", folder / "log"
        start = time.monotonic()
        assert ended(train, whole, log=log) == 0, log.read_text()
        seconds, expected = time.monotonic() - start, result(whole)
        largest = max(path.stat().st_size for path in whole.rglob("*"))
        for point in range(points):
            out, log = folder / f"{point}", folder / f"{point}.log"
            where, problem = disturb(
                Training(out, log, point, (point + 1) / points, seconds, largest)
            )
            if not problem and not (out / "metrics.json").exists():
                problem = unexpected(ended(train, out, log=log), 0, log=log)
            yield where, problem or wrong(the_same=result(out) == expected)
            for path in folder.glob(f"{point}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return inject


def unexpected(code: int, *allowed: int, log: Path) -> str | None:
    """Returns an exit code with the end of the log, or None if the code is allowed."""
    return None if code in allowed else f"exit code {code}: {log.read_text()[-300:]}"


def stopped(training: Training) -> tuple[str, str | None]:
    """One to three times, mostly after the first checkpoint: most time passes before it."""
    sent = []
    for _ in range(RANDOM.randint(1, 3)):
        if RANDOM.random() < 0.2:
            process = begin(train, training.out, log=training.log)
            time.sleep(RANDOM.uniform(0, training.seconds))
        else:
            process = training.begin()
            time.sleep(RANDOM.uniform(0, training.seconds / 8))
        number = RANDOM.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        os.kill(process, number)
        before = len(training.checkpoints())
        sent.append(f"{number.name} after {before} checkpoints, exit code {end(process)}")
        if (training.out / "metrics.json").exists():
            break  # it had finished
    return "; ".join(sent), None


def disk_full(training: Training) -> tuple[str, str | None]:
    size = int((1.3 * training.largest) ** training.share)

    def limited(out: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        train(out)

    code = ended(limited, training.out, log=training.log)
    return f"{size} bytes, exit code {code}", unexpected(code, 0, 2, log=training.log)


def clock(training: Training) -> tuple[str, str | None]:
    """The clock is set back in the middle of a training, and right when it is resumed."""
    by = [1.0, 3600.0, 86400.0, 3.2e7, 3e9][training.point % 5]

    def late(out: Path, calls: int) -> None:
        right, left = time.time, [calls]
        local = time.localtime

        def wrong_time() -> float:
            left[0] -= 1
            return right() if left[0] > 0 else max(1.0, right() - by)

        time.time = wrong_time
        time.localtime = lambda s=None: local(wrong_time() if s is None else s)
        train(out)

    code = ended(late, training.out, RANDOM.choice([1, 10, 50]), log=training.log)
    # Archives know no year before 1980; a run says so at its end.
    allowed = (0, 2) if by > 1e9 else (0,)
    return f"{by:.0f} s, exit code {code}", unexpected(code, *allowed, log=training.log)


def twice(training: Training) -> tuple[str, str | None]:
    """Another training is started in the same folder."""
    first = begin(train, training.out, log=training.log)
    while not (training.out / "checkpoints" / "settings.json").exists():
        time.sleep(0.01)
    moment = RANDOM.uniform(0, 0.5) * training.seconds
    time.sleep(moment)
    log = training.out.parent / "second.log"
    code = ended(train, training.out, RANDOM.random() < 0.5, log=log)
    message = log.read_text()
    refused = "Another training writes to" in message or "holds a finished run" in message
    return (
        f"after {moment:.1f} s",
        wrong(refused=code == 2 and refused, first_ended=end(first) == 0),
    )


def data_changed(training: Training) -> tuple[str, str | None]:
    """The data change between the end of a training and its resumption."""
    images, labels = IMAGES.copy(), LABELS.copy()
    changed = ["a pixel", "a label", "an image less"][training.point % 3]
    if changed == "a pixel":
        images[7, 3, 3] ^= 1
    elif changed == "a label":
        labels[0] = 5
    else:
        images, labels = images[1:], labels[1:]
    tables = Path(f"{training.out}-tables")
    write_tables(tables, images, labels)
    process = training.begin()
    time.sleep(RANDOM.uniform(0, 0.05) * training.seconds)
    os.kill(process, signal.SIGKILL)
    end(process)
    log = training.out.parent / "changed.log"
    code = ended(train, training.out, True, tables, log=log)
    return changed, wrong(refused=code == 2 and "begun with another" in log.read_text())


def results_unwritable(folder: Path, points: int) -> Outcomes:
    write_tables(folder / "tables")
    (folder / "file").touch()
    for point in range(points):
        place = [folder / "file" / "run", Path("/proc/run"), Path("/sys/run")][point % 3]
        code = ended(train, place, True, folder / "tables", log=folder / "log")
        named = str(place) in (folder / "log").read_text()
        yield str(place), wrong(exit_code_2=code == 2, named=named)


def again(training: Training) -> tuple[str, str | None]:
    """The command that ended a run is given again, as a scheduler does."""
    assert ended(train, training.out, log=training.log) == 0
    if training.point % 2:  # it was killed after its last file
        (training.out / "checkpoints").mkdir()
    before = result(training.out)
    code = ended(train, training.out, log=training.log)
    left = (training.out / "checkpoints").exists()
    return "finished", unexpected(code, 0, log=training.log) or wrong(
        unchanged=result(training.out) == before, cleared=not left
    )


FAULTS = {
    "stopped": Fault(resumed(stopped), 50, "resumed, it ends with the same bits"),
    "disk full, training": Fault(
        resumed(disk_full), 30, "no traceback; resumed with space, it ends with the same bits"
    ),
    "disk full, checkpoint": Fault(checkpoint_full, 300, "the last one, or the one before, whole"),
    "disk full, shard": Fault(shard_full, 300, "whole, or an error with the file's name"),
    "disk full, cache": Fault(cache_full, 300, "the data are there; cached whole or not at all"),
    "killed, cache": Fault(cache_killed, 300, "cached whole or not at all"),
    "damaged, cache": Fault(cache_damaged, 300, "written anew, the same data"),
    "killed, folder replaced": Fault(folder_killed, 100, "the old one or the new one, alone"),
    "parent killed": Fault(parent_killed, 10, "no worker lives on"),
    "finished run again": Fault(resumed(again), 4, "exit code 0, nothing changed"),
    "unwritable, cache": Fault(cache_unwritable, 3, "the data are there"),
    "unwritable, results": Fault(results_unwritable, 3, "exit code 2, the folder is named"),
    "clock set back": Fault(
        resumed(clock), 10, "the same bits; before 1980 once the clock is right"
    ),
    "two in one folder": Fault(resumed(twice), 10, "the second is refused, the first ends"),
    "data changed": Fault(resumed(data_changed), 9, "refused; with the old data, the same bits"),
}


def outcomes_of(name: str, points: int) -> list[tuple[str, str | None]]:
    """Injects a fault in a process of its own and returns the outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        work, log, written = (Path(folder) / kind for kind in ("work", "log", "outcomes"))
        work.mkdir()

        def inject() -> None:
            logging.disable()
            written.write_text(json.dumps(list(FAULTS[name].inject(work, points))))

        if ended(inject, log=log):
            sys.exit(f"{name}:\n{log.read_text()[-3000:]}")
        return [(where, problem) for where, problem in json.loads(written.read_text())]


def main() -> None:
    """Injects all faults, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faults", nargs="*", help=", ".join(FAULTS))
    parser.add_argument("--points", type=float, default=1, help="share of the usual number")
    given = parser.parse_args()
    if unknown := set(given.faults) - set(FAULTS):
        parser.error(f"there is no fault {min(unknown)!r}; there are: {', '.join(FAULTS)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import asl_fast.training.run  # noqa: F401  # loads TensorFlow without using it

    losses = []
    print("| fault | injected | survived | what that means | seconds |")
    print("| --- | --- | --- | --- | --- |")
    for name in given.faults or FAULTS:
        begun = time.monotonic()
        outcomes = outcomes_of(name, max(1, round(FAULTS[name].points * given.points)))
        lost = [f"- {name}, {where}: {problem}" for where, problem in outcomes if problem]
        counts = f"{len(outcomes)} | {len(outcomes) - len(lost)}"
        seconds = time.monotonic() - begun
        print(f"| {name} | {counts} | {FAULTS[name].survived} | {seconds:.0f} |", flush=True)
        losses += lost
    print("\nLost:\n", *(losses or ["Nothing."]), sep="\n")
    sys.exit(1 if losses else 0)


if __name__ == "__main__":
    main()
