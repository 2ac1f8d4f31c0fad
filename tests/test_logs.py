"""What the processes write to their logs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextvars import copy_context
from pathlib import Path

import httpx
import pytest

from shared.log_floods import FloodLimit
from tests.faults.shop import Process, Servers, Shop
from tests.orders import order_body
from tests.running import wait_until

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


def test_a_flood_of_warnings_is_counted_and_its_count_logged() -> None:
    reported: list[tuple[str, int]] = []
    limit = FloodLimit(lambda event, lines: reported.append((event, lines)), copy_context(), lines=3, seconds=0.01)
    assert [limit.admits("flood") for _ in range(5)] == [True, True, True, False, False]
    assert limit.admits("drop")
    wait_until(lambda: reported == [("flood", 2)], "the count is reported")
    assert limit.admits("flood")


def test_a_flood_of_different_warnings_takes_bounded_memory() -> None:
    limit = FloodLimit(lambda _event, _lines: None, copy_context(), lines=1, seconds=60.0)
    admitted = [limit.admits(str(number)) for number in range(2_000)]
    assert admitted.count(True) == 1_001
    assert len(limit._seen) == 1_001


@pytest.mark.subprocess
def test_garbage_on_a_port_is_logged_by_count(tmp_path: Path) -> None:
    """From a process of its own, through uvicorn's logger and ours."""
    program = """
import logging
from shared.logs import configure_logs, get_logger

configure_logs("query", "INFO")
for number in range(500):
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    get_logger().warning("snapshot refused", stream_id=f"order-{number}")
    get_logger().info("as many as there are")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, cwd=tmp_path)
    entries = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {entry["process"] for entry in entries} == {"query"}
    assert Counter(entry["message"] for entry in entries) == {
        "Invalid HTTP request received.": 20,
        "snapshot refused": 20,
        "as many as there are": 500,
        "lines not logged": 2,
    }
    counts = {entry["of"]: entry["lines"] for entry in entries if entry["message"] == "lines not logged"}
    assert counts == {"Invalid HTTP request received.": 480, "snapshot refused": 480}
