"""Appends that wait for a transaction of another program: the log names its session."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import asyncpg
import httpx
import structlog

from shared.settings import Settings
from tests.command_service.test_operations import samples
from tests.orders import order_body, place
from tests.running import eventually, running_command_service

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_the_session_that_holds_the_head_of_the_log_is_named_before_the_append_is_given_up(
    settings: Settings, connection: Connection
) -> None:
    quick = settings.model_copy(update={"append_timeout_seconds": 1.0})
    await connection.execute("set application_name = 'psql of a stranger'")
    async with running_command_service(quick) as url, httpx.AsyncClient(base_url=url) as client:
        await place(client)
        with structlog.testing.capture_logs() as logged:
            async with connection.transaction():
                await connection.execute("select from log_head for update")
                waiting = [asyncio.create_task(client.post("/orders", json=order_body())) for _ in range(5)]
                await eventually(lambda: [line for line in logged if line["event"] == "slow call"])
                assert not any(one.done() for one in waiting)
        lines = [line for line in logged if line["event"] == "slow call"]
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} <= {201, 504}
        counted = samples((await client.get("/metrics")).text)['orders_stalled_total{what="append"}']
    (line,) = lines
    (blocker,) = line["blockers"]
    assert line["what"] == "append"
    assert (blocker["pid"], blocker["application"]) == (connection.get_server_pid(), "psql of a stranger")
    assert (blocker["kind"], blocker["blocked_application"]) == ("blocked", "orders-appender")
    assert blocker["transaction_age_ms"] >= blocker["waited_ms"] > 0
    assert counted >= 1
