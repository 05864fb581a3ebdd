"""Injects faults at many points, and looks whether anything is lost.

    python -m benchmarks.faults --out benchmarks/results/faults.md [--points 0.1] [FAULT …]

At full length that takes an hour or two. With `--kept FILE` what comes out is added to a file, and
the page shows all that is in it: so faults can be injected in portions.

Each fault is a function that yields what was done and what went wrong, or None. Where a training
is concerned, it ends in a process forked from one that has TensorFlow loaded but not used; "the
same" are the bits of all weights and the history.
"""

import argparse
import contextlib
import csv
import datetime
import hashlib
import io
import json
import logging
import os
import platform
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

from asl_fast.data import dataset
from asl_fast.system import storage
from asl_fast.system.errors import InputError

Outcomes = Iterator[tuple[str, str | None]]

RANDOM = random.Random(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (300, 28, 28, 1), np.uint8)
LABELS = (np.arange(300) % 24).astype(np.int32)
STEPS, EPOCHS = 6, 3


_ABOUT = f"""\
A full disk is a limit on the size of files (`RLIMIT_FSIZE`), which fails a write after any byte,
also within TensorFlow and HDF5. The network is the course's, trained on 300 images of noise:
{EPOCHS} epochs of {STEPS} steps."""


class Fault(NamedTuple):
    """A way things go wrong.

    Attributes:
        inject: From a folder and a number of points to outcomes.
        points: Int, at full length.
        survived: What is asked for, in words.
    """

    inject: Callable[[Path, int], Outcomes]
    points: int
    survived: str


@contextlib.contextmanager
def full_after(size: int) -> Iterator[None]:
    """Lets no file grow beyond so many bytes: writing fails there, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def sizes(largest: int, points: int) -> list[int]:
    """Returns sizes from 0 to beyond the largest file's, the ends of both among them."""
    return sorted({0, 1, largest - 1, largest, *np.linspace(0, largest + 1, points, dtype=int)})


def wrong(**checks: bool) -> str | None:
    """Returns the names of the checks that do not hold."""
    return ", ".join(name for name, holds in checks.items() if not holds).replace("_", " ") or None


# Without TensorFlow


def cache_full(folder: Path, points: int) -> Outcomes:
    """A full disk while parsed data are cached."""
    os.environ["ASL_FAST_CACHE"] = str(folder)
    facts = {"sha256": "0"}
    for size in sizes(IMAGES.nbytes + 128, points):
        with full_after(size):
            entry = storage.save_entry(f"key-{size}", IMAGES, LABELS, facts)
        kept = storage.load_entry(f"key-{size}")
        yield (
            f"{size} bytes",
            wrong(
                returned=np.array_equal(entry.images, IMAGES),
                whole_or_none=kept is None or np.array_equal(kept.images, IMAGES),
                nothing_left=not list(folder.glob(".*")),
            ),
        )
        shutil.rmtree(folder / f"key-{size}", ignore_errors=True)


def cache_killed(folder: Path, points: int) -> Outcomes:
    """SIGKILL while parsed data are cached."""
    os.environ["ASL_FAST_CACHE"] = str(folder)
    for point in range(points):
        process = os.fork()
        if process == 0:
            while True:  # replaces what it has written itself
                storage.save_entry("key", IMAGES, LABELS, {"sha256": "0"})
        moment = RANDOM.uniform(0, 0.02)
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        kept = storage.load_entry("key")
        whole = kept is None or (
            np.array_equal(kept.images, IMAGES) and np.array_equal(kept.labels, LABELS)
        )
        yield f"after {moment * 1000:.1f} ms", wrong(whole_or_none=whole)
        if point % 3 == 0:
            shutil.rmtree(folder / "key", ignore_errors=True)


