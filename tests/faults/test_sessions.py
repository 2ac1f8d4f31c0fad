"""Other people's sessions in PostgreSQL: one that holds the head of the log, and ones that never end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeAlias

import asyncpg
import httpx
import pytest

from tests.faults.shop import Shop, codes, until_more
from tests.orders import order_body
from tests.running import eventually

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# What stalls readers elsewhere: an old snapshot, an open transaction that has written, one that forgot to end.
OPEN_TRANSACTIONS = {
    "an hour-old read": ("repeatable read", "select count(*) from events"),
    "idle after a write": ("read committed", "create temporary table written (by_me integer)"),
    "idle after a read": ("read committed", "select count(*) from events"),
}


@pytest.mark.promise(
    "failures", "Appends blocked at the log's head are answered in bounded time, and the blocking session is named"
)
async def test_appends_that_wait_for_the_head_are_answered_in_time_and_go_on_once_it_is_free(shop: Shop) -> None:
    await shop.start()
    customers = shop.customers()
    rival = await asyncpg.connect(shop.servers.database_url, server_settings={"application_name": "a rival"})
    async with customers.ordering(4):
        await until_more(customers.acknowledged)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=shop.command.url, timeout=30, limits=limits) as commands:
            async with rival.transaction():
                await rival.execute("select from log_head for update")
                started = asyncio.get_running_loop().time()
                answers = await asyncio.gather(*(commands.post("/orders", json=_held_up(n)) for n in range(20)))
                # A half second in the queue and one second in the append are granted (see `tests.faults.shop`).
                assert asyncio.get_running_loop().time() - started < 5
                assert codes(answers) <= {(503, "overloaded"), (503, "log-unavailable"), (504, "outcome-unknown")}
                assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
                assert (await commands.get("/readyz")).status_code == 200, "the log can be read"
                await _assert_is_named(shop, rival, "blocked")
                # Reading takes no lock: what is in the log is projected meanwhile.
                await shop.assert_read_models_equal_the_log()
            again = await asyncio.gather(*(_until_answered(commands, n) for n in range(20)))
        await until_more(customers.acknowledged)
    said = [line for line in shop.command.log.read_text().splitlines() if '"message":"slow call"' in line]
    assert any(f'"pid":{rival.get_server_pid()},"application":"a rival"' in line for line in said)
    await rival.close()
    await shop.assert_all_is_well([*customers.acknowledged, *(answer.json() for answer in again)])


async def _assert_is_named(shop: Shop, session: Connection, kind: str) -> None:
    """`/projections` names this session, its state and the age of its transaction."""
    async with httpx.AsyncClient(base_url=shop.query.url) as queries:

        async def named() -> bool:
            stalls = (await queries.get("/projections")).json()["stalls"]
            return any(
                (stall["kind"], stall["pid"], stall["application"], stall["state"])
                == (kind, session.get_server_pid(), "a rival", "idle in transaction")
                and stall["transaction_age_ms"] > 0
                for stall in stalls
            )

        await eventually(named)


def _held_up(number: int) -> dict[str, object]:
    return order_body(order_id=f"held-up-{number}")


async def _until_answered(commands: httpx.AsyncClient, number: int) -> httpx.Response:
    """The order that was held up, asked for again until the answer is definite: it was, or is now, placed once."""
    answers: list[httpx.Response] = []

    async def definite() -> bool:
        answers.append(await commands.post("/orders", json=_held_up(number)))
        return answers[-1].status_code not in (503, 504)

    await eventually(definite)
    return answers[-1]


@pytest.mark.promise("failures", "No open transaction delays projections; a long one is named")
async def test_projections_go_on_beside_transactions_that_never_end(shop: Shop) -> None:
    await shop.start()
    customers = shop.customers()
    async with AsyncExitStack() as sessions:
        idle = [await sessions.enter_async_context(_open(shop, *what)) for what in OPEN_TRANSACTIONS.values()]
        async with customers.ordering(4):
            await until_more(customers.acknowledged, 200)
        # With the transactions still open.
        await shop.assert_all_is_well(customers.acknowledged, seconds=5)
        assert customers.asked_again == 0
        for one in idle:
            await _assert_is_named(shop, one, "long-transaction")


@asynccontextmanager
async def _open(shop: Shop, isolation: str, statement: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(shop.servers.database_url, server_settings={"application_name": "a rival"})
    await connection.execute(f"begin isolation level {isolation}")
    await connection.execute(statement)
    yield connection
    await connection.close()
