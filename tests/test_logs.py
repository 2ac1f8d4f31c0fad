"""What the processes write to their logs."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.faults.shop import Process, Servers, Shop
from tests.orders import order_body

REQUESTS = {
    "command": [("/orders", 201), ("/orders/logged/delivery", 409)],
    "query": [("/orders/logged", 200), ("/orders/nobodys", 404)],
    "projector": [("/livez", 200)],
}


async def test_every_process_logs_one_json_object_a_line_with_correlation_ids(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    shop = Shop(tmp_path, Servers(database_url, redis_url), LOG_LEVEL="DEBUG")
    processes = shop.command, shop.query, shop.projector
    try:
        await shop.start()
        await ask_each(shop)
        for process in processes:
            process.request_stop()
        assert [await process.until_it_ends() for process in processes] == [0, 0, 0]
    finally:
        shop.close()
    for process in processes:
        assert_logged(process, REQUESTS[process.name])


async def ask_each(shop: Shop) -> None:
    async with httpx.AsyncClient(headers={"X-Correlation-ID": "checkout-42"}, timeout=30) as client:
        placed = await client.post(f"{shop.command.url}/orders", json=order_body(order_id="logged"))
        await client.post(f"{shop.command.url}/orders/logged/delivery", json={})
        token = {"Consistency-Token": placed.headers["consistency-token"], "Prefer": "wait=20"}
        for order_id in ("logged", "nobodys"):
            await client.get(f"{shop.query.url}/orders/{order_id}", headers=token)
        await client.get(f"{shop.projector.url}/livez")


def assert_logged(process: Process, requests: list[tuple[str, int]]) -> None:
    written = process.log.read_text()
    entries = [json.loads(line) for line in written.splitlines()]
    assert all({"message", "level", "timestamp"} <= set(entry) for entry in entries), entries
    assert {entry["process"] for entry in entries} == {process.name}
    ours = [entry for entry in entries if entry.get("correlation_id") == "checkout-42"]
    assert [(entry["path"], entry["status"]) for entry in ours if entry["message"] == "request"] == requests
    assert "test-password" not in written
