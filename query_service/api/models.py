"""Answers about the log and the read models, as OpenAPI shows them."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import msgspec
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.aggregates.aggregate import Aggregate
from shared.read_models.lag import LagLevel


def event_example(aggregate: Aggregate[Any, Any]) -> dict[str, Any]:
    """The first event of an aggregate, as a document."""
    event_type = aggregate.events[0] if aggregate.example is None else type(aggregate.example)
    command_id = "01977f6e-5c39-7b02-8c11-55a1f0d3b9aa"
    return {
        "version": 1,
        "position": 1_234,
        "event_id": "01977f6e-5c3a-7d21-9f0b-2f6f0c1f7a55",
        "event_type": event_type.__name__,
        "schema_version": aggregate.versions.get(event_type, 1),
        "occurred_at": "2010-12-01T08:26:00Z",
        "recorded_at": "2026-01-31T14:30:00.123456Z",
        "data": {} if aggregate.example is None else msgspec.json.decode(msgspec.json.encode(aggregate.example)),
        "metadata": {
            "command_id": command_id,
            "correlation_id": "01977f6e-5c38-7f6a-a5b4-0d9d4b7c1e21",
            "causation_id": command_id,
        },
        "hash": "9a0f0c4f2d0b7d5b9d0c2d6a3f6b1e8f7a5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e",
    }


_POISON_EXAMPLE: dict[str, Any] = {
    "document_id": "536365",
    "stream_id": "order-536365",
    "position": 1_200,
    "version": 3,
    "event_type": "OrderShipped",
    "schema_version": 1,
    "error": "ValueError: no such carrier",
    "traceback": "Traceback (most recent call last):\n  ...\nValueError: no such carrier\n",
    "failed_at": "2026-01-31T14:30:00.123456Z",
    "waiting": 2,
}


class EventDocument(BaseModel):
    version: int = Field(description="1, 2, 3 … within the stream")
    position: int = Field(description="1, 2, 3 … within the log")
    event_id: UUID
    event_type: str
    schema_version: int = Field(description="of the shape of `data`, which is as stored, not upcast")
    occurred_at: AwareDatetime = Field(description="business time of the event")
    recorded_at: AwareDatetime = Field(description="when the log recorded it; never decreases with `position`")
    data: dict[str, Any] = Field(description="the JSON that was stored and hashed, verbatim")
    metadata: dict[str, Any] = Field(description="command, correlation and causation, verbatim")
    hash: str = Field(description="SHA-256 over the hash before it and every stored field, in hexadecimal")


class PoisonEvent(BaseModel):
    """An event that the projector could not apply to a document."""

    document_id: str
    stream_id: str
    position: int = Field(description="of the event in the log")
    version: int = Field(description="of the stream, by this event")
    event_type: str
    schema_version: int
    error: str
    traceback: str = Field(description="at most 8 KB; without variables")
    failed_at: AwareDatetime = Field(description="when it was last tried")
    waiting: int = Field(description="number of later events of the stream, which wait for it")


class PartitionReport(BaseModel):
    """The figures of one partition."""

    partition: int
    checkpoint: int
    position_lag: int | None
    time_lag_ms: int | None
    level: LagLevel | None
    heartbeat_age_ms: int | None
    projector: str | None
    projector_state: str | None
    parked: int


class ProjectionReport(BaseModel):
    """The figures are those of the slowest partition. A figure is null while a session in `stalls` keeps it from being
    measured; those of time also while the events that it does not show have a time in the future."""

    name: str
    generation: int = Field(description="live generation, which answers queries")
    previous_generation: int | None = Field(description="kept for a rollback")
    building_generation: int | None = Field(description="being built beside the live one")
    rebuilding: bool = Field(description="queries are refused until it has caught up")
    head: int | None = Field(description="position of the log's last event")
    checkpoint: int = Field(description="position of the last event that the read model shows")
    position_lag: int | None = Field(description="events between head and checkpoint")
    time_lag_ms: int | None = Field(
        description="age of the oldest event that the read model does not show; 0 when it shows all"
    )
    level: LagLevel | None = Field(
        description="normal up to 200 ms, warning up to 2 s, critical up to 30 s, emergency beyond"
    )
    recommended_action: str
    heartbeat_age_ms: int | None = Field(description="age of the projector's last heartbeat; null when there was none")
    projector: str | None = Field(description="host and process of the active projector")
    projector_state: str | None
    stuck_because: str | None = Field(description="why the projector is stuck, when it is")
    stopped_at: PoisonEvent | None = Field(description="the event that the projector is stuck before; it skips none")
    parked: int = Field(description="documents that end before an event that could not be applied")
    parked_events: list[PoisonEvent] = Field(description="the first 10 of those events, by position")
    partitions: list[PartitionReport] = Field(description="of the live generation, in order")


class StallStatus(BaseModel):
    kind: Literal["blocked", "long-transaction", "notify-queue"] = Field(
        description="`blocked`: a session of this system waits for it; `long-transaction`: open for longer than"
        " `LONG_TRANSACTION_SECONDS`; `notify-queue`: one of the oldest transactions while PostgreSQL's queue of"
        " notifications is half full, in any database"
    )
    blocked_pid: int | None = Field(description="the session that waits")
    blocked_application: str | None
    waited_ms: int | None
    pid: int = Field(description="the blocking session, the first of the queue; 0: a prepared transaction")
    application: str | None = Field(description="its application_name")
    state: str | None = Field(description="its state in pg_stat_activity; null without the right to see it")
    transaction_age_ms: int | None = Field(description="age of its transaction; null without the right to see it")


class ForeignLease(BaseModel):
    """A session that holds the lease of a partition and is no projector's: nothing projects the partition meanwhile."""

    lease: str
    pid: int
    user: str
    application: str = Field(description="its application_name")
    client: str | None = Field(description="its address, or `local`; null without the right to see it")
    since: AwareDatetime | None = Field(description="when it connected; null without the right to see it")


