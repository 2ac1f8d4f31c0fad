"""How far the read models are behind the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from query_service.api.models import PartitionStatus, PoisonEvent, Projections, ProjectionStatus, StallStatus
from query_service.api.requests import refuse_query
from query_service.api.side import QuerySide, query_side
from query_service.reader import ReadModelUnavailable
from query_service.standing import Part, Standing
from shared.eventstore.blockers import as_json
from shared.eventstore.log import Head, Lag
from shared.eventstore.token import ConsistencyToken
from shared.http import problems
from shared.read_models.keys import Checkpoint
from shared.read_models.lag import LagLevel, level_of
from shared.read_models.poison import Poison

PATIENCE_SECONDS = 0.5  # longer than it takes to show as waiting, see `shared.eventstore.blockers`

router = APIRouter(tags=["projections"])


@dataclass
class StandingUnavailable(ReadModelUnavailable):
    stalls: list[dict[str, Any]] = field(default_factory=list)  # perhaps because of them


@router.get(
    "/projections",
    summary="Lag of the read models, and what is in the way",
    description="Measured from the true end of the log, so a projector that is stuck is seen to fall behind. `stalls`"
    " names the sessions in PostgreSQL that ours wait for, and transactions that have been open for too long. What"
    " cannot be measured because of them is null.",
    response_model=Projections,
    responses={
        200: {"description": "Every read model", "headers": {"Consistency-Token": {"schema": {"type": "string"}}}},
        **problems.responses(
            (422, "invalid-request", "There are no parameters."),
            (503, "log-unavailable", "PostgreSQL does not answer, so the true end of the log is unknown."),
            (503, "read-model-unavailable", "Redis or PostgreSQL does not answer; `stalls` as above."),
        ),
    },
)
async def get_projections(request: Request) -> Response:
    refuse_query(request)
    side = query_side(request)
    stalls: list[dict[str, Any]] = []
    asking = asyncio.create_task(_ask(side), name="projections")
    try:
        # Who is in the way of these very questions shows while they wait.
        await asyncio.wait([asking], timeout=PATIENCE_SECONDS)
        stalls = [as_json(stall) for stall in await side.log.stalls(side.long_transaction_seconds)]
        standings, head, lag_of = await asking
    except ReadModelUnavailable as error:
        raise StandingUnavailable(error.server, stalls) from error
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    body = Projections(
        projections=[_status(name, standing, head, lag_of) for name, standing in standings.items()],
        stalls=[StallStatus.model_validate(stall) for stall in stalls],
    )
    tokens = [standing.checkpoint.token for standing in standings.values() if standing.checkpoint is not None]
    # What all of them show, so that nobody waits for the slowest who does not read it.
    headers = {"Consistency-Token": min(tokens, key=lambda token: token.position).encode()} if tokens else {}
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")


class _Figures(NamedTuple):
    """As far as they are known."""

    checkpoint: int
    events: int | None
    seconds: float | None

    @property
    def milliseconds(self) -> int | None:
        return None if self.seconds is None else round(self.seconds * 1_000)

    @property
    def level(self) -> LagLevel | None:
        return None if self.seconds is None else level_of(self.seconds).level

    @property
    def action(self) -> str:
        if self.seconds is None:
            return "Look at who is in the way: the lag cannot be measured."
        return level_of(self.seconds).action


class _Answers(NamedTuple):
    standings: dict[str, Standing]
    head: Head | None
    lag_of: dict[Checkpoint | None, _Figures]


async def _ask(side: QuerySide) -> _Answers:
    """Raises `ReadModelUnavailable`."""
    standings = {name: await ask() for name, ask in side.standings.items()}
    every = [standing.checkpoint for standing in standings.values()]
    every += [part.checkpoint for standing in standings.values() for part in standing.partitions]
    head, lags = await side.log.standing(_token(checkpoint) for checkpoint in every)
    lag_of = {checkpoint: _lag(checkpoint, head, lags.get(_token(checkpoint))) for checkpoint in every}
    return _Answers(standings, head, lag_of)


def _token(checkpoint: Checkpoint | None) -> ConsistencyToken | None:
    return None if checkpoint is None else checkpoint.token


def _lag(checkpoint: Checkpoint | None, head: Head | None, lag: Lag | None) -> _Figures:
    if lag is not None:
        return _Figures(lag.position, lag.events, lag.seconds)
    if head is None:
        return _Figures(0 if checkpoint is None else checkpoint.position, None, None)
    position = 0
    if checkpoint is not None and checkpoint.log_id == head.log_id and checkpoint.position <= head.position:
        position = checkpoint.position
    return _Figures(position, head.position - position, 0.0 if position == head.position else None)


def _status(
    name: str, standing: Standing, head: Head | None, lag_of: Mapping[Checkpoint | None, _Figures]
) -> ProjectionStatus:
    checkpoint, heartbeat, generations, parked, _ = standing
    lag = lag_of[checkpoint]
    of_another_log = checkpoint is not None and head is not None and checkpoint.log_id != head.log_id
    return ProjectionStatus(
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
        stopped_at=None if heartbeat is None or heartbeat.poison is None else _shown(heartbeat.poison),
        parked=parked.streams,
        parked_events=[_shown(poison) for poison in parked.first],
        partitions=[
            _partition_status(nr, part, lag_of[part.checkpoint]) for nr, part in enumerate(standing.partitions)
        ],
    )


def _partition_status(number: int, part: Part, lag: _Figures) -> PartitionStatus:
    _, heartbeat, parked = part
    return PartitionStatus(
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


def _shown(poison: Poison) -> PoisonEvent:
    return PoisonEvent(
        order_id=poison.document_id,
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
