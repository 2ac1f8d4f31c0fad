"""`orders processes`, against running services."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from shared.aggregates.process import PROCESS, ProcessStarted, ProcessStuck
from shared.settings import Settings
from tests.orders import place
from tests.orders_command import invoke_orders
from tests.recording import put_in_log
from tests.running import clients_of, running_stack


class ProcessesCommand:
    """Runs `orders processes …` to its end."""

    def __init__(self, settings: Settings, queries: httpx.AsyncClient) -> None:
        at = f"http://{settings.host}"
        self._environment = {
            "COMMAND_URL": f"{at}:{settings.command_port}",
            "QUERY_URL": f"{at}:{settings.query_port}",
        }
        self._queries = queries
        self.token = ""

    async def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        headers = {"Consistency-Token": self.token, "Prefer": "wait=20"}
        assert (await self._queries.get("/processes", headers=headers)).status_code == 200
        return await asyncio.to_thread(invoke_orders, "processes", *arguments, env=self._environment)

    async def printed(self, *arguments: str) -> str:
        ended = await self(*arguments)
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return ended.stdout

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self.printed(*arguments, "--json"))


@pytest.fixture
async def command(
    settings: Settings, connection: asyncpg.Connection[asyncpg.Record]
) -> AsyncIterator[ProcessesCommand]:
    """Order 42 has a fulfilment that is stuck."""
    async with running_stack(settings), clients_of(settings) as (commands, queries):
        await place(commands, order_id="42")
        started = ProcessStarted("fulfilment", "42", 1)
        result = await put_in_log(connection, PROCESS.stream_of("fulfilment-42"), started, ProcessStuck("KeyError"))
        command = ProcessesCommand(settings, queries)
        command.token = result.token.encode()
        yield command


async def test_a_stuck_process_is_found_shown_and_retried(command: ProcessesCommand) -> None:
    [one] = (await command.json("list", "--state", "stuck"))["processes"]
    assert (one["process_id"], one["stuck"]) == ("fulfilment-42", "KeyError")
    table = await command.printed("list")
    assert all(text in table for text in ("fulfilment-42", "stuck", "KeyError"))
    shown = " ".join((await command.printed("show", "fulfilment-42")).split())
    assert "stuck KeyError (since " in shown
    assert "ProcessStuck KeyError" in shown

    retried = await command.json("retry", "fulfilment-42")

    assert retried["aggregate_id"] == "fulfilment-42"
    again = await command("retry", "fulfilment-42")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("orders: process-not-stuck: ")


async def test_a_step_is_skipped_and_the_journey_told(command: ProcessesCommand) -> None:
    refused = await command("skip", "fulfilment-42", "--outcome", "Refunded")
    assert "outcome-not-offered" in refused.stderr
    assert (await command("skip", "fulfilment-42", "--outcome", "Authorised", "--data", "[]")).returncode == 2

    await command.printed("skip", "fulfilment-42", "--outcome", "Authorised")

    told = (await command.printed("trace", "42")).splitlines()
    assert told[0] == "+0 s PlaceOrder"
    assert [line for line in told if "skips Authorise (amount 3499, currency GBP): Authorised" in line]
    assert [line for line in told if "asks for Capture" in line]
    steps = (await command.json("trace", "42"))["steps"]
    assert (len(steps), steps[0]["depth"]) == (len(told), 0)
    assert (await command("trace", "43")).stderr == "orders: there is no order '43'\n"


async def test_a_process_is_compensated(command: ProcessesCommand) -> None:
    await command.printed("compensate", "fulfilment-42")
    shown = await command("show", "fulfilment-42", "--json")
    told = await command.printed("trace", "42")
    assert "order: OrderCancelled" in told
    assert told.rstrip().endswith(("ends: cancelled", "order: OrderCancelled"))
    assert shown.returncode == 0
