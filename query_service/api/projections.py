"""How far the read models are behind the log."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from query_service.api.models import PartitionStatus, PoisonEvent, Projections, ProjectionStatus, StallStatus
from query_service.api.requests import refuse_query
from query_service.api.side import QuerySide, query_side
from query_service.standing import Part, Standing
from shared import problems
from shared.lag import level_of
from shared.poison import Poison
from shared.stalls import told

router = APIRouter(tags=["projections"])


@router.get(
    "/projections",
    summary="Lag of the read models, and what is in the way",
    description="Measured from the true end of the log, so a projector that is stuck is seen to fall behind. `stalls`"
    " names the sessions in PostgreSQL that ours wait for, and transactions that have been open for too long.",
    response_model=Projections,
    responses={
        200: {"description": "Every read model", "headers": {"Consistency-Token": {"schema": {"type": "string"}}}},
        **problems.responses(
            (422, "invalid-request", "There are no parameters."),
            (503, "log-unavailable", "PostgreSQL does not answer, so the true end of the log is unknown."),
            (503, "read-model-unavailable", "Redis or PostgreSQL does not answer."),
        ),
    },
)
async def get_projections(request: Request) -> Response:
    refuse_query(request)
    side = query_side(request)
    log_id = (await side.log.head()).log_id
    asked = {name: await ask() for name, ask in side.standings.items()}
    stalls = await side.log.stalls(side.long_transaction_seconds)
    body = Projections(
        projections=[await _status(side, name, log_id, standing) for name, standing in asked.items()],
        stalls=[StallStatus.model_validate(told(stall)) for stall in stalls],
    )
    tokens = [standing.checkpoint.token for standing in asked.values() if standing.checkpoint is not None]
    # What all of them show, so that nobody waits for the slowest who does not read it.
    headers = {"Consistency-Token": min(tokens, key=lambda token: token.position).encode()} if tokens else {}
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")


async def _status(side: QuerySide, name: str, log_id: UUID, standing: Standing) -> ProjectionStatus:
    checkpoint, heartbeat, generations, parked, _ = standing
    lag = await side.log.lag(None if checkpoint is None else checkpoint.token)
    level, _, action = level_of(lag.seconds)
    return ProjectionStatus(
        name=name,
        generation=generations.live,
        previous_generation=generations.previous,
        building_generation=generations.building,
        rebuilding=checkpoint is None or checkpoint.log_id != log_id or checkpoint.rebuilding,
        head=lag.head,
        checkpoint=lag.position,
        position_lag=lag.events,
        time_lag_ms=round(lag.seconds * 1_000),
        level=level,
        recommended_action=action,
        heartbeat_age_ms=None if heartbeat is None else round(heartbeat.age_seconds * 1_000),
        projector=None if heartbeat is None else heartbeat.worker,
        projector_state=None if heartbeat is None else heartbeat.state,
        stuck_because=None if heartbeat is None or not heartbeat.reason else heartbeat.reason,
        stopped_at=None if heartbeat is None or heartbeat.poison is None else _shown(heartbeat.poison),
        parked=parked.streams,
        parked_events=[_shown(poison) for poison in parked.first],
        partitions=[await _partition_status(side, nr, part) for nr, part in enumerate(standing.partitions)],
    )


async def _partition_status(side: QuerySide, number: int, part: Part) -> PartitionStatus:
    checkpoint, heartbeat, parked = part
    lag = await side.log.lag(None if checkpoint is None else checkpoint.token)
    return PartitionStatus(
        partition=number,
        checkpoint=lag.position,
        position_lag=lag.events,
        time_lag_ms=round(lag.seconds * 1_000),
        level=level_of(lag.seconds).level,
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
