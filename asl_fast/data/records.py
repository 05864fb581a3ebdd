"""Image data sets as TFRecord shards: for more images than memory holds.

A folder of shards holds `index.json`, which says what is in them. Each record is a
`tf.train.Example` of an `image`, its uint8 pixels row by row, and a `label`, an integer.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from asl_fast.data import service as services
from asl_fast.data.csv_table import EXPANDED
from asl_fast.data.pipeline import shuffled, steps_per_epoch, without_autotuning
from asl_fast.system import storage
from asl_fast.system.errors import InputError
from asl_fast.system.private_api import UNEXPECTED_COUNT, UNPARSED_RECORD, file_error_reason

__all__ = ["INDEX", "Records", "Shard", "damage_in_words", "write_index", "write_shard"]

INDEX = "index.json"

_FORMAT = 1
_COMPRESSIONS = ("", "GZIP")
# Shards that are read at once, and records of one before the next one's.
_INTERLEAVED, _BLOCK = 8, 16
_BUFFER = 1 << 18  # bytes of a shard that are read at once
_WINDOWS = 1_000_003  # more than an epoch has
_SENT = 1 << 20  # bytes that a tf.data service sends at once
_HEADER, _FOOTER = 12, 4  # bytes before and after a record's data
_LENGTH = struct.Struct("<Q")
_OVERHEAD = 1024  # bytes of a record besides its image, at most; it has 40
_LARGEST = 1 << 30  # bytes of an image, at most
_CHUNK = 1 << 20
_NO_LABEL = -(2**63)  # which no index names

# What TensorFlow's errors hold where records are not as they should be, though whole: what is said
# here, and one of two things if its parser fails, as a NUL in the record ends the message.
_SUSPICION = "records are not as the index says"

_log = logging.getLogger(__name__)


class Shard(NamedTuple):
    """A file of records.

    Attributes:
        file: Str, its name within the folder.
        rows: Int, records.
        sha256: Str, of the file.
    """

    file: str
    rows: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Records:
    """A folder of shards, to be streamed.

    Attributes:
        folder: Path.
        shape: Height, width and channels of every image.
        labels: The integers that stand for the classes, in the classes' order.
        classes: Str each.
        compression: "" or "GZIP".
        shards: In the order of their rows.
        first_rows: Ints, the number of each shard's first row, in a part of a folder; () in all.
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
            damaged: "stop": a damaged record ends the training that meets it, with an error that
                says where it is. "skip": all shards are looked through now; of those that are not
                what the index says whole copies are made in the cache, of the good records alone,
                and a warning counts the others.
            service: As for `from_service`, or "".

        Raises:
            InputError: No index, one that is not whole, a shard that is missing, no record that
                is whole, or no service that answers.
        """
        folder = Path(folder)
        if damaged not in ("stop", "skip"):
            raise InputError(f"`damaged` must be 'stop' or 'skip'. Received: {damaged!r}.")
        records = _parsed(folder)
        for shard in records.shards:
            if not (folder / shard.file).is_file():
                raise InputError(f"{folder} lacks the shard {shard.file}. Convert the data anew.")
        records = records.without_damage() if damaged == "skip" else records
        return records.from_service(service) if service else records

    def from_service(self, address: str) -> "Records":
        """Returns the same, to be read for trainings by a tf.data service (`asl-fast data serve`).

        Each record still comes once in a pass, as long as no worker is lost meanwhile, but in an
        order that depends on which worker is faster. So a training that was stopped goes on from
        its last whole epoch, and no two come out the same. Each shard goes to one worker, and a
        worker has eight at a time. Validation is read without the service.

        Args:
            address: "host:port". The service's workers must have the shards under the same path,
                and don't look through them before: one made to do harm can crash a worker.

        Raises:
            InputError: No service with a worker answers within 20 s.
        """
        services.check(address)
        return dataclasses.replace(self, service=address)

    @property
    def rows(self) -> int:
        """Int, of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def sha256(self) -> str:
        """Of what the shards hold."""
        text = json.dumps([self.shape, self.labels, *(shard.sha256 for shard in self.shards)])
        return hashlib.sha256(text.encode()).hexdigest()

    def part(self, number: int, count: int) -> "Records":
        """Returns one of `count` parts: every so many shards.

        Args:
            number: Int, from 0.
            count: Int, at least 1.

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
            first: Int, the pass to begin with.
            last: Int, the pass to end before.
            batch_size: Int; the last batch of a pass holds what is left.
            seed: As for `epoch`.
            window: As for `epoch`.
            skip: Int, batches to leave out at the beginning.

        Returns:
            A dataset of (rows, images, classes, pass): the rows' numbers, int64 (n,), what `parse`
            gives, and an int64 scalar.
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
            stream = stream.map(lambda found, number: (*found, number))
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
            batch_size: Int; the last batch holds what is left.
            seed: Int in [0, 2**32), of the order.
            window: Int, records that are shuffled at a time, after the shards were shuffled and
                interleaved; 0 leaves all in their order.
            guarded: Bool. Whether each shard is looked through, once, before TensorFlow reads it,
                which crashes where a record says that it is terabytes long. It takes Python, which
                another process does not have.

        Returns:
            A dataset of (rows, records): the rows' numbers, int64 (n,), and serialized (n,).
        """
        count = len(self.shards)
        folder = self.folder.absolute()  # another process may have another working directory
        paths = tf.constant([str(folder / shard.file) for shard in self.shards])
        first_rows = self.first_rows or _first_rows(self.shards)
        order = tf.range(count, dtype=tf.int64)
        if window:
            order = shuffled(order, count, seed, epoch)

        rows = tf.constant([shard.rows for shard in self.shards], tf.int64)
        looked_at: set[bytes] = set()

        def look(path: bytes, rows: np.ndarray) -> bool:
            if path not in looked_at:
                if self._suspicious(Path(os.fsdecode(path)), int(rows)):
                    raise ValueError(_SUSPICION)
                looked_at.add(path)
            return True

        def read(path: tf.Tensor, first_row: tf.Tensor, rows: tf.Tensor) -> tf.data.Dataset:
            if guarded:
                good = tf.numpy_function(look, (path, rows), tf.bool)
                with tf.control_dependencies([good]):
                    path = tf.identity(path)
            stored = tf.data.TFRecordDataset(path, self.compression, _BUFFER)
            # One that was cut between two records, even after it was looked through, ends as any.
            stored = stored.apply(tf.data.experimental.assert_cardinality(rows))
            return tf.data.Dataset.zip(tf.data.Dataset.counter(first_row), stored)

        files = tf.data.Dataset.from_tensor_slices(
            tuple(tf.gather(of, order) for of in (paths, tf.constant(first_rows, tf.int64), rows))
        )
        if not window:
            return files.flat_map(read).batch(batch_size)
        # Blocks come as batches, as single records would cost more than reading them.
        blocks = files.interleave(
            lambda *shard: read(*shard).batch(_BLOCK),
            cycle_length=min(_INTERLEAVED, count),
            num_parallel_calls=min(_INTERLEAVED, count),
            deterministic=True,
        )

        def permuted(
            number: tf.Tensor, found: tuple[tf.Tensor, tf.Tensor]
        ) -> tuple[tf.Tensor, tf.Tensor]:
            rows, serialized = found
            there = tf.shape(rows, tf.int64)[0]
            key = tf.cast(epoch, tf.int64) * _WINDOWS + number
            places = shuffled(tf.range(there), there, seed, key % 2**32)
            return tf.gather(rows, places), tf.gather(serialized, places)

        # While one window is being used up, the next one is read.
        return blocks.rebatch(window).enumerate().map(permuted).prefetch(1).rebatch(batch_size)

    def parse(self, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the images, uint8 (n, height, width, channels), and the classes, int32 (n,).

        Args:
            records: Serialized, (n,).
        """
        found = tf.io.parse_example(
            records,
            {
                "image": tf.io.FixedLenFeature((), tf.string, ""),
                "label": tf.io.FixedLenFeature((), tf.int64, _NO_LABEL),
            },
        )
        size = math.prod(self.shape)
        hits = found["label"][:, None] == tf.constant(self.labels, tf.int64)
        fit = (tf.strings.length(found["image"]) == size) & tf.reduce_any(hits, axis=1)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(fit), [_SUSPICION])]):
            pixels = tf.io.decode_raw(found["image"], tf.uint8)
        images = tf.reshape(tf.ensure_shape(pixels, (None, size)), (-1, *self.shape))
        classes = tf.argmax(hits, axis=1)
        return images, tf.cast(classes, tf.int32)

    def batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns all images and classes in their order, as `parse` gives them.

        Args:
            batch_size: Int; the last batch holds what is left.
        """
        rows = self.epoch(tf.constant(0, tf.int64), batch_size)
        parsed = rows.map(lambda _, serialized: self.parse(serialized))
        count = tf.data.experimental.assert_cardinality(steps_per_epoch(self.rows, batch_size))
        return without_autotuning(parsed.apply(count).prefetch(tf.data.AUTOTUNE))

    def damage(self) -> Iterator[str]:
        """Reads all shards and yields what is wrong with any, and what to do, in words."""
        for shard in self.shards:
            path = self.folder / shard.file
            if not path.is_file():
                yield f"{path} is not there any more."
                continue
            if what := self._read_through(shard)[1]:
                yield f"{path}: {what}. Convert the data anew" + (
                    "."
                    if _sha256(path) == shard.sha256
                    else ", or leave such records out: "
                    "damaged='skip' of Records.open, --damaged skip of asl-fast train."
                )

    def without_damage(self) -> "Records":
        """Returns the good records: whole shards, and copies of the others in the cache.

        Raises:
            InputError: There are none.
        """
        shards = []
        lost = 0
        for shard in self.shards:
            path = self.folder / shard.file
            digest = _sha256(path)
            if digest != shard.sha256:
                good, what = self._read_through(shard)
                lost += shard.rows - len(good)
                _log.warning("%s: %s", path, what)
                copy = storage.cache_folder() / "records" / f"{digest}.tfrecord"
                storage.make_folder(copy.parent)
                shard = _write(copy, good, self.compression)._replace(file=str(copy.resolve()))
            shards.append(shard)
        if lost == self.rows:
            raise InputError(f"{self.folder} holds no whole record. Convert the data anew.")
        if lost:
            _log.warning(
                "%s: %d of %d records are damaged and are left out.", self.folder, lost, self.rows
            )
        return dataclasses.replace(self, shards=tuple(shards))

    @property
    def _longest(self) -> int:
        """Int, bytes that a record can have."""
        return math.prod(self.shape) + _OVERHEAD

    def _suspicious(self, path: Path, rows: int) -> bool:
        """Returns whether a shard has not so many records, or longer ones than it can have."""
        rest = b""
        count = following = 0
        for chunk in _plain_chunks(path, self.compression):
            rest += chunk
            while following + _HEADER <= len(rest):
                (length,) = _LENGTH.unpack_from(rest, following)
                count += 1
                following += _HEADER + length + _FOOTER
                if length > self._longest or count > rows:
                    return True
            gone = min(following, len(rest))
            rest, following = rest[gone:], following - gone
        return bool(rest) or following > 0 or count < rows

    def _read_through(self, shard: Shard) -> tuple[list[bytes], str]:
        """Returns a shard's good records, and in words where the others are, or "".

        Raises:
            InputError: It is compressed, and expands to more than `EXPANDED` bytes.
        """
        content = _plain_content(self.folder / shard.file, self.compression)
        where = "uncompressed byte" if self.compression else "byte"
        good: list[bytes] = []
        wrong: list[str] = []
        offset = 0
        while offset < len(content):
            record, following = _record_at(content, offset, self._longest)
            if record is None:
                wrong.append(f"record {len(good) + len(wrong) + 1} at {where} {offset} is damaged")
            elif not self._fits(record):
                wrong.append(
                    f"record {len(good) + len(wrong) + 1} at {where} {offset} holds no image of "
                    f"{self.shape} with a label of the index's"
                )
            else:
                good.append(record)
            offset = following
        if not wrong and len(good) != shard.rows:
            wrong = [f"{len(good)} records instead of {shard.rows}"]
        if not wrong and not _decompresses(self.folder / shard.file, self.compression):
            wrong = ["what follows its records is not compressed as they are"]
        return good, "; ".join(wrong[:3])

    def _fits(self, record: bytes) -> bool:
        try:
            feature = tf.train.Example.FromString(record).features.feature
            (image,), (label,) = (
                feature["image"].bytes_list.value,
                feature["label"].int64_list.value,
            )
        except (DecodeError, ValueError):  # the latter where there are none, or several
            return False
        return len(image) == math.prod(self.shape) and label in self.labels


@contextlib.contextmanager
def damage_in_words(*given: Any) -> Iterator[None]:
    """Says where the damage is, if reading records fails.

    Args:
        *given: What is read: `Records`; anything else is let be.

    Raises:
        InputError: A damaged record; names shard and place.
    """
    try:
        yield
    # TensorFlow's parser puts a record's bytes into its message, which Python can't always read.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        every = [records for records in given if isinstance(records, Records)]
        unlike = isinstance(error, UnicodeDecodeError) or any(
            sign in str(error) for sign in (_SUSPICION, UNEXPECTED_COUNT, *UNPARSED_RECORD)
        )
        if unlike or isinstance(error, tf.errors.DataLossError | tf.errors.NotFoundError):
            for records in every:
                for what in records.damage():
                    raise InputError(what) from error
        if unlike and every:  # TensorFlow's parser refuses a little more than Python's
            folders = " or ".join(str(records.folder) for records in every)
            raise InputError(
                f"{folders} holds records that are no images. Convert the data anew."
            ) from error
        for records in every:
            if records.service:
                reason = str(getattr(error, "message", error)).splitlines()[0][:200]
                raise InputError(
                    f"The tf.data service at {records.service} failed, or a worker of it can't "
                    f"read {records.folder.absolute()}: {reason} A run goes on with --resume from "
                    "its last whole epoch."
                ) from error
        raise


def write_shard(
    path: Path, images: np.ndarray, labels: Sequence[int] | np.ndarray, compression: str = ""
) -> Shard:
    """Writes a shard, whole or not at all.

    Args:
        path: Of the file.
        images: uint8, (n, height, width, channels).
        labels: Integers, (n,).
        compression: "" or "GZIP".
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
    """Writes `index.json`, the last thing of a conversion.

    Args:
        folder: Of the shards.
        shape: Height, width and channels.
        labels: The integers that stand for the classes in the records.
        classes: Their names, in the same order.
        compression: "" or "GZIP".
        shards: In the order of their rows.
        source: What the records were made of, for people.
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
        content = json.loads(path.read_text(encoding="utf-8"))
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
    # The last two: an infinite number, and brackets within brackets without an end.
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error!r}). Convert the data anew.") from None
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
        raise InputError(f"{path} is not as `asl-fast data convert` writes it. Convert anew.")
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
        digest = _sha256(aside)
    return Shard(path.name, rows, digest)


