"""Whether every promise that customers were given is kept: it is in the log once, and it can be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg
import httpx

Promise = dict[str, Any]  # the body of an acknowledgement


async def assert_the_log_holds_each_once(
    database_url: str, promises: Sequence[Promise], *, and_nothing_else: bool = False
) -> None:
    """`and_nothing_else`: the promises are all that was ever asked for, so what else is in the log happened twice."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("select position, stream_id, version, metadata from events order by position")
    finally:
        await connection.close()
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    log = Counter((json.loads(row["metadata"]).get("command_id"), row["stream_id"], row["version"]) for row in rows)
    promised = [(p["command_id"], f"order-{p['aggregate_id']}", p["version"]) for p in promises]
    assert len(set(promised)) == len(promised)
    assert [promise for promise in promised if log[promise] != 1] == []
    if and_nothing_else:
        assert sorted(log.keys() - set(promised)) == []


async def assert_each_can_be_read(query_url: str, promises: Sequence[Promise]) -> None:
    async with httpx.AsyncClient(base_url=query_url, timeout=40) as queries:
        for promise in promises:
            headers = {"Consistency-Token": promise["consistency_token"], "Prefer": "wait=30"}
            answer = await queries.get(f"/orders/{promise['aggregate_id']}", headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["version"] >= promise["version"]
