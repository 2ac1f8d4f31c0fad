"""How far the read models are behind the log."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from query_service.api.models import LagLevel, Projections, ProjectionStatus
from query_service.api.requests import refuse_query
from query_service.api.side import QuerySide, query_side
from query_service.standing import Standing
from shared import problems

router = APIRouter(tags=["projections"])

# Lag of at most so many milliseconds -> how bad that is and what to do.
_LEVELS = (
    (200, LagLevel.NORMAL, "None."),
    (2_000, LagLevel.WARNING, "Look at the projector: its log, its load and that of Redis."),
    (30_000, LagLevel.CRITICAL, "Page someone; find what the projector waits for or add projector workers."),
    (None, LagLevel.EMERGENCY, 'Show orders as "being processed" and throttle commands until it has caught up.'),
)


@router.get(
    "/projections",
    summary="Lag of the read models",
    description="Measured from the true end of the log, so a projector that is stuck is seen to fall behind.",
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
    body = Projections(projections=[await _status(side, name, log_id, standing) for name, standing in asked.items()])
    tokens = [standing.checkpoint.token for standing in asked.values() if standing.checkpoint is not None]
    # What all of them show, so that nobody waits for the slowest who does not read it.
    headers = {"Consistency-Token": min(tokens, key=lambda token: token.position).encode()} if tokens else {}
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")


async def _status(side: QuerySide, name: str, log_id: UUID, standing: Standing) -> ProjectionStatus:
    checkpoint, heartbeat, generations = standing
    known = checkpoint is not None and checkpoint.log_id == log_id
    position = checkpoint.position if checkpoint is not None and known else 0
    head, lag_seconds = await side.log.lag(position)
    level, action = level_of(lag_seconds * 1_000)
    return ProjectionStatus(
        name=name,
        generation=generations.live,
        previous_generation=generations.previous,
        building_generation=generations.building,
        rebuilding=checkpoint is None or not known or checkpoint.rebuilding,
        head=head,
        checkpoint=position,
        position_lag=max(0, head - position),
        time_lag_ms=round(lag_seconds * 1_000),
        level=level,
        recommended_action=action,
        heartbeat_age_ms=None if heartbeat is None else round(heartbeat.age_seconds * 1_000),
        projector=None if heartbeat is None else heartbeat.worker,
        projector_state=None if heartbeat is None else heartbeat.state,
    )


def level_of(lag_ms: float) -> tuple[LagLevel, str]:
    """How bad a lag is, and what to do about it."""
    return next((level, action) for most, level, action in _LEVELS if most is None or lag_ms <= most)
