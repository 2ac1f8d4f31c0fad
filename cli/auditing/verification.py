"""Checking a log against its own chain, its head and seals kept elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from cli.auditing.chain import Walk, genesis
from cli.auditing.database import Connection, read_hashes, read_rows, read_tip
from cli.auditing.finding import Finding, Head, Kind, Renewal
from cli.auditing.log_ids import check, first_id, in_words, terms
from cli.auditing.rows import Row
from cli.auditing.seals import Seal, contradiction


class Verdict(NamedTuple):
    """`head` is what the events and seals were checked against; `finding` is None when all is well; `renewals` are the
    ids given to the log after its first."""

    head: Head | None
    walked: int
    finding: Finding | None
    renewals: Sequence[Renewal] = ()


async def verify(
    connection: Connection,
    seals: Sequence[Seal] = (),
    *,
    log_id: UUID | None = None,
    from_last_seal: bool = False,
    progress: Callable[[int, int], object] = lambda _walked, _total: None,
) -> Verdict:
    """Walk the log as it is now, from the last seal on or all of it.

    `log_id`: the log that this must be. `progress` is told how many of how many events are walked. Raises what asyncpg
    raises.
    """
    tip = await read_tip(connection)
    if len(tip.heads) != 1:
        return Verdict(None, 0, Finding(0, Kind.HEAD, f"log_head has {len(tip.heads)} complete rows instead of one"))
    head = tip.heads[0]
    if (broken := check(head, tip.renewals)) is not None:
        return Verdict(head, 0, broken)
    if log_id not in (None, head.log_id):
        return Verdict(head, 0, _another(log_id, head, tip.renewals))
    hashes = await read_hashes(connection, (seal.position for seal in seals))
    sealed = contradiction(seals, head, tip.renewals, hashes)
    if sealed is not None and sealed.kind is Kind.FOREIGN:
        return Verdict(head, 0, sealed)
    last_seal = max(seals, key=lambda seal: seal.position) if from_last_seal and seals else None
    if sealed is not None or (last_seal is not None and last_seal.position not in hashes):
        last_seal = None  # nothing to walk on from: look at all of it
    start = genesis(first_id(head, tip.renewals)) if last_seal is None else last_seal.start()
    walk = Walk(start)

    def take(rows: Iterable[Row]) -> None:
        if not walk.finished:
            walk.follow(rows)
            progress(walk.walked, head.position - start.position)

    await read_rows(connection, None if last_seal is None else start.position, tip.last, take)
    found = [finding for finding in (walk.conclude(head), sealed) if finding is not None]
    # Of one position, the chain knows better what happened there.
    return Verdict(head, walk.walked, min(found, key=lambda finding: finding.position, default=None), tip.renewals)


def _another(log_id: UUID | None, head: Head, renewals: Sequence[Renewal]) -> Finding:
    term = terms(head, renewals).get(log_id) if log_id is not None else None
    was = "" if term is None or term.ended is None else f", which it was until it became {in_words(term.ended)}"
    return Finding(1, Kind.FOREIGN, f"this log is {head.log_id}, not {log_id}{was}")
