"""The answers as OpenAPI shows them. They are documentation: what is served are bytes that the projector rendered."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.aggregates.order import OrderStatus
from shared.read_models.lag import LagLevel

_SUMMARY_EXAMPLE: dict[str, Any] = {
    "order_id": "536365",
    "customer_id": "17850",
    "status": "PENDING",
    "currency": "GBP",
    "total_amount": 3_564,
    "item_count": 2,
    "placed_at": "2010-12-01T08:26:00Z",
    "last_event_at": "2010-12-01T08:26:00Z",
    "version": 1,
}
_ORDER_EXAMPLE: dict[str, Any] = {
    "order_id": "536365",
    "customer_id": "17850",
    "status": "PENDING",
    "currency": "GBP",
    "total_amount": 3_564,
    "item_count": 2,
    "items": [
        {
            "product_id": "85123A",
            "product_name": "WHITE HANGING HEART T-LIGHT HOLDER",
            "quantity": 6,
            "unit_price": 255,
            "line_total": 1_530,
        },
        {"product_id": "71053", "product_name": None, "quantity": 6, "unit_price": 339, "line_total": 2_034},
    ],
    "shipping_address_id": "united-kingdom",
    "tracking_number": None,
    "placed_at": "2010-12-01T08:26:00Z",
    "last_event_at": "2010-12-01T08:26:00Z",
    "version": 1,
}

HISTORY_EXAMPLE: dict[str, Any] = {
    "order_id": "536365",
    "events": [
        {
            "version": 1,
            "position": 1_234,
            "event_id": "01977f6e-5c3a-7d21-9f0b-2f6f0c1f7a55",
            "event_type": "OrderPlaced",
            "schema_version": 2,
            "occurred_at": "2010-12-01T08:26:00Z",
            "recorded_at": "2026-01-31T14:30:00.123456Z",
            "data": {
                "customer_id": "17850",
                "currency": "GBP",
                "items": [{"product_id": "71053", "quantity": 6, "unit_price": 339, "product_name": None}],
                "shipping_address_id": "united-kingdom",
            },
            "metadata": {
                "command_id": "01977f6e-5c39-7b02-8c11-55a1f0d3b9aa",
                "command": "PlaceOrder",
                "correlation_id": "01977f6e-5c38-7f6a-a5b4-0d9d4b7c1e21",
                "causation_id": "01977f6e-5c39-7b02-8c11-55a1f0d3b9aa",
            },
            "hash": "9a0f0c4f2d0b7d5b9d0c2d6a3f6b1e8f7a5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e",
        }
    ],
    "next_after_version": None,
}


_REVENUE_EXAMPLE: dict[str, Any] = {
    "from": "2010-12-01",
    "to": "2010-12-31",
    "currency": "GBP",
    "lines": [
        {
            "day": "2010-12-01",
            "currency": "GBP",
            "status": "PENDING",
            "orders": 2,
            "placed": 7_128,
            "paid": 0,
            "cancelled": 0,
        },
    ],
}


_POISON_EXAMPLE: dict[str, Any] = {
    "order_id": "536365",
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


class Item(BaseModel):
    product_id: str
    product_name: str | None
    quantity: int
    unit_price: int = Field(description="in minor units")
    line_total: int = Field(description="in minor units")


class OrderSummary(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _SUMMARY_EXAMPLE})
    order_id: str
    customer_id: str
    status: OrderStatus
    currency: str = Field(description="ISO 4217")
    total_amount: int = Field(description="in minor units")
    item_count: int = Field(description="number of lines")
    placed_at: AwareDatetime
    last_event_at: AwareDatetime = Field(description="when the last thing happened to it, in business time")
    version: int = Field(description="number of events so far; also the ETag")


class Order(OrderSummary):
    model_config = ConfigDict(json_schema_extra={"example": _ORDER_EXAMPLE})
    items: list[Item]
    shipping_address_id: str
    tracking_number: str | None


class OrderPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"orders": [_SUMMARY_EXAMPLE], "next_cursor": None}})
    orders: list[OrderSummary]
    next_cursor: str | None = Field(description="hand it back as `cursor`; null on the last page")


class StoredEvent(BaseModel):
    version: int = Field(description="1, 2, 3 … within the order")
    position: int = Field(description="1, 2, 3 … within the log")
    event_id: UUID
    event_type: str
    schema_version: int = Field(description="of the shape of `data`, which is not brought up to date here")
    occurred_at: AwareDatetime = Field(description="when it happened, in business time")
    recorded_at: AwareDatetime = Field(description="when the log learned of it; never decreases with `position`")
    data: dict[str, Any] = Field(description="the JSON that was stored and hashed, verbatim")
    metadata: dict[str, Any] = Field(description="who and what led to it, verbatim: command, correlation, causation")
    hash: str = Field(description="SHA-256 over the hash before it and every stored field, in hexadecimal")


class OrderHistory(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": HISTORY_EXAMPLE})
    order_id: str
    events: list[StoredEvent]
    next_after_version: int | None = Field(description="hand it back as `after_version`; null on the last page")


class RevenueLine(BaseModel):
    day: date = Field(description="when the orders were placed, in UTC")
    currency: str = Field(description="ISO 4217")
    status: OrderStatus = Field(description="what they are now")
    orders: int = Field(description="how many")
    placed: int = Field(description="what they cost, in minor units")
    paid: int = Field(description="what was paid for them, in minor units")
    cancelled: int = Field(description="what those that are cancelled cost, in minor units")


class RevenueReport(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _REVENUE_EXAMPLE})
    first: date = Field(alias="from")
    last: date = Field(alias="to")
    currency: str | None
    lines: list[RevenueLine] = Field(description="by day, currency and status")


class PoisonEvent(BaseModel):
    """An event that a read model could not apply."""

    order_id: str
    stream_id: str
    position: int = Field(description="of the event in the log")
    version: int = Field(description="of the order, by this event")
    event_type: str
    schema_version: int
    error: str
    traceback: str = Field(description="at most 8 KB; without variables")
    failed_at: AwareDatetime = Field(description="when it was last tried")
    waiting: int = Field(description="later events of the order, which wait behind it")


class PartitionStatus(BaseModel):
    """As the fields of the read model, of one of its partitions."""

    partition: int
    checkpoint: int
    position_lag: int | None
    time_lag_ms: int | None
    level: LagLevel | None
    heartbeat_age_ms: int | None
    projector: str | None
    projector_state: str | None
    parked: int


class ProjectionStatus(BaseModel):
    """The figures are those of the partition that is furthest behind. Those that cannot be measured are null: somebody
    is in the way of the log, see `stalls`."""

    name: str
    generation: int = Field(description="the live one, which queries are answered from")
    previous_generation: int | None = Field(description="kept for a rollback")
    building_generation: int | None = Field(description="being built beside the live one")
    rebuilding: bool = Field(description="queries are refused until it has caught up")
    head: int | None = Field(description="position of the log's last event, asked of the log itself")
    checkpoint: int = Field(description="position of the last event that the read model shows")
    position_lag: int | None = Field(description="events between the two")
    time_lag_ms: int | None = Field(
        description="age of the oldest event that the read model does not show; 0 without one"
    )
    level: LagLevel | None = Field(description="up to 200 ms, up to 2 s, up to 30 s, more")
    recommended_action: str
    heartbeat_age_ms: int | None = Field(description="since the projector's last sign of life; null: never any")
    projector: str | None = Field(description="host and process of the active projector")
    projector_state: str | None
    stuck_because: str | None = Field(description="what keeps a projector that is stuck")
    stopped_at: PoisonEvent | None = Field(description="the event that it is stuck before; nothing is skipped")
    parked: int = Field(description="orders that are shown only up to an event that could not be applied")
    parked_events: list[PoisonEvent] = Field(description="the first 10 of those events")
    partitions: list[PartitionStatus] = Field(description="of the live generation, in order")


class StallStatus(BaseModel):
    kind: Literal["blocked", "long-transaction"] = Field(
        description="`blocked`: one of our sessions waits for it; `long-transaction`: open for longer than"
        " `LONG_TRANSACTION_SECONDS`"
    )
    blocked_pid: int | None = Field(description="the session of ours that waits")
    blocked_application: str | None
    waited_ms: int | None
    pid: int = Field(description="the session in the way, the first of the queue; 0: a prepared transaction")
    application: str | None = Field(description="the name it gave PostgreSQL")
    state: str | None = Field(description="what PostgreSQL says it does; null where we may not know")
    transaction_age_ms: int | None = Field(description="since its transaction began; null where we may not know")


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
            }
        }
    )
    projections: list[ProjectionStatus]
    stalls: list[StallStatus] = Field(description="who is in the way of the log in PostgreSQL; mostly nobody")
