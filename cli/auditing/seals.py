"""Seals: signed statements that the log had a certain head. JSON Lines, one seal a line.

What is signed is the text of the line's values, in this form (UTF-8, every line ended by a newline):

    orders-log-seal 1
    log_id=...
    position=...
    hash=...
    recorded_at=...
    sealed_at=...
    key_id=...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cli.auditing.chain import ChainStart
from cli.auditing.errors import CannotAudit
from cli.auditing.finding import Finding, HeadRow, Kind, LogIdChange
from cli.auditing.keys import key_id
from cli.auditing.log_ids import LogIdSpan, describe, log_id_spans
from cli.auditing.times import microseconds, rfc3339

_Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
_Time = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")]
_Signature = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]


class Seal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line. Times are RFC 3339 UTC, bytes are hex; `key_id` is the SHA-256 of the public key."""

    log_id: _Uuid
    position: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    hash: _Hash
    recorded_at: _Time
    sealed_at: _Time
    key_id: _Hash
    signature: _Signature

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        names = ("log_id", "position", "hash", "recorded_at", "sealed_at", "key_id")
        return "".join(["orders-log-seal 1\n", *(f"{name}={getattr(self, name)}\n" for name in names)]).encode()

    def start(self) -> ChainStart:
        """The sealed event."""
        return ChainStart(self.position, bytes.fromhex(self.hash), microseconds(self.recorded_at))

    def line(self) -> bytes:
        """The line of the file."""
        return msgspec.json.encode(self) + b"\n"


def seal_head(head: HeadRow, key: Ed25519PrivateKey) -> Seal:
    """A signed statement that the log has this head now."""
    unsigned = Seal(
        log_id=str(head.log_id),
        position=head.position,
        hash=head.hash.hex(),
        recorded_at=rfc3339(head.recorded_at),
        sealed_at=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        key_id=key_id(key.public_key()),
        signature="",
    )
    return msgspec.structs.replace(unsigned, signature=key.sign(unsigned.signed_bytes()).hex())


def read_seals(path: Path, key: Ed25519PublicKey) -> list[Seal]:
    """Every seal of the file, each with a good signature of `key`. Raises CannotAudit naming the line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CannotAudit(f"{path}: {error.strerror}") from error
    seals = [_read_seal(line, key, f"{path} line {nr}") for nr, line in enumerate(content.splitlines(True), start=1)]
    if not seals:
        raise CannotAudit(f"{path} holds no seal")
    return seals


def _read_seal(line: bytes, key: Ed25519PublicKey, where: str) -> Seal:
    if not line.endswith(b"\n"):
        raise CannotAudit(f"{where}: the line is cut short")
    try:
        seal = msgspec.json.decode(line, type=Seal)
        microseconds(seal.recorded_at)
    except (msgspec.DecodeError, ValueError) as error:
        raise CannotAudit(f"{where}: not a seal: {error}") from error
    if seal.key_id != key_id(key):
        raise CannotAudit(f"{where}: made with the key {seal.key_id}, not with {key_id(key)}")
    try:
        key.verify(bytes.fromhex(seal.signature), seal.signed_bytes())
    except InvalidSignature as error:
        raise CannotAudit(f"{where}: the signature does not fit: this seal was changed or forged") from error
    return seal


def find_contradiction(
    seals: Sequence[Seal], head: HeadRow, changes: Sequence[LogIdChange], hashes: Mapping[int, bytes]
) -> Finding | None:
    """The first place where the log differs from what was sealed. `hashes`: those stored at the sealed positions.

    The chain verifier reports a sealed position that is missing in the log, unless it is beyond the head.
    """
    found = _contradictions(seals, head, log_id_spans(head, changes), hashes)
    return min(found, key=lambda finding: finding.position, default=None)


def _contradictions(
    seals: Sequence[Seal], head: HeadRow, known: Mapping[UUID, LogIdSpan], hashes: Mapping[int, bytes]
) -> Iterator[Finding]:
    agreed = 0
    for nr, seal in sorted(enumerate(seals, start=1), key=lambda numbered: numbered[1].position):
        position, span = seal.position, known.get(UUID(seal.log_id))
        if span is None:
            yield Finding(1, Kind.FOREIGN, f"this log is {head.log_id}, the seal on line {nr} is of {seal.log_id}")
        elif span.ended is not None and position > span.ended.position:
            detail = f"the seal on line {nr} is for position {position}, but the log became {describe(span.ended)}"
            yield Finding(span.ended.position + 1, Kind.CUT_TAIL, detail)
        elif position > head.position:
            detail = f"the seal on line {nr} is for position {position}, the log ends at {head.position}"
            yield Finding(max(head.position, 0) + 1, Kind.CUT_TAIL, detail)
        elif position < span.begun:
            detail = f"the seal on line {nr} has an id for it that log_ids gave only at {span.begun}"
            yield Finding(position, Kind.SEAL, detail)
        elif hashes.get(position, bytes.fromhex(seal.hash)) != bytes.fromhex(seal.hash):
            detail = (
                f"the seal on line {nr} of {seal.sealed_at} has another hash for it: history was rewritten somewhere"
                f" from position {agreed + 1} to {position}"
            )
            yield Finding(position, Kind.SEAL, detail)
        else:
            agreed = position
