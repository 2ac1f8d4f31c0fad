"""PostgreSQL crashes and comes back, as it was or as it was some time ago."""

from __future__ import annotations

import asyncio
import shutil
import signal
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner

from cli.embedded import EmbeddedPostgres
from cli.main import app
from shared.consistency import ConsistencyToken
from tests.faults.shop import Servers, Shop, codes, until_more
from tests.orders import order_body
from tests.promises import assert_the_log_holds_each_once
from tests.query_service.event_source import following
from tests.roles import url_of
from tests.running import eventually


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


async def test_streams_of_a_log_that_was_restored_to_an_older_state_end(
    shop: Shop, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    await shop.start()
    async with (
        httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands,
        httpx.AsyncClient(base_url=shop.query.url, timeout=30) as queries,
    ):
        kept = await place(commands)
        back_up(mortal_postgres, tmp_path / "backup")
        async with following(queries, f"{kept.headers['location']}/events") as source:
            await source.until_it_began()
            lost = await commands.post(f"{kept.headers['location']}/cancellation", json={"reason": "ordered twice"})
            await source.until(1)
            assert source.positions == [lost.json()["position"]]
            restore(mortal_postgres, tmp_path / "backup")
            await eventually(lambda: source.ended)
        ahead = await queries.get(f"{kept.headers['location']}/events", headers={"Last-Event-ID": source.last_id})
        assert codes([ahead]) == {(400, "unknown-position")}


async def give_new_id(server: EmbeddedPostgres) -> tuple[str, str]:
    """`orders log new-id`, as an operator runs it; (old, new)."""
    environment = {"DATABASE_URL": url_of(server.url, "orders_migrator")}
    command = ["log", "new-id", "--reason", "disk failed, backup of noon"]
    answer = await asyncio.to_thread(CliRunner().invoke, app, command, env=environment)
    assert answer.exit_code == 0, answer.output
    old, new, _ = [line.split()[-1] for line in answer.output.splitlines()]
    return old, new


async def audit(server: EmbeddedPostgres, *arguments: object) -> tuple[int, str]:
    """`orders audit ...`, as an auditor runs it."""
    command = ["audit", *map(str, arguments)]
    environment = {"AUDITOR_DATABASE_URL": url_of(server.url, "orders_auditor")}
    answer = await asyncio.to_thread(CliRunner().invoke, app, command, env=environment)
    return answer.exit_code, answer.output


async def test_after_a_restore_and_a_new_id_old_tokens_are_refused_for_ever_and_auditors_see_both(
    shop: Shop, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The services run all the time; only nobody orders between the restore and the new id."""
    key, public_key, seals = (tmp_path / name for name in ("key", "key.pub", "seals"))
    ask = partial(audit, mortal_postgres)
    await shop.start()
    async with httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands:
        assert (await ask("keygen", "--key", key, "--public-key", public_key))[0] == 0
        kept = await place(commands, 20)
        back_up(mortal_postgres, tmp_path / "backup")
        lost = await place(commands, 5)
        assert (await read(shop, lost, wait=30)).status_code == 200
        assert (await ask("seal", "--key", key, "--seals", seals))[0] == 0

        restore(mortal_postgres, tmp_path / "backup")
        old, new = await give_new_id(mortal_postgres)
        first = await place(commands)
        assert ConsistencyToken.decode(first.json()["consistency_token"]) == ConsistencyToken(UUID(new), 21)
        assert (await read(shop, first, wait=30)).status_code == 200
        await assert_refused(shop, kept, lost, log_id=old)

        grown = await place(commands, 10)  # beyond what was lost
        assert (await read(shop, grown, wait=30)).status_code == 200
        await assert_refused(shop, kept, lost, log_id=old)
        assert (await commands.post(f"{lost.headers['location']}/delivery", json={})).status_code == 404
    await shop.assert_read_models_equal_the_log()
    assert f"it belongs to log {old}, this is {new}" in shop.projector.log.read_text()
    await assert_the_log_holds_each_once(mortal_postgres.url, [kept.json(), first.json(), grown.json()])

    change = f"{new} after position 20, given at "
    code, said = await ask("verify")
    assert (code, f"new id    {change}" in said) == (0, True)
    code, said = await ask("verify", "--seals", seals, "--public-key", public_key)
    assert code == 1
    assert said.startswith("position 21: truncated tail: the seal on line 1 is for position 25, but the log became ")
    assert f"{change}" in said
    assert "'disk failed, backup of noon'" in said


async def assert_refused(shop: Shop, *acknowledged: httpx.Response, log_id: str) -> None:
    for one in acknowledged:
        refused = await read(shop, one)
        assert codes([refused]) == {(400, "unknown-log")}
        assert refused.json()["log_id"] == log_id
