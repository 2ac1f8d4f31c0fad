"""The answers as OpenAPI shows them. They are documentation: what is served are bytes that the projector rendered."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.read_model_keys import OrderStatus

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


class LagLevel(StrEnum):
    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"
    EMERGENCY = "emergency"


class ProjectionStatus(BaseModel):
    name: str
    generation: int
    rebuilding: bool = Field(description="queries are refused until it has caught up")
    head: int = Field(description="position of the log's last event, asked of the log itself")
    checkpoint: int = Field(description="position of the last event that the read model shows")
    position_lag: int = Field(description="events between the two")
    time_lag_ms: int = Field(description="age of the oldest event that the read model does not show; 0 without one")
    level: LagLevel = Field(description="up to 200 ms, up to 2 s, up to 30 s, more")
    recommended_action: str
    heartbeat_age_ms: int | None = Field(description="since the projector's last sign of life; null: never any")
    projector: str | None = Field(description="host and process of the active projector")
    projector_state: str | None


class Projections(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "projections": [
                    {
                        "name": "orders",
                        "generation": 1,
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
                    }
                ]
            }
        }
    )
    projections: list[ProjectionStatus]