def _first_rows(shards: Sequence[Shard]) -> tuple[int, ...]:
    return tuple(itertools.accumulate((shard.rows for shard in shards[:-1]), initial=0))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record_at(content: bytes, offset: int, longest: int) -> tuple[bytes | None, int]:
    """Returns the record at an offset, or None for a damaged one, and where the next begins.

    A record is its length in 8 bytes, their checksum in 4, the data and their checksum:
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
    """
    length = _length_at(content, offset, longest)
    if length is None:
        following = offset + 1
        while following < len(content) and _length_at(content, following, longest) is None:
            following += 1
        return None, following
    begin, end = offset + _HEADER, offset + _HEADER + length
    data, checksum = content[begin:end], content[end : end + _FOOTER]
    if len(checksum) < _FOOTER or _masked(data) != int.from_bytes(checksum, "little"):
        return None, end + _FOOTER
    return data, end + _FOOTER


def _length_at(content: bytes, offset: int, longest: int) -> int | None:
    header = content[offset : offset + _HEADER]
    if len(header) < _HEADER or _masked(header[:8]) != int.from_bytes(header[8:], "little"):
        return None
    length = int.from_bytes(header[:8], "little")
    return length if length <= longest else None


def _masked(data: bytes) -> int:
    checksum = google_crc32c.value(data)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _decompresses(path: Path, compression: str) -> bool:
    try:
        for _ in _plain_chunks(path, compression, strict=True):
            pass
    except zlib.error:
        return False
    return True


def _plain_chunks(path: Path, compression: str, *, strict: bool = False) -> Iterator[bytes]:
    """Yields a shard's content, as far as it can be decompressed; no chunk is over `_CHUNK`."""
    stream = zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while content := file.read(_CHUNK):
            if not compression:
                yield content
                continue
            while content:
                try:
                    yield stream.decompress(content, _CHUNK)
                except zlib.error:
                    if strict:
                        raise
                    return
                content = stream.unconsumed_tail
                if stream.eof:  # another may follow
                    content, stream = stream.unused_data, zlib.decompressobj(wbits=31)


def _plain_content(path: Path, compression: str) -> bytes:
    if not compression:
        return path.read_bytes()
    parts, size = [], 0
    for part in _plain_chunks(path, compression):
        parts.append(part)
        size += len(part)
        if size > EXPANDED:
            raise InputError(
                f"{path} is damaged, and expands to more than {EXPANDED >> 20} MiB, too much to "
                "look for what is left. Convert the data anew."
            )
    return b"".join(parts)
