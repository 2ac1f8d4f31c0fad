"""Checks of acknowledgements: each is in the log exactly once, and each can be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg
import httpx

Acknowledgement = dict[str, Any]  # the body of an acknowledgement


async def assert_the_log_holds_each_once(
    database_url: str, acknowledged: Sequence[Acknowledgement], *, and_nothing_else: bool = False
) -> None:
    """`and_nothing_else`: no other commands were sent, so anything else in the log happened twice."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("select position, stream_id, version, metadata from events order by position")
    finally:
        await connection.close()
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    log = Counter((json.loads(row["metadata"]).get("command_id"), row["stream_id"], row["version"]) for row in rows)
    expected = [(one["command_id"], f"order-{one['aggregate_id']}", one["version"]) for one in acknowledged]
    assert len(set(expected)) == len(expected)
    assert [event for event in expected if log[event] != 1] == []
    if and_nothing_else:
        commands = {command_id for command_id, _, _ in expected}
        others = log.keys() - set(expected)
        # Beside the order's own events: a payment's reference, which the same command assigns to the order.
        assert [key for key in others if not (key[0] in commands and key[1].startswith("payment-"))] == []


async def assert_each_can_be_read(query_url: str, acknowledged: Sequence[Acknowledgement]) -> None:
    async with httpx.AsyncClient(base_url=query_url, timeout=40) as queries:
        for acknowledgement in acknowledged:
            headers = {"Consistency-Token": acknowledgement["consistency_token"], "Prefer": "wait=30"}
            answer = await queries.get(f"/orders/{acknowledgement['aggregate_id']}", headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["version"] >= acknowledgement["version"]
