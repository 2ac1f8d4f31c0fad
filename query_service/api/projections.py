"""How far the read models are behind the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from query_service.api.dependencies import Queries, queries_of
from query_service.api.models import (
    ForeignLease,
    PartitionReport,
    PoisonEvent,
    ProjectionReport,
    Projections,
    StallStatus,
)
from query_service.log_reader import LogUnavailable
from query_service.projection_status import PartitionStatus, ProjectionStatus
from query_service.read_result import ReadModelUnavailable
from shared.eventstore.blockers import as_json
from shared.eventstore.log import Head, Lag
from shared.eventstore.token import ConsistencyToken
from shared.http.openapi import REFUSED, responses
from shared.identity.access import allowed
from shared.identity.caller import Role
from shared.read_models.keys import Checkpoint, lease_name
from shared.read_models.lag import LagLevel, level_of
from shared.read_models.poison import Poison

BLOCKED_SECONDS = 0.5  # longer than a session takes to show as waiting, see `shared.eventstore.blockers`

router = APIRouter(tags=["projections"])


@dataclass
class StatusUnavailable(ReadModelUnavailable):
    stalls: list[dict[str, Any]] = field(default_factory=list)  # a possible cause


@router.get(
    "/projections",
    summary="Lag of the read models, and sessions that block the log",
    description="Measured from the true end of the log, so the lag of a stuck projector grows. `stalls` names the"
    " sessions in PostgreSQL that sessions of this system wait for, and transactions that have been open for too long."
    " A figure that cannot be measured because of them is null. `foreign_leases` names the sessions that hold a"
    " projector's lease and are no projector's.",
    response_model=Projections,
    responses={
        200: {"description": "Every read model", "headers": {"Consistency-Token": {"schema": {"type": "string"}}}},
        **responses(
            *REFUSED,
            (LogUnavailable(), "PostgreSQL does not answer, so the true end of the log is unknown."),
            (StatusUnavailable("Redis"), "Redis or PostgreSQL does not answer; `stalls` as above."),
        ),
    },
)
@allowed(Role.OPERATOR)
async def get_projections(request: Request) -> Response:
    queries = queries_of(request)
    stalls: list[dict[str, Any]] = []
    measuring = asyncio.create_task(_measure(queries), name="projections")
    try:
        # A session that blocks this very measurement shows as blocking only while the measurement waits.
        await asyncio.wait([measuring], timeout=BLOCKED_SECONDS)
        stalls = [as_json(blocker) for blocker in await queries.log.blockers(queries.long_transaction_seconds)]
        measured = await measuring
    except ReadModelUnavailable as error:
        raise StatusUnavailable(error.server, stalls) from error
    finally:
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)
    holders = await queries.log.foreign_holders(
        [
            lease_name(name, status.generations.live, partition)
            for name, (status, *_) in measured.items()
            for partition in range(len(status.partitions))
        ]
    )
    body = Projections(
        projections=[_report(name, one) for name, one in measured.items()],
        stalls=[StallStatus.model_validate(stall) for stall in stalls],
        foreign_leases=[ForeignLease.model_validate(holder._asdict()) for holder in holders],
    )
    tokens = _lowest([one.status.checkpoint.token for one in measured.values() if one.status.checkpoint is not None])
    headers = {"Consistency-Token": tokens} if tokens else {}
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")


def _lowest(tokens: Iterable[ConsistencyToken]) -> str:
    """Of each feed: every read model has reached it."""
    lowest: dict[UUID, ConsistencyToken] = {}
    for token in sorted(tokens, key=lambda token: token.position):
        lowest.setdefault(token.log_id, token)
    return ", ".join(token.encode() for token in lowest.values())


class _Figures(NamedTuple):
    """None: unknown."""

    checkpoint: int
    events: int | None
    seconds: float | None
    answered: bool = False  # the log was asked for the time, and answered

    @property
    def milliseconds(self) -> int | None:
        return None if self.seconds is None else round(self.seconds * 1_000)

    @property
    def level(self) -> LagLevel | None:
        return None if self.seconds is None else level_of(self.seconds).level

    @property
    def action(self) -> str:
        if self.seconds is None and self.answered:
            return "Check PostgreSQL's clock: it was ahead when the events were recorded, so their age is unknown."
        if self.seconds is None:
            return "Find the session that blocks the log, see stalls: the lag cannot be measured."
        return level_of(self.seconds).action


class _Measured(NamedTuple):
    """One read model; `head` is that of its feed."""

    status: ProjectionStatus
    head: Head | None
    lag_of: Mapping[Checkpoint | None, _Figures]


async def _measure(queries: Queries) -> dict[str, _Measured]:
    """Raises `ReadModelUnavailable`."""
    statuses = {name: await opened.status() for name, opened in queries.read_models.items()}
    measured: dict[str, _Measured] = {}
    for log in queries.feeds.readers.values():
        of_feed = {name: status for name, status in statuses.items() if queries.read_models[name].log is log}
        every = [status.checkpoint for status in of_feed.values()]
        every += [partition.checkpoint for status in of_feed.values() for partition in status.partitions]
        head, lags = await log.lags(_token(checkpoint) for checkpoint in every)
        lag_of = {checkpoint: _lag(checkpoint, head, lags.get(_token(checkpoint))) for checkpoint in every}
        measured |= {name: _Measured(status, head, lag_of) for name, status in of_feed.items()}
    return {name: measured[name] for name in statuses}


def _token(checkpoint: Checkpoint | None) -> ConsistencyToken | None:
    return None if checkpoint is None else checkpoint.token


def _lag(checkpoint: Checkpoint | None, head: Head | None, lag: Lag | None) -> _Figures:
    if lag is not None:
        return _Figures(lag.position, lag.events, lag.seconds, answered=True)
    if head is None:
        return _Figures(0 if checkpoint is None else checkpoint.position, None, None)
    position = 0
    if checkpoint is not None and checkpoint.log_id == head.log_id and checkpoint.position <= head.position:
        position = checkpoint.position
    return _Figures(position, head.position - position, 0.0 if position == head.position else None)


def _report(name: str, measured: _Measured) -> ProjectionReport:
    status, head, lag_of = measured
    checkpoint, heartbeat, generations, parked, _ = status
    lag = lag_of[checkpoint]
    of_another_log = checkpoint is not None and head is not None and checkpoint.log_id != head.log_id
    return ProjectionReport(
        name=name,
        generation=generations.live,
        previous_generation=generations.previous,
        building_generation=generations.building,
        rebuilding=checkpoint is None or of_another_log or checkpoint.rebuilding,
        head=None if head is None else head.position,
        checkpoint=lag.checkpoint,
        position_lag=lag.events,
        time_lag_ms=lag.milliseconds,
        level=lag.level,
        recommended_action=lag.action,
        heartbeat_age_ms=None if heartbeat is None else round(heartbeat.age_seconds * 1_000),
        projector=None if heartbeat is None else heartbeat.worker,
        projector_state=None if heartbeat is None else heartbeat.state,
        stuck_because=None if heartbeat is None or not heartbeat.reason else heartbeat.reason,
        stopped_at=None if heartbeat is None or heartbeat.poison is None else _poison_event(heartbeat.poison),
        parked=parked.streams,
        parked_events=[_poison_event(poison) for poison in parked.first],
        partitions=[
            _partition_report(nr, partition, lag_of[partition.checkpoint])
            for nr, partition in enumerate(status.partitions)
        ],
    )


def _partition_report(number: int, partition: PartitionStatus, lag: _Figures) -> PartitionReport:
    _, heartbeat, parked = partition
    return PartitionReport(
        partition=number,
        checkpoint=lag.checkpoint,
        position_lag=lag.events,
        time_lag_ms=lag.milliseconds,
        level=lag.level,
        heartbeat_age_ms=None if heartbeat is None else round(heartbeat.age_seconds * 1_000),
        projector=None if heartbeat is None else heartbeat.worker,
        projector_state=None if heartbeat is None else heartbeat.state,
        parked=parked.streams,
    )


def _poison_event(poison: Poison) -> PoisonEvent:
    return PoisonEvent(
        document_id=poison.document_id,
        stream_id=poison.stream_id,
        position=poison.position,
        version=poison.version,
        event_type=poison.event_type,
        schema_version=poison.schema_version,
        error=poison.error,
        traceback=poison.traceback,
        failed_at=poison.at,
        waiting=poison.waiting,
    )
