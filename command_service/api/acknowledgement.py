"""The answer to a command that was carried out: ids, version, position and token, never domain data."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from shared.aggregates.aggregate import split_stream
from shared.eventstore.append_request import AppendResult, AppendStatus


class Acknowledgement(BaseModel):
    """The command was carried out and is durable. Data comes from the query service."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "command_id": "019ab2f4-7c1e-7d35-9d2c-6a2f7a1c9b10",
                "aggregate_id": "536365",
                "version": 1,
                "position": 1042,
                "consistency_token": "5f0c6f5e0d3c4e0fb7a1d0f8f2d0a9c4-1042",
            }
        }
    )

    command_id: str = Field(description="this command, as in the metadata of its events")
    aggregate_id: str = Field(description="of what was commanded, such as the order's")
    version: int = Field(description="after this command")
    position: int = Field(description="of its last event in the log")
    consistency_token: str = Field(description="hand it to a query to read your own write")


HEADERS = {
    "ETag": {"schema": {"type": "string"}, "description": "the version, quoted"},
    "Consistency-Token": {"schema": {"type": "string"}, "description": "hand it to a query"},
    "Idempotent-Replayed": {"schema": {"type": "string"}, "description": "`true` when the key had been used before"},
}
LOCATION: dict[str, Any] = {"schema": {"type": "string"}, "description": "its address at the query service"}

_encode = msgspec.json.Encoder().encode


def acknowledge(result: AppendResult, created_under: str | None = None) -> Response:
    """201 with `Location` where the command made something new under that address, such as `/orders`; else 200."""
    _, aggregate_id = split_stream(result.stream_id)
    token = result.token.encode()
    headers = {"ETag": f'"{result.version}"', "Consistency-Token": token}
    if created_under is not None:
        headers["Location"] = f"{created_under}/{aggregate_id}"
    if result.status is AppendStatus.REPLAYED:
        headers["Idempotent-Replayed"] = "true"
    body = {
        "command_id": result.command_id,
        "aggregate_id": aggregate_id,
        "version": result.version,
        "position": result.position,
        "consistency_token": token,
    }
    return Response(_encode(body), 200 if created_under is None else 201, headers, media_type="application/json")
