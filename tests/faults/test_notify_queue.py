"""PostgreSQL's queue of notifications is full: another program listens within a transaction that it leaves open."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from cli.stack.embedded_postgres import EmbeddedPostgres
from tests.faults.shop import Servers, Shop, until_more
from tests.running import eventually

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

FEWEST_PAGES = 64  # that the queue may be given; a page has 8 KiB


@pytest.fixture
async def servers(mortal_postgres: EmbeddedPostgres, redis_url: str) -> Servers:
    connection = await asyncpg.connect(mortal_postgres.url)
    if connection.get_server_version().major < 17:
        pytest.skip("the queue's size cannot be set on this server")
    await connection.execute(f"alter system set max_notify_queue_pages = {FEWEST_PAGES}")
    await connection.close()
    mortal_postgres.stop()
    mortal_postgres.start()
    return Servers(mortal_postgres.url, redis_url)


@asynccontextmanager
async def session(servers: Servers) -> AsyncIterator[Connection]:
    """Of another program, in another database of the server."""
    url = urlsplit(servers.database_url)._replace(path="/postgres").geturl()
    connection = await asyncpg.connect(url, server_settings={"application_name": "a rival"})
    yield connection
    await connection.close()


async def fill_the_queue(connection: Connection) -> None:
    """Until it takes no more."""
    fill = "do $$ begin for n in 1..10000 loop perform pg_notify('news', repeat('a', 7900)); commit; end loop; end $$"
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await connection.execute(fill)


def is_logged(shop: Shop, pid: int) -> bool:
    lines = [json.loads(line) for line in shop.query.log.read_text().splitlines()]
    said = [line for line in lines if line["message"] == "event log blocked"]
    return ("notify-queue", pid) in {(line["kind"], line["pid"]) for line in said}


@pytest.mark.promise("failures", "A full queue of notifications costs no command; the sessions that keep it are named")
async def test_a_full_queue_of_notifications_costs_no_command(shop: Shop) -> None:
    await shop.start()
    customers = shop.customers()
    async with (
        session(shop.servers) as rival,
        session(shop.servers) as other,
        httpx.AsyncClient(base_url=shop.query.url, timeout=10) as queries,
    ):
        await rival.add_listener("news", lambda *_: None)
        async with customers.ordering(2):
            await until_more(customers.acknowledged)
            async with rival.transaction():
                await rival.execute("select 1")
                await fill_the_queue(other)
                await until_more(customers.acknowledged)
                await shop.assert_has_reached(customers.acknowledged[-1])
                pid = rival.get_server_pid()

                async def is_named() -> bool:
                    stalls = (await queries.get("/projections")).json()["stalls"]
                    return ("notify-queue", pid, "a rival") in {
                        (stall["kind"], stall["pid"], stall["application"]) for stall in stalls
                    }

                await eventually(is_named)
                await eventually(lambda: is_logged(shop, pid), seconds=20)

            async def is_over() -> bool:
                return not (await queries.get("/projections")).json()["stalls"]

            await eventually(is_over)
            await until_more(customers.acknowledged)
    assert customers.asked_again == 0
    await shop.assert_all_is_well(customers.acknowledged)
