"""Rows of the log as `COPY ... (FORMAT binary)` sends them, which is also the form in which they are hashed.

A row is a field count (int2), then each column as its length (int4, -1 for NULL) and its value. The hash of an event is
SHA-256 over the hash before it and all of that but the count and the last column, so a row is hashed without decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from struct import Struct, error
from typing import NamedTuple

COLUMNS = (
    "position", "stream_id", "version", "event_id", "event_type", "schema_version", "data", "metadata",
    "occurred_at", "recorded_at", "hash",
)  # fmt: skip


class Row(NamedTuple):
    """One event. `body` is what is hashed after the previous hash; `recorded_at` is in µs since 2000-01-01 UTC."""

    position: int
    stream_id: bytes
    version: int
    recorded_at: int
    body: bytes
    hash: bytes

    def digest(self, previous: bytes, position: int | None = None) -> bytes:
        """The hash that this event has after `previous`; `position`: as if it had been recorded there."""
        if position is None:
            return sha256(previous + self.body).digest()
        return sha256(previous + self.body[:4] + (position & _INT8).to_bytes(8) + self.body[12:]).digest()

    def follows(self, previous: bytes, position: int | None = None) -> bool:
        """Whether the stored hash is the one that this event has after `previous`."""
        return self.digest(previous, position) == self.hash


# The columns of a row without NULLs, cut at those of varying length.
_START = Struct(">hiqi").unpack_from  # fields, position, length of stream_id
_MIDDLE = Struct(">iii16xi").unpack_from  # version, event_id, length of event_type
_SCHEMA = Struct(">i4xi").unpack_from  # schema_version, length of data
_LENGTH = Struct(">i").unpack_from
_END = Struct(">i8xiqi32s").unpack_from  # occurred_at, recorded_at, hash
_WIDTHS = (len(COLUMNS), 8, 4, 16, 4, 8, 8, 32)

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8
_TRAILER = b"\xff\xff"
_INT8 = 2**64 - 1  # wraps around: a forged position near the end of the range is merely wrong


class RowDecoder:
    """Decodes one COPY stream, cut anywhere into chunks."""

    def __init__(self) -> None:
        self._rest = b""
        self._header = _HEADER

    def feed(self, chunk: bytes) -> Iterator[Row]:
        """The rows that end in this chunk."""
        buffer = self._rest + chunk
        at = self._header
        if len(buffer) < at:
            self._rest = buffer
            return
        self._header = 0
        while True:
            row, end = _regular_row(buffer, at)
            if row is None:
                # The end of the chunk, or a row that no append wrote.
                end = _row_end(buffer, at)
                if end < 0:
                    self._rest = buffer[at:]
                    return
                row = _odd_row(buffer[at + 2 : end])
            yield row
            at = end


def _regular_row(buffer: bytes, at: int) -> tuple[Row | None, int]:
    """The row at `at` and its end; None unless it is complete and has the widths of the log's columns."""
    try:
        fields, w0, position, n1 = _START(buffer, at)
        middle = at + 18 + n1
        w1, version, w2, n2 = _MIDDLE(buffer, middle)
        schema = middle + 32 + n2
        w3, n3 = _SCHEMA(buffer, schema)
        metadata = schema + 12 + n3
        (n4,) = _LENGTH(buffer, metadata)
        end = metadata + 4 + n4
        w4, w5, recorded_at, w6, digest = _END(buffer, end)
    except error:
        return None, at
    if (fields, w0, w1, w2, w3, w4, w5, w6) != _WIDTHS or (n1 | n2 | n3 | n4) < 0:
        return None, at
    stream_id = buffer[at + 18 : middle]
    return Row(position, stream_id, version, recorded_at, buffer[at + 2 : end + 24], digest), end + 60


def _row_end(buffer: bytes, at: int) -> int:
    """The end of the row at `at`; -1 when it is in the next chunk, or when there is no further row."""
    count = buffer[at : at + 2]
    if len(count) < 2 or count == _TRAILER:
        return -1
    at += 2
    for _ in range(int.from_bytes(count)):
        if at + 4 > len(buffer):
            return -1
        at += 4 + max(0, int.from_bytes(buffer[at : at + 4], signed=True))
    return at if at <= len(buffer) else -1


def split(body: bytes) -> list[bytes | None]:
    """The values of the columns in `body`; None is NULL."""
    values: list[bytes | None] = []
    at = 0
    while at < len(body):
        length = int.from_bytes(body[at : at + 4], signed=True)
        at += 4
        values.append(None if length < 0 else body[at : at + length])
        at += max(0, length)
    return values


def _odd_row(columns: bytes) -> Row:
    """A row with NULLs, or of widths that no append writes. Its hash cannot fit."""
    values = dict(zip(COLUMNS, split(columns), strict=True))
    digest = values["hash"] or b""
    return Row(
        int.from_bytes(values["position"] or b"", signed=True),
        values["stream_id"] or b"",
        int.from_bytes(values["version"] or b"", signed=True),
        int.from_bytes(values["recorded_at"] or b"", signed=True),
        columns[: len(columns) - 4 - len(digest)],
        digest,
    )
