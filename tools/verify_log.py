#!/usr/bin/env python3
"""Verify an event log from CSV exports, without any of the code that wrote it.

Needs Python 3.11+ and, for seals, the package `cryptography`. The files must come from one transaction, because the
log grows. With psql:

    export PGCLIENTENCODING=UTF8 PGOPTIONS='-c datestyle=ISO -c bytea_output=hex'
    psql "$DATABASE_URL" -v ON_ERROR_STOP=1 \\
        -c "begin isolation level repeatable read read only" \\
        -c "\\copy (select * from events order by position) to 'events.csv' with (format csv, header)" \\
        -c "\\copy (select * from log_head) to 'head.csv' with (format csv, header)" \\
        -c "\\copy (select * from log_ids order by number) to 'ids.csv' with (format csv, header)" \\
        -c "commit"

    python verify_log.py events.csv --head head.csv --ids ids.csv --log-id ID \\
        --seals seals.jsonl --public-key seal.pub.pem

Leave out --ids where there is no table log_ids: the log then has its first id.

The hash of an event is SHA-256 over the hash of the event before it and the event's columns position, stream_id,
version, event_id, event_type, schema_version, data, metadata, occurred_at and recorded_at, each as a 4-byte length and
a value, all numbers big-endian: position 8 bytes, version and schema_version 4, event_id 16, texts UTF-8, times 8
(microseconds since 2000-01-01 UTC). The hash before the first event is SHA-256 over the 16 bytes of the log's first id.

Exit code 0: intact; prints the head. 1: prints the first bad position and what is wrong there. 2: nothing could be
verified. Memory grows with the number of streams, not of events.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
EVENT_COLUMNS = (
    "position", "stream_id", "version", "event_id", "event_type", "schema_version", "data", "metadata",
    "occurred_at", "recorded_at", "hash",
)  # fmt: skip
ID_COLUMNS = ("log_id", "replaces", "position", "given_at", "reason")
HEAD_COLUMNS = ("log_id", "position", "hash", "recorded_at")
SEAL_FIELDS = ("log_id", "position", "hash", "recorded_at", "sealed_at", "key_id", "signature")
MOST_INSERTED = 1_000  # consecutive inserted events with good hashes that are recognised
MOST_REMOVED = 1_000  # consecutive removed events that are recognised when the rest is renumbered


class Bad(Exception):
    """The first bad position of the log."""

    def __init__(self, position: int, kind: str, detail: str) -> None:
        super().__init__(f"position {position}: {kind}: {detail}")
        self.position = position


class Unusable(Exception):
    """An argument or a file that nothing can be verified with."""


class Event(NamedTuple):
    position: int
    stream: str
    version: int
    recorded: int
    tail: bytes  # what is hashed after the position
    hash: bytes

    def hash_after(self, previous: bytes, position: int) -> bytes:
        return hashlib.sha256(previous + _number(position, 8) + self.tail).digest()


class Head(NamedTuple):
    log_id: uuid.UUID
    position: int
    hash: bytes
    recorded: int


class LogIdChange(NamedTuple):
    """The log ended at `position` when `log_id` replaced `replaces`."""

    log_id: uuid.UUID
    replaces: uuid.UUID
    position: int
    given: str
    reason: str

    def __str__(self) -> str:
        # The reason is escaped, so that it cannot fake other lines of the result.
        where = f"{self.log_id} after position {self.position}"
        return f"{where}, given at {self.given} instead of {self.replaces}: {self.reason!r}"


# --- reading -------------------------------------------------------------------------------------------------------


def _number(value: int, size: int) -> bytes:
    return size.to_bytes(4) + (value % (1 << 8 * size)).to_bytes(size)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(4) + encoded


def _time(text: str) -> int:
    """Microseconds since 2000; `text` as PostgreSQL writes it in any time zone, or RFC 3339."""
    if text in ("infinity", "-infinity"):
        return 2**63 - 1 if text == "infinity" else -(2**63)
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return (time - EPOCH) // timedelta(microseconds=1)


def _hex(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise ValueError(f"{text!r} is no bytea in hex")
    return bytes.fromhex(text[2:])


def _records(path: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """(line, the values of the columns) of every record."""
    csv.field_size_limit(2**31 - 1)
    try:
        with open(path, newline="", encoding="utf-8") as file:  # noqa: PTH123 - stands alone
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if missing := [column for column in columns if column not in header]:
                raise Unusable(f"{path}: no column {', '.join(missing)}: export it with a header")
            places = [header.index(column) for column in columns]
            for record in reader:
                if len(record) != len(header):
                    raise Unusable(f"{path} line {reader.line_num}: {len(record)} values instead of {len(header)}")
                yield reader.line_num, [record[place] for place in places]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise Unusable(f"{path}: {error}") from error


def read_events(path: str) -> Iterator[Event]:
    for line, values in _records(path, EVENT_COLUMNS):
        position, stream, version, event_id, event_type, schema, data, metadata, occurred, recorded, digest = values
        try:
            recorded_at = _time(recorded)
            tail = b"".join(
                (
                    _text(stream),
                    _number(int(version), 4),
                    (16).to_bytes(4) + uuid.UUID(event_id).bytes,
                    _text(event_type),
                    _number(int(schema), 4),
                    _text(data),
                    _text(metadata),
                    _number(_time(occurred), 8),
                    _number(recorded_at, 8),
                )
            )
            yield Event(int(position), stream, int(version), recorded_at, tail, _hex(digest))
        except ValueError as error:
            if "" not in values or not position:
                raise Unusable(f"{path} line {line}, position {position}: {error}") from error
            # No append wrote a NULL; with nothing to hash the event fits nowhere.
            yield Event(int(position), stream, 0, 0, b"", _hex(digest) if digest else b"")


def read_head(path: str) -> Head:
    records = list(_records(path, HEAD_COLUMNS))
    if len(records) != 1:
        raise Bad(0, "rewritten head", f"log_head has {len(records)} rows instead of one")
    log_id, position, digest, recorded = records[0][1]
    try:
        return Head(uuid.UUID(log_id), int(position), _hex(digest), _time(recorded))
    except ValueError as error:
        raise Unusable(f"{path}: {error}") from error


def read_ids(path: str) -> list[LogIdChange]:
    changes = []
    for line, (log_id, replaces, position, given, reason) in _records(path, ID_COLUMNS):
        try:
            time = (EPOCH + timedelta(microseconds=_time(given))).isoformat(timespec="microseconds")
            at = time.replace("+00:00", "Z")
            changes.append(LogIdChange(uuid.UUID(log_id), uuid.UUID(replaces), int(position), at, reason))
        except (ValueError, OverflowError) as error:
            raise Unusable(f"{path} line {line}: {error}") from error
    return changes


# --- the ids ------------------------------------------------------------------------------------------------------


def check_ids(head: Head, changes: list[LogIdChange]) -> dict[str, tuple[int, LogIdChange | None]]:
    """The span of every id of the log, the first id first: its begin, and the change that ended it. Raises Bad."""
    known, begun = changes[0].replaces if changes else head.log_id, 0
    spans: dict[str, tuple[int, LogIdChange | None]] = {}
    for nr, change in enumerate(changes, start=1):
        if change.replaces != known:
            raise Bad(0, "rewritten head", f"row {nr} of log_ids replaces {change.replaces}, the id was {known}")
        if change.position < begun:
            raise Bad(0, "rewritten head", f"row {nr} of log_ids is of {change.position}, the one before of {begun}")
        spans[str(known)] = begun, change
        known, begun = change.log_id, change.position
    if known != head.log_id:
        raise Bad(0, "rewritten head", f"it has the id {head.log_id}, log_ids ends with {known}")
    if begun > head.position:
        detail = f"the log ends at {head.position}, log_ids has it at {begun}"
        raise Bad(max(head.position, 0) + 1, "truncated tail", detail)
    return spans | {str(known): (begun, None)}


# --- the chain -----------------------------------------------------------------------------------------------------


def verify_chain(events: Iterator[Event], first_id: uuid.UUID, head: Head, sealed: dict[int, bytes]) -> int:
    """Check the chain from the log's first id to the head; the number of events. Fills in the hashes stored at the keys
    of `sealed`. Raises Bad."""
    recent = [hashlib.sha256(first_id.bytes).digest()]
    last, recorded = 0, -(2**63)
    versions: dict[str, int] = {}
    for event in events:
        if event.position in sealed:
            sealed[event.position] = event.hash
        last += 1
        if event.position != last:
            raise _misnumbered(event, last)
        if event.hash_after(recent[-1], last) != event.hash:
            raise _explain(event, recent, events, head)
        if event.recorded < recorded:
            raise Bad(last, "time going backwards", "recorded before the event it follows")
        known = versions.get(event.stream, 0)
        if event.version != known + 1:
            detail = f"version {event.version} of stream {event.stream} follows version {known}"
            raise Bad(last, "version gap", detail)
        versions[event.stream], recorded = event.version, event.recorded
        recent.append(event.hash)
        if len(recent) > 2 * MOST_INSERTED:
            del recent[:MOST_INSERTED]
    _compare_with_head(last, recent[-1], recorded, head)
    return last


def _misnumbered(event: Event, expected: int) -> Bad:
    if event.position > expected:
        upto = event.position - 1
        detail = f"{expected} to {upto} not in the log" if upto > expected else "not in the log"
        return Bad(expected, "missing position", detail)
    if event.position < 1:
        return Bad(event.position, "inserted event", "the log begins at position 1")
    return Bad(event.position, "duplicate position", "more than one event has it (or the export is not in order)")


def _compare_with_head(last: int, digest: bytes, recorded: int, head: Head) -> None:
    if head.position > last:
        raise Bad(last + 1, "truncated tail", f"the log ends at {last}, its head says at {head.position}")
    if head.position < last:
        raise Bad(
            max(head.position, 0) + 1, "rewritten head", f"it ends the log at {head.position}, events go on to {last}"
        )
    if head.hash != digest or head.recorded != recorded:
        raise Bad(last, "rewritten head", "its hash or time is not that of the last event")


def _explain(suspect: Event, recent: list[bytes], events: Iterator[Event], head: Head) -> Bad:
    """What happened to an event that does not follow from the one before it, concluded from all later events."""
    previous, here = recent[-1], suspect.position
    for count, older in enumerate(recent[-2 : -MOST_INSERTED - 2 : -1], start=1):
        if suspect.hash_after(older, here - count) == suspect.hash:
            return Bad(here - count, "inserted event", f"{count} inserted before the event that was recorded here")
    successor = next(events, None)
    candidate = successor
    while candidate is not None:
        true_hash = candidate.hash_after(previous, here)
        if true_hash in (candidate.hash, suspect.hash):
            return _explain_displaced(suspect, successor, candidate, true_hash)
        candidate = next(events, None)
    return _explain_by_successor(suspect, previous, successor, head)


def _explain_displaced(suspect: Event, successor: Event | None, original: Event, true_hash: bytes) -> Bad:
    here = suspect.position
    was_next = suspect.hash_after(true_hash, here + 1) in (suspect.hash, original.hash)
    others_stayed = (
        successor is not None
        and successor is not original
        and successor.hash_after(true_hash, successor.position) == successor.hash
    )
    moved = f"the event recorded here is now at position {original.position}"
    if was_next or others_stayed:
        return Bad(here, "reordered event", moved)
    return Bad(here, "inserted event", moved)


def _explain_by_successor(suspect: Event, previous: bytes, successor: Event | None, head: Head) -> Bad:
    here = suspect.position
    computed = suspect.hash_after(previous, here)
    if successor is None:
        shift = head.position - here
        kept, made_anew = head.hash == suspect.hash, head.hash == computed
        removed = shift if kept and shift > 0 else 0
    else:
        after = successor.position
        kept = successor.hash_after(suspect.hash, after) == successor.hash
        made_anew = successor.hash_after(computed, after) == successor.hash
        shifts = range(1, 1 if kept or made_anew else MOST_REMOVED + 1)
        removed = next((s for s in shifts if successor.hash_after(suspect.hash, after + s) == successor.hash), 0)
    if removed:
        return Bad(here, "removed event", f"{removed} removed before this one, the rest renumbered")
    if kept:
        return Bad(here, "changed event", "a field is not what was hashed, or what comes before it was replaced")
    if made_anew:
        return Bad(here, "changed hash", "the fields are what was hashed, the stored hash is not")
    return Bad(here, "broken chain", "neither the row nor its hash is what the next event was recorded after")


# --- seals ---------------------------------------------------------------------------------------------------------


def read_seals(path: str, public_key: str) -> list[dict[str, Any]]:
    """The seals of a JSON Lines file, their signatures checked."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        with open(public_key, "rb") as pem, open(path, "rb") as lines:  # noqa: PTH123 - stands alone
            key, content = load_pem_public_key(pem.read()), lines.read()
    except (OSError, ValueError) as error:
        raise Unusable(f"{error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise Unusable(f"{public_key}: not an Ed25519 key")
    fingerprint = hashlib.sha256(key.public_bytes_raw()).hexdigest()
    seals = []
    for nr, line in enumerate(content.splitlines(keepends=True), start=1):
        seal = _parse_seal(line, f"{path} line {nr}")
        if seal["key_id"] != fingerprint:
            raise Unusable(f"{path} line {nr}: made with the key {seal['key_id']}, not with {fingerprint}")
        signed = "orders-log-seal 1\n" + "".join(f"{name}={seal[name]}\n" for name in SEAL_FIELDS[:-1])
        try:
            key.verify(bytes.fromhex(seal["signature"]), signed.encode())
        except (InvalidSignature, ValueError) as error:
            raise Unusable(f"{path} line {nr}: the signature does not fit") from error
        seals.append(seal)
    if not seals:
        raise Unusable(f"{path}: no seal in it")
    return seals


def _parse_seal(line: bytes, where: str) -> dict[str, Any]:
    try:
        seal = json.loads(line)
    except ValueError as error:
        raise Unusable(f"{where}: not JSON: {error}") from error
    if not line.endswith(b"\n") or not isinstance(seal, dict) or set(seal) != set(SEAL_FIELDS):
        raise Unusable(f"{where}: not a whole seal")
    texts = [value for name, value in seal.items() if name != "position"]
    if type(seal["position"]) is not int or not all(
        isinstance(text, str) and re.fullmatch(r"[-0-9a-zA-Z:.]+", text) for text in texts
    ):
        raise Unusable(f"{where}: not a seal")
    return seal


def compare_with_seals(
    seals: list[dict[str, Any]],
    head: Head,
    spans: dict[str, tuple[int, LogIdChange | None]],
    stored: dict[int, bytes],
) -> Iterator[Bad]:
    """The places where the log differs from what was sealed."""
    agreed = 0
    for nr, seal in sorted(enumerate(seals, start=1), key=lambda numbered: int(numbered[1]["position"])):
        position = seal["position"]
        begun, ended = spans[seal["log_id"]]
        if ended is not None and position > ended.position:
            detail = f"the seal on line {nr} is for {position}, but the log became {ended}"
            yield Bad(ended.position + 1, "truncated tail", detail)
        elif position > head.position:
            detail = f"the seal on line {nr} is for {position}, the log ends at {head.position}"
            yield Bad(max(head.position, 0) + 1, "truncated tail", detail)
        elif position < begun:
            detail = f"the seal on line {nr} has an id for it that log_ids gave only at {begun}"
            yield Bad(position, "contradicted seal", detail)
        elif stored[position] not in (b"", bytes.fromhex(seal["hash"])):
            detail = f"not the hash of the seal on line {nr}: rewritten between {agreed + 1} and {position}"
            yield Bad(position, "contradicted seal", detail)
        else:
            agreed = position


# --- the program ---------------------------------------------------------------------------------------------------


def verify(arguments: argparse.Namespace) -> tuple[Head, list[LogIdChange], int]:
    if (arguments.seals is None) != (arguments.public_key is None):
        raise Unusable("--seals and --public-key go together")
    seals = read_seals(arguments.seals, arguments.public_key) if arguments.seals else []
    head = read_head(arguments.head)
    changes = read_ids(arguments.ids) if arguments.ids else []
    spans = check_ids(head, changes)
    if arguments.log_id not in (None, head.log_id):
        _, ended = spans.get(str(arguments.log_id), (0, None))
        was = f", which it was until it became {ended}" if ended else ""
        raise Bad(1, "another log", f"this is {head.log_id}, not {arguments.log_id}{was}")
    for nr, seal in enumerate(seals, start=1):
        if seal["log_id"] not in spans:
            raise Bad(1, "another log", f"this is {head.log_id}, the seal on line {nr} is of {seal['log_id']}")
    stored = {int(seal["position"]): b"" for seal in seals}  # empty: not met
    events = read_events(arguments.events)
    found: list[Bad] = []
    count = 0
    try:
        count = verify_chain(events, uuid.UUID(next(iter(spans))), head, stored)
    except Bad as bad:
        found.append(bad)
    found.extend(compare_with_seals(seals, head, spans, stored))
    if found:
        raise min(found, key=lambda bad: bad.position)
    return head, changes, count


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify an event log from CSV exports; see the head of this file.")
    parser.add_argument("events", help="CSV of the table events, in the order of positions")
    parser.add_argument("--head", required=True, help="CSV of the table log_head, exported in the same transaction")
    parser.add_argument("--ids", help="CSV of the table log_ids, from the same transaction")
    parser.add_argument("--log-id", type=uuid.UUID, help="the log that this must be")
    parser.add_argument("--seals", help="JSON Lines of seals to check against")
    parser.add_argument("--public-key", help="PEM of the key the seals were made with")
    try:
        head, changes, count = verify(parser.parse_args())
    except Bad as bad:
        print(bad)
        return 1
    except Unusable as error:
        print(f"verify_log: {error}", file=sys.stderr)
        return 2
    print(f"log       {head.log_id}")
    print(f"position  {head.position}")
    print(f"hash      {head.hash.hex()}")
    for change in changes:
        print(f"new id    {change}")
    print(f"verified  {count} events")
    return 0


if __name__ == "__main__":
    sys.exit(main())
