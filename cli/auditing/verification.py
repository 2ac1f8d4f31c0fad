"""Verifies a log against its own chain, its head, and seals kept elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from cli.auditing.chain import ChainVerifier, genesis
from cli.auditing.database import Connection, read_hashes, read_log_head, read_rows
from cli.auditing.finding import Finding, HeadRow, Kind, LogIdChange
from cli.auditing.log_ids import check_log_ids, describe, first_id, log_id_spans
from cli.auditing.rows import Row
from cli.auditing.seals import Seal, find_contradiction


class AuditResult(NamedTuple):
    """`head` is what events and seals were checked against; None when log_head is broken. `finding` is None for an
    intact log."""

    head: HeadRow | None
    verified: int
    finding: Finding | None
    id_changes: Sequence[LogIdChange] = ()


async def verify(
    connection: Connection,
    seals: Sequence[Seal] = (),
    *,
    log_id: UUID | None = None,
    from_last_seal: bool = False,
    progress: Callable[[int, int], object] = lambda _verified, _total: None,
) -> AuditResult:
    """Verify all of the log as it is now, or the part after the last seal.

    `log_id`: the log that this must be. `progress` is called with the number of events verified and their total. Raises
    what asyncpg raises.
    """
    log_head = await read_log_head(connection)
    if len(log_head.rows) != 1:
        return AuditResult(
            None, 0, Finding(0, Kind.HEAD, f"log_head has {len(log_head.rows)} complete rows instead of one")
        )
    head, changes = log_head.rows[0], log_head.id_changes
    if (broken := check_log_ids(head, changes)) is not None:
        return AuditResult(head, 0, broken)
    if log_id not in (None, head.log_id):
        return AuditResult(head, 0, _another(log_id, head, changes))
    hashes = await read_hashes(connection, (seal.position for seal in seals))
    sealed = find_contradiction(seals, head, changes, hashes)
    if sealed is not None and sealed.kind is Kind.FOREIGN:
        return AuditResult(head, 0, sealed)
    last_seal = max(seals, key=lambda seal: seal.position) if from_last_seal and seals else None
    if sealed is not None or (last_seal is not None and last_seal.position not in hashes):
        last_seal = None  # its event cannot be trusted: verify all of the log
    start = genesis(first_id(head, changes)) if last_seal is None else last_seal.start()
    chain = ChainVerifier(start)

    def take(rows: Iterable[Row]) -> None:
        if not chain.finished:
            chain.add(rows)
            progress(chain.verified, head.position - start.position)

    await read_rows(connection, None if last_seal is None else start.position, log_head.last, take)
    found = [finding for finding in (chain.result(head), sealed) if finding is not None]
    # For one position the chain's finding, which comes first, is more precise.
    return AuditResult(head, chain.verified, min(found, key=lambda finding: finding.position, default=None), changes)


def _another(log_id: UUID | None, head: HeadRow, changes: Sequence[LogIdChange]) -> Finding:
    span = log_id_spans(head, changes).get(log_id) if log_id is not None else None
    was = "" if span is None or span.ended is None else f", which it was until it became {describe(span.ended)}"
    return Finding(1, Kind.FOREIGN, f"this log is {head.log_id}, not {log_id}{was}")
