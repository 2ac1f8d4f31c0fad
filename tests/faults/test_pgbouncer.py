"""A connection pooler between our processes and PostgreSQL: in session mode all works, the other modes are refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.stack.embedded_server import free_port
from tests.faults.shop import Servers, Shop, at_port, port_of, until_more
from tests.pgbouncer import PoolMode, needs_pgbouncer, running_pgbouncer
from tests.pooler import running_pooler
from tests.running import eventually

PROCESSES = ["command", "query", "projector"]
REFUSAL = "set pool_mode = session for this database"


def behind(servers: Servers, port: int, directory: Path) -> Shop:
    through = Servers(at_port(servers.database_url, port), servers.redis_url)
    return Shop(directory, servers, dict.fromkeys(PROCESSES, through))


async def assert_all_works(shop: Shop) -> None:
    try:
        await shop.start()
        customers = shop.customers()
        async with customers.ordering(4):
            await until_more(customers.acknowledged, 100)
        assert customers.asked_again == 0
        await shop.assert_all_is_well(customers.acknowledged)
    finally:
        shop.close()


@needs_pgbouncer
@pytest.mark.promise("failures", "The stack works behind PgBouncer in session mode, with PgBouncer's default settings")
async def test_the_stack_works_behind_pgbouncer_in_session_mode(servers: Servers, tmp_path: Path) -> None:
    with running_pgbouncer(tmp_path / "pgbouncer", servers.database_url, "session") as port:
        await assert_all_works(behind(servers, port, tmp_path))


@pytest.mark.promise("failures", "The stack works behind a pooler that knows few parameters and invents process ids")
async def test_the_stack_works_behind_a_pooler_that_invents_process_ids(servers: Servers, tmp_path: Path) -> None:
    async with running_pooler(port_of(servers.database_url)) as port:
        await assert_all_works(behind(servers, port, tmp_path))


@needs_pgbouncer
@pytest.mark.promise("failures", "A process that PgBouncer gives no session of its own says so and does not start")
@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_process_does_not_start_behind_pgbouncer_in_another_mode(
    servers: Servers, tmp_path: Path, mode: PoolMode
) -> None:
    with running_pgbouncer(tmp_path / "pgbouncer", servers.database_url, mode) as port:
        shop = behind(servers, port, tmp_path)
        try:
            for process in (shop.command, shop.query, shop.projector):
                process.spawn()
                assert await process.until_it_ends() == 1
                assert REFUSAL in process.log.read_text()
            environment = {"DATABASE_URL": at_port(servers.database_url, port)}
            answer = await asyncio.to_thread(CliRunner().invoke, app, ["migrate"], env=environment)
            assert answer.exit_code == 1
            assert REFUSAL in answer.output
        finally:
            shop.close()


@needs_pgbouncer
@pytest.mark.promise("failures", "A process that PgBouncer gives no session of its own is not ready, and says why")
async def test_a_process_that_started_before_pgbouncer_is_not_ready_and_says_why(
    servers: Servers, tmp_path: Path
) -> None:
    port = free_port()
    shop = behind(servers, port, tmp_path)
    try:
        shop.command.spawn()
        shop.projector.spawn()
        async with httpx.AsyncClient(timeout=10) as client:

            async def run() -> bool:
                try:
                    answers = [await client.get(f"{one.url}/livez") for one in (shop.command, shop.projector)]
                except httpx.TransportError:
                    return False
                return all(answer.status_code == 200 for answer in answers)

            async def say_why() -> bool:
                said = [(await client.get(f"{one.url}/readyz")).text for one in (shop.command, shop.projector)]
                return all(REFUSAL in text for text in said)

            await eventually(run, seconds=30)
            with running_pgbouncer(tmp_path / "pgbouncer", servers.database_url, "transaction", port):
                await eventually(say_why, seconds=30)
    finally:
        shop.close()
