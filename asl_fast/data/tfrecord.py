"""TFRecord files read without TensorFlow, which crashes on some damaged ones.

A record is its length in 8 bytes, their checksum in 4, the data, and their checksum in 4:
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from asl_fast.data.csv_table import EXPANDED
from asl_fast.system.errors import InputError

__all__ = ["has_records", "recover"]

_HEADER, _FOOTER = 12, 4  # bytes before and after a record's data
_LENGTH = struct.Struct("<Q")
_CHUNK = 1 << 20


def has_records(path: Path, compression: str, rows: int, longest: int) -> bool:
    """Returns whether a file holds a number of records, by their lengths; checksums are not read.

    Args:
        path: Of the file.
        compression: "" or "GZIP".
        rows: The number of records expected.
        longest: The number of bytes that no record may exceed.
    """
    rest = b""
    count = following = 0
    try:
        for chunk in _chunks(path, compression):
            rest += chunk
            while following + _HEADER <= len(rest):
                (length,) = _LENGTH.unpack_from(rest, following)
                count += 1
                following += _HEADER + length + _FOOTER
                if length > longest or count > rows:
                    return False
            passed = min(following, len(rest))
            rest, following = rest[passed:], following - passed
    except zlib.error:
        return False
    return not rest and not following and count == rows


def recover(
    path: Path, compression: str, longest: int
) -> tuple[list[tuple[int, bytes | None]], bool]:
    """Returns the intact records of a file that may be damaged.

    Args:
        path: Of the file.
        compression: "" or "GZIP".
        longest: The number of bytes that no record exceeds.

    Returns:
        The offset, uncompressed, and the data of each record, None for a damaged one; and whether
        all of the file could be decompressed.

    Raises:
        InputError: The file is compressed, and expands to more than `EXPANDED` bytes.
    """
    plain = bytearray()
    whole = True
    try:
        for chunk in _chunks(path, compression):
            plain += chunk
            if compression and len(plain) > EXPANDED:
                raise InputError(
                    f"{path} is damaged, and expands to more than {EXPANDED >> 20} MiB, too much "
                    "to search for intact records. Convert the data again."
                )
    except zlib.error:
        whole = False
    content = bytes(plain)
    records: list[tuple[int, bytes | None]] = []
    offset = 0
    while offset < len(content):
        begin = offset
        length = _length_at(content, offset, longest)
        if length is None:
            record = None
            offset += 1
            while offset < len(content) and _length_at(content, offset, longest) is None:
                offset += 1
        else:
            end = offset + _HEADER + length
            data, checksum = content[offset + _HEADER : end], content[end : end + _FOOTER]
            record = data if _checksum(data) == checksum else None
            offset = end + _FOOTER
        records.append((begin, record))
    return records, whole


def _length_at(content: bytes, offset: int, longest: int) -> int | None:
    """Returns the length of the record at an offset, or None if none begins there."""
    header = content[offset : offset + _HEADER]
    if len(header) < _HEADER or _checksum(header[:8]) != header[8:]:
        return None
    (length,) = _LENGTH.unpack_from(header)
    return length if length <= longest else None


def _checksum(data: bytes) -> bytes:
    checksum = google_crc32c.value(data)
    return ((((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def _chunks(path: Path, compression: str) -> Iterator[bytes]:
    """Yields a file's plain content, at most `_CHUNK` bytes at a time.

    Raises:
        zlib.error: The rest can't be decompressed.
    """
    stream = zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while content := file.read(_CHUNK):
            if not compression:
                yield content
                continue
            while content:
                yield stream.decompress(content, _CHUNK)
                content = stream.unconsumed_tail
                if stream.eof:  # another may follow
                    content, stream = stream.unused_data, zlib.decompressobj(wbits=31)
