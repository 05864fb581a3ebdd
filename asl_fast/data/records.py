"""Image data sets as TFRecord shards, to be streamed: for more images than memory holds.

A folder of shards holds `index.json`, which describes them. Each record is a `tf.train.Example` of
an `image`, its uint8 pixels row by row, and a `label`, an integer.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from asl_fast.data import service as services
from asl_fast.data import tfrecord
from asl_fast.data.pipeline import shuffled, steps_per_epoch, without_autotuning
from asl_fast.system import storage
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import UNEXPECTED_COUNT, UNPARSED_RECORD, file_error_reason

__all__ = ["INDEX", "Records", "Shard", "damage_in_words", "sha256", "write_index", "write_shard"]

INDEX = "index.json"

_FORMAT = 1
_COMPRESSIONS = ("", "GZIP")
# Shards that are read at the same time, and records of one before the next one's turn.
_INTERLEAVED, _BLOCK = 8, 16
_BUFFER = 1 << 18  # bytes of a shard that are read at a time
_WINDOWS = 1_000_003  # more than an epoch has
_SENT = 1 << 20  # bytes that a tf.data service sends at a time
_OVERHEAD = 1024  # bytes of a record besides its image, at most; it has 40
_LARGEST = 1 << 30  # bytes of an image, at most
_NO_LABEL = -(2**63)  # which no index contains

# TensorFlow's errors contain one of these where records are intact but not as the index says: our
# own text; that of its parser, either of two, as a NUL in the record ends the message; that of
# `assert_cardinality`.
_MISMATCH = "records are not as the index says"
_MISMATCHES = (_MISMATCH, UNEXPECTED_COUNT, *UNPARSED_RECORD)

_log = logging.getLogger(__name__)


class Shard(NamedTuple):
    """A file of records.

    Attributes:
        file: Its name within the folder.
        rows: The number of its records.
        sha256: Of the file.
    """

    file: str
    rows: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Records:
    """A folder of shards, to be streamed.

    Attributes:
        folder: Of the shards and `index.json`.
        shape: Height, width and channels of every image.
        labels: The integers that stand for the classes, in the order of the classes.
        classes: Their names.
        compression: "" or "GZIP".
        shards: In the order of their rows.
        first_rows: In a part of a folder, the number of each shard's first row; otherwise empty.
        service: "host:port" of the tf.data service that reads them for trainings; "" for none.
    """

    folder: Path
    shape: tuple[int, int, int]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    compression: str
    shards: tuple[Shard, ...]
    first_rows: tuple[int, ...] = ()
    service: str = ""

    @classmethod
    def open(cls, folder: str | Path, damaged: str = "stop", service: str = "") -> "Records":
        """Reads the index of a folder.

        Args:
            folder: As `asl-fast data convert` writes it.
            damaged: "stop": a training that meets a damaged record ends with an error that names
                its place. "skip": all shards are checked now; shards that don't match the index
                are copied to the cache without their damaged records, and a warning counts those.
            service: As for `from_service`, or "".

        Raises:
            InputError: The index is missing or damaged, a shard is missing, no record is intact,
                or no service answers.
        """
        folder = Path(folder)
        if damaged not in ("stop", "skip"):
            raise InputError(f"`damaged` must be 'stop' or 'skip'. Received: {damaged!r}.")
        records = _parsed(folder)
        for shard in records.shards:
            if not (folder / shard.file).is_file():
                raise InputError(f"{folder} lacks the shard {shard.file}. Convert the data again.")
        records = records.without_damage() if damaged == "skip" else records
        return records.from_service(service) if service else records

    def from_service(self, address: str) -> "Records":
        """Returns the same records, read for trainings by a tf.data service.

        Each record still comes once a pass, as long as no worker is lost, but in an order that
        depends on which worker is faster. So a training that was stopped resumes at its last whole
        epoch, and no two trainings are the same. Each shard goes to one worker, which reads eight
        at a time. Validation is read without the service.

        Args:
            address: "host:port" of the dispatcher (`asl-fast data serve`). Its workers need the
                shards under the same path, and don't check them first: a shard made to do harm can
                crash a worker.

        Raises:
            InputError: No service with a worker answers within 20 s.
        """
        services.check(address)
        return dataclasses.replace(self, service=address)

    @property
    def rows(self) -> int:
        """The number of records in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def sha256(self) -> str:
        """Of the shape, the labels and the contents of all shards."""
        text = json.dumps([self.shape, self.labels, *(shard.sha256 for shard in self.shards)])
        return hashlib.sha256(text.encode()).hexdigest()

    def renumbered(self, classes: Sequence[str]) -> "Records":
        """Returns the same records with other names' numbers: classes that hold all of theirs.

        Args:
            classes: Names, in the order of their numbers.
        """
        labels = dict(zip(self.classes, self.labels, strict=True))
        unused = (label for label in itertools.count() if label not in self.labels)
        numbered = tuple(labels[name] if name in labels else next(unused) for name in classes)
        return dataclasses.replace(self, labels=numbered, classes=tuple(classes))

    def part(self, number: int, count: int) -> "Records":
        """Returns every `count`-th shard, beginning with shard `number`.

        Raises:
            InputError: There are fewer shards than parts.
        """
        if len(self.shards) < count:
            raise InputError(
                f"{self.folder} has {len(self.shards)} shards, fewer than the {count} workers. "
                "Convert the data to more shards (--shard-rows)."
            )
        first_rows = _first_rows(self.shards)[number::count]
        return dataclasses.replace(self, shards=self.shards[number::count], first_rows=first_rows)

    def stream(
        self, first: int, last: int, batch_size: int, *, seed: int, window: int, skip: int = 0
    ) -> tf.data.Dataset:
        """Returns passes over the records, one after the other, prefetched.

        Args:
            first: The pass to begin with.
            last: The pass to end before.
            batch_size: Of all batches but the last of a pass, which may be smaller.
            seed: As for `epoch`.
            window: As for `epoch`.
            skip: The number of batches to leave out at the beginning.

        Returns:
            A dataset of (rows, images, classes, pass): the rows' numbers, int64 (n,), the results
            of `parse`, and an int64 scalar.
        """

        def parsed(rows: tf.Tensor, serialized: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return (rows, *self.parse(serialized))

        def one(number: tf.Tensor) -> tf.data.Dataset:
            read = self.epoch(number, batch_size, seed=seed, window=window)
            return read.map(lambda rows, serialized: (rows, serialized, number))

        if self.service:
            sent = max(1, _SENT // math.prod(self.shape))
            each = [
                self.epoch(
                    tf.constant(number, tf.int64), sent, seed=seed, window=window, guarded=False
                ).map(parsed, num_parallel_calls=tf.data.AUTOTUNE)
                for number in range(first, last)
            ]
            stream = services.passes(each, first, batch_size, self.service).skip(skip)
            stream = stream.map(lambda batch, number: (*batch, number))
        else:
            stream = tf.data.Dataset.range(first, last).flat_map(one).skip(skip)
            stream = stream.map(
                lambda rows, serialized, number: (*parsed(rows, serialized), number),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        return without_autotuning(stream.prefetch(tf.data.AUTOTUNE))

    def epoch(
        self,
        epoch: tf.Tensor,
        batch_size: int,
        *,
        seed: int = 0,
        window: int = 0,
        guarded: bool = True,
    ) -> tf.data.Dataset:
        """Returns a pass over the records, the same at each call.

        Args:
            epoch: Integer scalar.
            batch_size: Of all batches but the last, which may be smaller.
            seed: In [0, 2**32), of the order.
            window: The number of records that are shuffled at a time, after the shards were
                shuffled and interleaved; 0 keeps the order of all.
            guarded: Whether to check the lengths in each shard, once, before TensorFlow reads it,
                which crashes on a record that claims to be terabytes long. The check is in Python,
                so it runs in this process only.

        Returns:
            A dataset of (rows, records): the rows' numbers, int64 (n,), and serialized (n,).
        """
        folder = self.folder.absolute()  # another process may have another working directory
        count = len(self.shards)
        paths = tf.constant([str(folder / shard.file) for shard in self.shards])
        first_rows = tf.constant(self.first_rows or _first_rows(self.shards), tf.int64)
        rows = tf.constant([shard.rows for shard in self.shards], tf.int64)
        order = tf.range(count, dtype=tf.int64)
        if window:
            order = shuffled(order, count, seed, epoch)
        checked: set[bytes] = set()

        def check(path: bytes, rows: np.ndarray) -> bool:
            if path not in checked and not self._has_rows(Path(os.fsdecode(path)), int(rows)):
                raise ValueError(_MISMATCH)
            checked.add(path)
            return True

        def read(path: tf.Tensor, first_row: tf.Tensor, rows: tf.Tensor) -> tf.data.Dataset:
            if guarded:
                good = tf.numpy_function(check, (path, rows), tf.bool)
                with tf.control_dependencies([good]):
                    path = tf.identity(path)
            stored = tf.data.TFRecordDataset(path, self.compression, _BUFFER)
            # A shard that is cut between two records after the check ends like any other.
            stored = stored.apply(tf.data.experimental.assert_cardinality(rows))
            return tf.data.Dataset.zip(tf.data.Dataset.counter(first_row), stored)

        files = tf.data.Dataset.from_tensor_slices(
            tuple(tf.gather(of_shards, order) for of_shards in (paths, first_rows, rows))
        )
        if not window:
            return files.flat_map(read).batch(batch_size)
        # In blocks, as interleaving single records would cost more than reading them.
        blocks = files.interleave(
            lambda *shard: read(*shard).batch(_BLOCK),
            cycle_length=min(_INTERLEAVED, count),
            num_parallel_calls=min(_INTERLEAVED, count),
            deterministic=True,
        )

        def permuted(
            number: tf.Tensor, records: tuple[tf.Tensor, tf.Tensor]
        ) -> tuple[tf.Tensor, tf.Tensor]:
            rows, serialized = records
            size = tf.shape(rows, tf.int64)[0]
            key = tf.cast(epoch, tf.int64) * _WINDOWS + number
            places = shuffled(tf.range(size), size, seed, key % 2**32)
            return tf.gather(rows, places), tf.gather(serialized, places)

        # The next window is read while one is used.
        return blocks.rebatch(window).enumerate().map(permuted).prefetch(1).rebatch(batch_size)

    def parse(self, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the images, uint8 (n, height, width, channels), and the classes, int32 (n,).

        Args:
            records: Serialized, (n,).
        """
        parsed = tf.io.parse_example(
            records,
            {
                "image": tf.io.FixedLenFeature((), tf.string, ""),
                "label": tf.io.FixedLenFeature((), tf.int64, _NO_LABEL),
            },
        )
        size = math.prod(self.shape)
        hits = parsed["label"][:, None] == tf.constant(self.labels, tf.int64)
        fit = (tf.strings.length(parsed["image"]) == size) & tf.reduce_any(hits, axis=1)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(fit), [_MISMATCH])]):
            pixels = tf.io.decode_raw(parsed["image"], tf.uint8)
        images = tf.reshape(tf.ensure_shape(pixels, (None, size)), (-1, *self.shape))
        return images, tf.cast(tf.argmax(hits, axis=1), tf.int32)

    def batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns all images and classes in their order, as `parse` gives them.

        Args:
            batch_size: Of all batches but the last, which may be smaller.
        """
        rows = self.epoch(tf.constant(0, tf.int64), batch_size)
        parsed = rows.map(lambda _, serialized: self.parse(serialized))
        count = tf.data.experimental.assert_cardinality(steps_per_epoch(self.rows, batch_size))
        return without_autotuning(parsed.apply(count).prefetch(tf.data.AUTOTUNE))

    def damage(self) -> Iterator[str]:
        """Reads all shards and yields, for each damaged one, what is wrong and what to do."""
        for shard in self.shards:
            path = self.folder / shard.file
            if not path.is_file():
                yield f"{path} is not there any more."
            elif problems := self._read_through(shard)[1]:
                yield f"{path}: {problems}. Convert the data again" + (
                    "."
                    if sha256(path) == shard.sha256
                    else ", or leave such records out: "
                    "damaged='skip' of Records.open, --damaged skip of asl-fast train."
                )

    def without_damage(self) -> "Records":
        """Returns the intact records; damaged shards are copied to the cache without the others.

        Raises:
            InputError: No record is intact.
        """
        shards = []
        lost = 0
        for shard in self.shards:
            path = self.folder / shard.file
            digest = sha256(path)
            if digest != shard.sha256:
                good, problems = self._read_through(shard)
                lost += shard.rows - len(good)
                _log.warning("%s: %s", path, problems)
                copy = storage.cache_folder() / "records" / f"{digest}.tfrecord"
                storage.make_folder(copy.parent)
                shard = _write(copy, good, self.compression)._replace(file=str(copy.resolve()))
            shards.append(shard)
        if lost == self.rows:
            raise InputError(f"{self.folder} holds no intact record. Convert the data again.")
        if lost:
            _log.warning(
                "%s: %d of %d records are damaged and are left out.", self.folder, lost, self.rows
            )
        return dataclasses.replace(self, shards=tuple(shards))

    @property
    def _longest(self) -> int:
        return math.prod(self.shape) + _OVERHEAD

    def _has_rows(self, path: Path, rows: int) -> bool:
        return tfrecord.has_records(path, self.compression, rows, self._longest)

    def _read_through(self, shard: Shard) -> tuple[list[bytes], str]:
        """Returns a shard's good records, and in words where the others are, or ""."""
        path = self.folder / shard.file
        records, whole = tfrecord.recover(path, self.compression, self._longest)
        unit = "uncompressed byte" if self.compression else "byte"
        good: list[bytes] = []
        problems: list[str] = []
        for number, (offset, record) in enumerate(records, 1):
            if record is None:
                problems.append(f"record {number} at {unit} {offset} is damaged")
            elif self._fits(record):
                good.append(record)
            else:
                problems.append(
                    f"record {number} at {unit} {offset} holds no image of {self.shape} with a "
                    "label of the index"
                )
        if not problems and len(good) != shard.rows:
            problems = [f"{len(good)} records instead of {shard.rows}"]
        if not problems and not whole:
            problems = ["the bytes after its records are not compressed"]
        return good, "; ".join(problems[:3])

    def _fits(self, record: bytes) -> bool:
        try:
            feature = tf.train.Example.FromString(record).features.feature
            (image,), (label,) = (
                feature["image"].bytes_list.value,
                feature["label"].int64_list.value,
            )
        except (DecodeError, ValueError):  # the latter for none or several
            return False
        return len(image) == math.prod(self.shape) and label in self.labels


@contextlib.contextmanager
def damage_in_words(*given: Any) -> Iterator[None]:
    """Names the damaged record if reading records fails within the block.

    Args:
        *given: The `Records` that are read; other values are ignored.

    Raises:
        InputError: A record is damaged; names the shard and the place in it.
    """
    try:
        yield
    # TensorFlow's parser copies a record's bytes to its message, which may be no text.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        every = [records for records in given if isinstance(records, Records)]
        mismatch = isinstance(error, UnicodeDecodeError) or any(
            text in str(error) for text in _MISMATCHES
        )
        if mismatch or isinstance(error, tf.errors.DataLossError | tf.errors.NotFoundError):
            for records in every:
                for problem in records.damage():
                    raise InputError(problem) from error
        if mismatch and every:  # TensorFlow's parser rejects a little more than Python's
            folders = " or ".join(str(records.folder) for records in every)
            raise InputError(
                f"{folders} holds records that are not images. Convert the data again."
            ) from error
        for records in every:
            if records.service:
                reason = str(getattr(error, "message", error)).splitlines()[0][:200]
                raise InputError(
                    f"The tf.data service at {records.service} failed, or one of its workers can't "
                    f"read {records.folder.absolute()}: {reason} Resume the run from its last "
                    "whole epoch with --resume."
                ) from error
        raise


def write_shard(
    path: Path, images: np.ndarray, labels: Sequence[int] | np.ndarray, compression: str = ""
) -> Shard:
    """Writes a shard; a failure leaves no file.

    Args:
        path: Of the file.
        images: uint8, (n, height, width, channels).
        labels: Integers, (n,).
        compression: "" or "GZIP".

    Raises:
        InputError: The file can't be written.
    """

    def serialized() -> Iterator[bytes]:
        for image, label in zip(images, labels, strict=True):
            feature = {
                "image": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[np.ascontiguousarray(image).tobytes()])
                ),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(label)])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            yield example.SerializeToString(deterministic=True)

    return _write(path, serialized(), compression)


def write_index(
    folder: Path,
    shape: Sequence[int],
    labels: Sequence[int],
    classes: Sequence[str],
    compression: str,
    shards: Sequence[Shard],
    source: Mapping[str, Any],
) -> None:
    """Writes `index.json`, which completes a conversion.

    Args:
        folder: Of the shards.
        shape: Height, width and channels.
        labels: The integers that stand for the classes in the records.
        classes: Their names, in the same order.
        compression: "" or "GZIP".
        shards: In the order of their rows.
        source: Describes what was converted, for people.
    """
    content = {
        "format": _FORMAT,
        "rows": sum(shard.rows for shard in shards),
        "shape": list(shape),
        "labels": [int(label) for label in labels],
        "classes": list(classes),
        "compression": compression,
        "source": dict(source),
        "shards": [shard._asdict() for shard in shards],
    }
    with storage.replacing(folder / INDEX) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")


def _parsed(folder: Path) -> Records:
    path = folder / INDEX
    try:
        content = json.loads(storage.read_text(path))
        if content["format"] != _FORMAT:
            raise InputError(f"{path} has the format {content['format']!r}, not {_FORMAT}.")
        height, width, channels = (int(side) for side in content["shape"])
        shards = tuple(
            Shard(str(shard["file"]), int(shard["rows"]), str(shard["sha256"]))
            for shard in content["shards"]
        )
        records = Records(
            folder,
            (height, width, channels),
            tuple(int(label) for label in content["labels"]),
            tuple(str(name) for name in content["classes"]),
            str(content["compression"]),
            shards,
        )
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{folder} has no {INDEX}: it holds no converted data.") from None
    # The last two: an infinite number, and endlessly nested brackets.
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error!r}). Convert the data again.") from None
    if (
        min(records.shape) < 1
        or math.prod(records.shape) > _LARGEST
        or records.rows >= 2**63
        or any(abs(label) >= 2**63 for label in records.labels)
        or len(records.labels) != len(records.classes)
        or not records.labels
        or records.compression not in _COMPRESSIONS
        or not shards
        or any(shard.rows < 1 or Path(shard.file).name != shard.file for shard in shards)
    ):
        raise InputError(
            f"{path} is not as `asl-fast data convert` writes it. Convert the data again."
        )
    return records


def _write(path: Path, records: Any, compression: str) -> Shard:
    rows = 0
    with storage.replacing(path) as aside:
        try:
            with tf.io.TFRecordWriter(str(aside), compression or None) as writer:
                for record in records:
                    writer.write(record)
                    rows += 1
        except tf.errors.OpError as error:
            raise InputError(f"{path} can't be written: {file_error_reason(error)}.") from None
        digest = sha256(aside)
    return Shard(path.name, rows, digest)


def _first_rows(shards: Sequence[Shard]) -> tuple[int, ...]:
    return tuple(itertools.accumulate((shard.rows for shard in shards[:-1]), initial=0))


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