def cache_cut(folder: Path, points: int) -> Outcomes:
    """A cached file cut short."""
    from asl_fast.data import csv_table as table

    os.environ["ASL_FAST_CACHE"] = str(folder / "cache")
    path = folder / "train.csv"
    table.write(path, IMAGES[:30], LABELS[:30])
    dataset.load_csv(path)
    (entry,) = (folder / "cache").iterdir()
    for part in sorted(entry.iterdir()):
        content = part.read_bytes()
        for length in sorted({*np.linspace(0, len(content) - 1, points // 3, dtype=int)}):
            part.write_bytes(content[:length])
            images, labels = dataset.load_csv(path)
            yield (
                f"{part.name}, {length} of {len(content)} bytes",
                wrong(
                    images=np.array_equal(images, IMAGES[:30]),
                    labels=np.array_equal(labels, LABELS[:30]),
                    mended=part.read_bytes() == content,
                ),
            )


def cache_unwritable(folder: Path, points: int) -> Outcomes:
    """A cache that can't be written to."""
    (folder / "file").touch()
    os.environ["ASL_FAST_CACHE"] = str(folder / "file" / "cache")
    for _ in range(points):
        entry = storage.save_entry("key", IMAGES, LABELS, {})
        yield "a file in its place", wrong(returned=np.array_equal(entry.images, IMAGES))


# With files that TensorFlow and Keras write


def checkpoint_full(folder: Path, points: int) -> Outcomes:
    """A full disk while a checkpoint is written."""
    from asl_fast.training.checkpoint import Checkpoints

    kept = Checkpoints(folder)
    facts: dict[str, Any] = {"step": 0, "steps": 6, "history": {}, "epochs": [], "callbacks": []}
    kept.save({**facts, "epoch": 1}, [IMAGES])
    (first,) = folder.iterdir()
    for size in sizes(first.stat().st_size, points):
        with full_after(size):
            kept.save({**facts, "epoch": 2}, [IMAGES])
        found = kept.load()
        assert found is not None
        yield (
            f"{size} bytes",
            wrong(
                last_or_one_before=found.facts["epoch"] == (2 if size >= len_of(first) else 1),
                values=np.array_equal(found.values[0], IMAGES),
                nothing_left=not list(folder.glob(".*")),
            ),
        )
        for path in folder.iterdir():
            if path != first:
                path.unlink()


def len_of(path: Path) -> int:
    """Returns a file's size, in bytes."""
    return path.stat().st_size


def shard_full(folder: Path, points: int) -> Outcomes:
    """A full disk while a shard is written."""
    from asl_fast.data import records

    for compression in ("", "GZIP"):
        path = folder / "a.tfrecord"
        whole = records.write_shard(path, IMAGES, LABELS, compression)
        largest = len_of(path)
        for size in sizes(largest, points // 2):
            path.unlink(missing_ok=True)
            said = ""
            try:
                with full_after(size):
                    written = records.write_shard(path, IMAGES, LABELS, compression)
            except InputError as error:
                said = str(error)
            fits = size >= largest
            yield (
                f"{compression or 'plain'}, {size} bytes",
                wrong(
                    named=fits or said == f"{path} can't be written: File too large.",
                    whole_or_none=written == whole if fits else not list(folder.iterdir()),
                ),
            )


# Trainings


def data(changed: str | None = None) -> dataset.Dataset:
    """Returns a small data set, or one of which a thing has changed."""
    images, labels = IMAGES.copy(), LABELS.copy()
    if changed == "a pixel":
        images[7, 3, 3] ^= 1
    elif changed == "a label":
        labels[0] = 5
    elif changed == "an image less":
        images, labels = images[1:], labels[1:]

    def split(images: np.ndarray, labels: np.ndarray) -> dataset.Split:
        digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        return dataset.Split(images, labels, "a file", digest, "course")

    return dataset.Dataset("small", split(images, labels), split(images[:48], labels[:48]))


def train(
    out: Path,
    changed: str | None = None,
    resume: bool = True,
    found: dataset.Dataset | None = None,
) -> None:
    """Trains the course's network for three epochs of six steps, a checkpoint after each step."""
    from asl_fast.training import precision, run

    # Not "auto": each of many caches would be given a measurement of its own.
    options: dict[str, Any] = {
        "changes": {"epochs": EPOCHS, "batch_size": 50},
        "precision": "mixed_bfloat16" if precision.has_bfloat16() else "float32",
        "steps_per_execution": 1,
        "verbose": 0,
    }
    run.train(found or data(changed), out, resume=resume, checkpoint_seconds=0, **options)


def begin(function: Callable[..., None], *arguments: Any, log: Path) -> int:
    """Calls a function in a process of its own: exit code 2 and a line for an `InputError`."""
    process = os.fork()
    if process:
        return process
    code = 1
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        said = ""
        try:
            function(*arguments)
            code = 0
        except InputError as error:
            said, code = f"InputError: {error}\n", 2
        except (KeyboardInterrupt, SystemExit):
            code = 130
        except BaseException:
            said = traceback.format_exc()
        finally:
            # The log is a file, too.
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            file.write(said)
            file.flush()
            os._exit(code)


def end(process: int) -> int:
    """Waits for a process and returns its exit code, below 0 for a signal's."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def ended(function: Callable[..., None], *arguments: Any, log: Path) -> int:
    """Calls a function in a process of its own, to its end."""
    return end(begin(function, *arguments, log=log))


def result(out: Path) -> str:
    """Returns a digest of all weights and of the history, but for the times; "" without."""
    import h5py

    if not (out / "metrics.json").exists():
        return ""
    digest = hashlib.sha256()
    with zipfile.ZipFile(out / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))

    def add(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            digest.update(name.encode() + np.asarray(found).tobytes())

    with h5py.File(content) as file:
        file.visititems(add)
    with (out / "history.csv").open() as file:
        rows = [{**row, "train_seconds": 0} for row in csv.DictReader(file)]
    return hashlib.sha256(digest.digest() + json.dumps(rows).encode()).hexdigest()


def reference(folder: Path, function: Callable[..., None] = train) -> tuple[str, float]:
    """Returns the result of a training that nothing happens to, and its seconds."""
    start = time.monotonic()
    code = ended(function, folder / "whole", log=folder / "whole.log")
    assert code == 0, (folder / "whole.log").read_text()
    return result(folder / "whole"), time.monotonic() - start


def to_its_end(
    out: Path, log: Path, whole: str, function: Callable[..., None] = train
) -> str | None:
    """Resumes a training until it ends, and compares."""
    if not (out / "metrics.json").exists():
        code = ended(function, out, log=log)
        if code:
            return f"exit code {code}: {log.read_text()[-300:]}"
    return wrong(the_same=result(out) == whole)


def stopped(folder: Path, points: int) -> Outcomes:
    """A training stopped at random moments by SIGKILL, SIGTERM or SIGINT, and resumed."""
    whole, seconds = reference(folder)
    for point in range(points):
        out, log = folder / f"{point}", folder / f"{point}.log"
        sent = []
        for _ in range(RANDOM.randint(1, 3)):
            process = begin(train, out, log=log)
            number = RANDOM.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            moment = RANDOM.uniform(0.1, 1) * seconds
            time.sleep(moment)
            os.kill(process, number)
            code = end(process)
            sent.append(f"{number.name} after {moment:.1f} s, exit code {code}")
        yield "; ".join(sent), to_its_end(out, log, whole)
        shutil.rmtree(out)


def killed(folder: Path, points: int) -> Outcomes:
    """SIGKILL at a random moment of a training that reads a table, caches it and trains."""
    from asl_fast.data import csv_table as table

    for name, count in (("train", 300), ("valid", 48)):
        table.write(folder / f"{name}.csv", IMAGES[:count], LABELS[:count])

    def from_file(out: Path) -> None:
        os.environ["ASL_FAST_CACHE"] = f"{out}-cache"
        train(out, found=dataset.load(train=folder / "train.csv", valid=folder / "valid.csv"))

    whole, seconds = reference(folder, from_file)
    for point in range(points):
        out, log = folder / f"{point}", folder / f"{point}.log"
        moment = RANDOM.uniform(0, seconds)
        process = begin(from_file, out, log=log)
        if point % 5:  # most of the time goes by before the first step
            begun = time.monotonic()
            while not list(out.glob("checkpoints/*.checkpoint")):
                time.sleep(0.01)
                if time.monotonic() - begun > 10 * seconds:
                    break  # it may have ended
            moment = time.monotonic() - begun + RANDOM.uniform(0, seconds / 8)
            time.sleep(max(0.0, begun + moment - time.monotonic()))
        else:
            time.sleep(moment)
        os.kill(process, signal.SIGKILL)
        end(process)
        left = len(list(out.glob("checkpoints/*.checkpoint")))
        yield (
            f"after {moment:.1f} of {seconds:.1f} s, {left} checkpoints",
            to_its_end(out, log, whole, from_file),
        )
        for path in folder.glob(f"{point}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def run_full(folder: Path, points: int) -> Outcomes:
    """A full disk while a training writes, and space again for the next one."""
    whole, _ = reference(folder)
    largest = max(len_of(path) for path in (folder / "whole").rglob("*"))

    def limited(out: Path, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        train(out)

    for size in sorted({*np.geomspace(1, 1.3 * largest, points, dtype=int)}):
        out, log = folder / f"{size}", folder / f"{size}.log"
        process = begin(limited, out, int(size), log=log)
        code = end(process)
        problem = None if code in (0, 2) else f"exit code {code}: {log.read_text()[-300:]}"
        yield f"{size} bytes, exit code {code}", problem or to_its_end(out, log, whole)
        shutil.rmtree(out)


def read_only(folder: Path, points: int) -> Outcomes:
    """A folder for the results that can't be made."""
    for point in range(points):
        place = [folder / "file" / "run", Path("/proc/run"), Path("/sys/run")][point % 3]
        (folder / "file").touch()
        log = folder / "log"
        code = ended(train, place, log=log)
        said = log.read_text()
        yield str(place), wrong(exit_code_2=code == 2, named=f"{place}" in said)


def clock(folder: Path, points: int) -> Outcomes:
    """The clock set back in the middle of a training, and then resumed with the clock right."""
    whole, _ = reference(folder)

    def late(out: Path, calls: int, by: float) -> None:
        right, left = time.time, [calls]
        local = time.localtime

        def wrong_time() -> float:
            left[0] -= 1
            return right() if left[0] > 0 else max(1.0, right() - by)

        time.time = wrong_time
        time.localtime = lambda s=None: local(wrong_time() if s is None else s)
        train(out)

    for point in range(points):
        by = [1.0, 3600.0, 86400.0, 3.2e7, 3e9][point % 5]
        out, log = folder / f"{point}", folder / f"{point}.log"
        calls = RANDOM.choice([1, 10, 50])
        code = ended(late, out, calls, by, log=log)
        # Archives know no year before 1980: there a run says so at its end.
        allowed = (0, 2) if by > 1e9 else (0,)
        problem = None if code in allowed else f"exit code {code}: {log.read_text()[-300:]}"
        yield f"{by:.0f} s, exit code {code}", problem or to_its_end(out, log, whole)
        shutil.rmtree(out)


def twice(folder: Path, points: int) -> Outcomes:
    """Another training begun in the same folder."""
    whole, seconds = reference(folder)
    for point in range(points):
        out, log = folder / f"{point}", folder / f"{point}.log"
        first = begin(train, out, log=log)
        lock = out / "checkpoints" / "settings.json"
        while not lock.exists():
            time.sleep(0.01)
        moment = RANDOM.uniform(0, 0.5) * seconds
        time.sleep(moment)
        second = ended(train, out, None, RANDOM.random() < 0.5, log=folder / "second.log")
        said = (folder / "second.log").read_text()
        code = end(first)
        refused = "Another training writes to" in said or "holds a finished run" in said
        yield (
            f"after {moment:.1f} s",
            wrong(
                refused=second == 2 and refused,
                first_ended=code == 0,
                the_same=result(out) == whole,
            ),
        )
        shutil.rmtree(out)


def data_changed(folder: Path, points: int) -> Outcomes:
    """Data that changed between the end and the resumption."""
    whole, seconds = reference(folder)
    for point in range(points):
        changed = ["a pixel", "a label", "an image less"][point % 3]
        out, log = folder / f"{point}", folder / f"{point}.log"
        process = begin(train, out, log=log)
        while not list(out.glob("checkpoints/*.checkpoint")):
            time.sleep(0.01)
        time.sleep(RANDOM.uniform(0, 0.05) * seconds)
        os.kill(process, signal.SIGKILL)
        end(process)
        code = ended(train, out, changed, log=folder / "changed.log")
        said = (folder / "changed.log").read_text()
        refused = code == 2 and "begun with another" in said
        yield changed, wrong(refused=refused) or to_its_end(out, log, whole)
        shutil.rmtree(out)


FAULTS = {
    "stopped": Fault(stopped, 20, "resumed, it ends with the same bits as one never stopped"),
    "killed, training": Fault(killed, 50, "resumed, it ends with the same bits"),
    "disk full, training": Fault(
        run_full, 30, "no traceback; with space again it is resumed and ends with the same bits"
    ),
    "disk full, checkpoint": Fault(checkpoint_full, 300, "the last one, or the one before, whole"),
    "disk full, shard": Fault(shard_full, 300, "whole, or an error with the file's name"),
    "disk full, cache": Fault(cache_full, 300, "the data are there; cached whole or not at all"),
    "killed, cache": Fault(cache_killed, 300, "cached whole or not at all"),
    "cut short, cache": Fault(cache_cut, 300, "made anew, the same data"),
    "unwritable, cache": Fault(cache_unwritable, 3, "the data are there"),
    "unwritable, results": Fault(read_only, 3, "exit code 2, the folder is named"),
    "clock set back": Fault(clock, 10, "the same bits; before 1980 after it was set right"),
    "two in one folder": Fault(twice, 10, "the second is refused, the first ends as ever"),
    "data changed": Fault(data_changed, 9, "refused; with the data as before, the same bits"),
}


def tried(name: str, points: int) -> tuple[list[tuple[str, str | None]], float]:
    """Injects a fault in a process of its own; returns the outcomes and the seconds."""
    begin_at = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"

        def inject() -> None:
            logging.disable()
            inner = Path(folder) / "work"
            inner.mkdir()
            outcomes = list(FAULTS[name].inject(inner, points))
            told.write_text(json.dumps(outcomes))

        log = Path(folder) / "log"
        if ended(inject, log=log):
            sys.exit(f"{name}:\n{log.read_text()[-3000:]}")
        return json.loads(told.read_text()), time.monotonic() - begin_at


def main() -> None:
    """Injects all faults, or those named, and writes a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faults", nargs="*", help=", ".join(FAULTS))
    parser.add_argument("--out", type=Path, help="the page")
    parser.add_argument("--points", type=float, default=1, help="times as many as usual")
    parser.add_argument("--kept", type=Path, help="file of all outcomes, to go on with")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import asl_fast.training.run  # noqa: F401  # loads TensorFlow, uses nothing of it

    with tempfile.TemporaryDirectory() as folder:
        kept = arguments.kept or Path(folder) / "kept.jsonl"
        for name in arguments.faults or FAULTS:
            before = len(outcomes_of(kept).get(name, ([], 0.0))[0])
            RANDOM.seed(f"{name} {before}")  # other moments in each portion
            points = max(1, round(FAULTS[name].points * arguments.points))
            outcomes, seconds = tried(name, points)
            with kept.open("a") as file:
                file.write(json.dumps([name, outcomes, seconds]) + "\n")
            print(line(name, outcomes, seconds), flush=True)
        found = outcomes_of(kept)
    losses = [
        f"- {name}, {where}: {problem}"
        for name, (outcomes, _) in found.items()
        for where, problem in outcomes
        if problem
    ]
    print(*losses, sep="\n")
    if arguments.out:
        arguments.out.write_text(page(found, losses))
    sys.exit(1 if losses else 0)


def outcomes_of(kept: Path) -> dict[str, tuple[list[tuple[str, str | None]], float]]:
    """Returns the outcomes and seconds of each fault in a file, in the faults' order."""
    found: dict[str, tuple[list[tuple[str, str | None]], float]] = {}
    for text in kept.read_text().splitlines() if kept.exists() else []:
        name, outcomes, seconds = json.loads(text)
        before, others = found.get(name, ([], 0.0))
        found[name] = [*before, *map(tuple, outcomes)], others + seconds
    return {name: found[name] for name in FAULTS if name in found}


def line(name: str, outcomes: list[tuple[str, str | None]], seconds: float) -> str:
    """Returns a fault's row of the table."""
    whole = sum(problem is None for _, problem in outcomes)
    return f"| {name} | {len(outcomes)} | {whole} | {FAULTS[name].survived} | {seconds:.0f} |"


def page(found: dict[str, tuple[list[tuple[str, str | None]], float]], losses: list[str]) -> str:
    """Returns all that was injected, as Markdown."""
    import keras
    import tensorflow as tf

    about = (
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}"
    )
    lines = ["# Faults injected", "", f"`python -m benchmarks.faults`; {about}.", ""]
    lines += ["| fault | injected | survived | what that means | seconds |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    lines += [line(name, *of) for name, of in found.items()]
    lines += ["", _ABOUT]
    for name, title in (
        ("killed, training", "Killed and resumed"),
        ("stopped", "Stopped and resumed"),
    ):
        if name in found:
            outcomes, _ = found[name]
            lines += ["", f"## {title}", ""]
            lines += [f"{number}. {where}" for number, (where, _) in enumerate(outcomes, 1)]
    return "\n".join([*lines, "", "## Lost", "", *(losses or ["Nothing."]), ""])


if __name__ == "__main__":
    main()
