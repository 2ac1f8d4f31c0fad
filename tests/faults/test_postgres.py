"""PostgreSQL crashes and comes back, as it was or as it was some time ago."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import asyncpg
import httpx
import pytest

from cli.embedded import EmbeddedPostgres
from shared.consistency import ConsistencyToken
from tests.faults.shop import Servers, Shop, codes, until_more
from tests.orders import order_body
from tests.promises import assert_the_log_holds_each_once


@pytest.fixture
def servers(mortal_postgres: EmbeddedPostgres, redis_url: str) -> Servers:
    return Servers(mortal_postgres.url, redis_url)


def stop_immediately(server: EmbeddedPostgres) -> None:
    """As `pg_ctl stop -m immediate`: every session is dropped at once; the next start recovers."""
    assert server.process is not None
    server.process.send_signal(signal.SIGQUIT)
    server.process.wait()


async def test_an_immediate_restart_during_appends_and_reads_loses_and_doubles_nothing(
    shop: Shop, mortal_postgres: EmbeddedPostgres
) -> None:
    await shop.start()
    customers = shop.customers()
    reading = asyncio.create_task(_keep_reading(shop))
    async with customers.ordering(4):
        for _ in range(2):
            await until_more(customers.promises, 100)
            await asyncio.to_thread(stop_immediately, mortal_postgres)
            mortal_postgres.start()
        await until_more(customers.promises, 100)
    reading.cancel()
    [answers] = await asyncio.gather(reading)
    assert answers <= {(200, ""), (404, "order-not-found"), (503, "log-unavailable")}
    await shop.assert_all_is_well(customers.promises)


async def _keep_reading(shop: Shop) -> set[tuple[int, str]]:
    """Reads the log itself until cancelled; every kind of answer there was."""
    seen: set[tuple[int, str]] = set()
    async with httpx.AsyncClient(base_url=shop.query.url, timeout=10) as queries:
        try:
            while True:
                answers = await asyncio.gather(*(queries.get(f"/orders/{name}/history") for name in "abcd"))
                seen |= codes(answers)
        except asyncio.CancelledError:
            return seen


def back_up(server: EmbeddedPostgres, to: Path) -> None:
    server.stop()
    shutil.copytree(server.directory, to)
    _keep_owner(server.directory, to)
    server.start()


def restore(server: EmbeddedPostgres, backup: Path) -> None:
    server.stop()
    shutil.rmtree(server.directory)
    backup.rename(server.directory)
    server.start()


def _keep_owner(original: Path, copy: Path) -> None:
    owner = original.stat()
    for path in (copy, *copy.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)


async def place(commands: httpx.AsyncClient, count: int = 1) -> httpx.Response:
    """The last acknowledgement."""
    answers = await asyncio.gather(*(commands.post("/orders", json=order_body()) for _ in range(count)))
    assert {answer.status_code for answer in answers} == {201}
    return max(answers, key=lambda answer: int(answer.json()["position"]))


async def read(shop: Shop, acknowledged: httpx.Response, wait: int = 0) -> httpx.Response:
    """The order of an acknowledgement, with its token."""
    headers = {"Consistency-Token": acknowledged.headers["consistency-token"], "Prefer": f"wait={wait}"}
    async with httpx.AsyncClient(base_url=shop.query.url, timeout=40) as queries:
        return await queries.get(acknowledged.headers["location"], headers=headers)


async def test_read_models_ahead_of_a_restored_log_are_noticed_and_built_again(
    shop: Shop, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    await shop.start()
    async with httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands:
        kept = await place(commands, 20)
        back_up(mortal_postgres, tmp_path / "backup")
        lost = await place(commands, 20)
        assert (await read(shop, lost, wait=30)).status_code == 200

        restore(mortal_postgres, tmp_path / "backup")
        await shop.assert_read_models_equal_the_log()
        assert "ahead of the log, which was restored to an older state" in shop.projector.log.read_text()
        assert (await read(shop, kept, wait=30)).status_code == 200
        # The log has not come that far again: the token is waited for, and then refused for now.
        assert codes([await read(shop, lost)]) == {(503, "projection-lagging")}
        assert (await commands.post(f"{lost.headers['location']}/delivery", json={})).status_code == 404

        placed = await place(commands)
        assert (await read(shop, placed, wait=30)).status_code == 200
        await shop.assert_read_models_equal_the_log()
        await assert_the_log_holds_each_once(mortal_postgres.url, [kept.json(), placed.json()])


async def test_read_models_of_another_past_are_built_again_though_the_log_has_grown_beyond_them(
    shop: Shop, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    await shop.start()
    async with httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands:
        await place(commands, 20)
        back_up(mortal_postgres, tmp_path / "backup")
        lost = await place(commands, 5)
        assert (await read(shop, lost, wait=30)).status_code == 200
        await asyncio.to_thread(shop.projector.stop)

        restore(mortal_postgres, tmp_path / "backup")
        grown = await place(commands, 50)
        await shop.start(shop.projector)
        await shop.assert_read_models_equal_the_log()
        assert "the log has another past" in shop.projector.log.read_text()
        assert (await read(shop, grown, wait=30)).status_code == 200


async def test_tokens_of_a_log_that_was_replaced_by_another_are_refused(
    shop: Shop, mortal_postgres: EmbeddedPostgres
) -> None:
    """What a restored log should have: a new identity. No command gives it one yet, so the test does."""
    await shop.start()
    async with httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands:
        old = await place(commands, 20)
        assert (await read(shop, old, wait=30)).status_code == 200
        owner = await asyncpg.connect(mortal_postgres.url)
        await owner.execute("update log_head set log_id = gen_random_uuid()")
        await owner.close()
        await asyncio.to_thread(stop_immediately, mortal_postgres)
        mortal_postgres.start()

        new = await place(commands)
        assert (await read(shop, new, wait=30)).status_code == 200
        refused = await read(shop, old)
        assert codes([refused]) == {(400, "unknown-log")}
        assert refused.json()["log_id"] == str(ConsistencyToken.decode(old.json()["consistency_token"]).log_id)
        await shop.assert_read_models_equal_the_log()