class Projections(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "projections": [
                    {
                        "name": "orders",
                        "generation": 2,
                        "previous_generation": 1,
                        "building_generation": None,
                        "rebuilding": False,
                        "head": 1_234,
                        "checkpoint": 1_230,
                        "position_lag": 4,
                        "time_lag_ms": 7,
                        "level": "normal",
                        "recommended_action": "None.",
                        "heartbeat_age_ms": 412,
                        "projector": "host-1:4711",
                        "projector_state": "active",
                        "stuck_because": None,
                        "stopped_at": None,
                        "parked": 1,
                        "parked_events": [_POISON_EXAMPLE],
                        "partitions": [
                            {
                                "partition": 0,
                                "checkpoint": 1_230,
                                "position_lag": 4,
                                "time_lag_ms": 7,
                                "level": "normal",
                                "heartbeat_age_ms": 412,
                                "projector": "host-1:4711",
                                "projector_state": "active",
                                "parked": 1,
                            }
                        ],
                    }
                ],
                "stalls": [
                    {
                        "kind": "blocked",
                        "blocked_pid": 4_321,
                        "blocked_application": "orders-appender",
                        "waited_ms": 1_204,
                        "pid": 4_242,
                        "application": "psql",
                        "state": "idle in transaction",
                        "transaction_age_ms": 61_530,
                    }
                ],
                "foreign_leases": [
                    {
                        "lease": "projector of {orders.0}:",
                        "pid": 4_343,
                        "user": "orders_auditor",
                        "application": "psql",
                        "client": "10.0.0.7",
                        "since": "2026-01-04T12:00:00Z",
                    }
                ],
            }
        }
    )
    projections: list[ProjectionReport]
    stalls: list[StallStatus] = Field(description="sessions in PostgreSQL that block the log; mostly none")
    foreign_leases: list[ForeignLease] = Field(
        description="sessions in PostgreSQL that hold a projector's lease and are no projector's; mostly none"
    )
