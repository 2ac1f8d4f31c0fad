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

from cli.main import app
from cli.stack.embedded_postgres import EmbeddedPostgres
from shared.eventstore.token import ConsistencyToken
from tests.acknowledgements import Acknowledgement, assert_each_can_be_read, assert_the_log_holds_each_once
from tests.faults.readers import Readers
from tests.faults.shop import Servers, Shop, codes, until_more
from tests.orders import place
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


@pytest.mark.promise(
    "failures", "An immediate restart of PostgreSQL loses and doubles nothing, and no answer is older than its token"
)
async def test_an_immediate_restart_during_appends_and_reads_loses_and_doubles_nothing(
    shop: Shop, mortal_postgres: EmbeddedPostgres
) -> None:
    await shop.start()
    customers = shop.customers()
    readers = Readers(shop.query.url, customers.acknowledged, customers=4)
    async with customers.ordering(4):
        await until_more(customers.acknowledged, 100)
        async with readers.reading():
            for _ in range(2):
                await readers.until_more()
                await asyncio.to_thread(stop_immediately, mortal_postgres)
                await readers.until_more(3, "history", "report", status=503)
                mortal_postgres.start()
                await until_more(customers.acknowledged, 100)
            await readers.until_more()
    in_time_or_late = {(200, ""), (503, "projection-lagging"), (503, "log-unavailable")}
    # The key of what an order says about a person is in PostgreSQL, too.
    of_orders = in_time_or_late | {(503, "subject-keys-unavailable")}
    assert readers.codes("order", "orders", "customer's orders") <= of_orders
    assert readers.codes("history") == {(200, ""), (503, "log-unavailable")}
    assert readers.codes("report") <= in_time_or_late | {(503, "read-model-unavailable")}
    await shop.assert_all_is_well(customers.acknowledged)


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


async def place_orders(commands: httpx.AsyncClient, count: int = 1) -> list[Acknowledgement]:
    """The acknowledgements, the last one last."""
    answers = await asyncio.gather(*(place(commands) for _ in range(count)))
    return sorted((answer.json() for answer in answers), key=lambda acknowledgement: int(acknowledgement["position"]))


async def read(shop: Shop, acknowledged: list[Acknowledgement]) -> list[httpx.Response]:
    """The order of each, with its token, at once or not at all."""
    async with httpx.AsyncClient(base_url=shop.query.url, timeout=40) as queries:
        return await asyncio.gather(
            *(
                queries.get(
                    f"/orders/{acknowledgement['aggregate_id']}",
                    headers={"Consistency-Token": acknowledgement["consistency_token"], "Prefer": "wait=0"},
                )
                for acknowledgement in acknowledged
            )
        )


async def deliver(commands: httpx.AsyncClient, acknowledgement: Acknowledgement) -> httpx.Response:
    return await commands.post(f"/orders/{acknowledgement['aggregate_id']}/delivery", json={})


@pytest.mark.promise("failures", "Read models ahead of a restored log are detected and built again")
async def test_read_models_ahead_of_a_restored_log_are_noticed_and_built_again(
    shop: Shop, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    await shop.start()
    async with httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands:
        kept = await place_orders(commands, 20)
        back_up(mortal_postgres, tmp_path / "backup")
        lost = await place_orders(commands, 20)
        await assert_each_can_be_read(shop.query.url, lost)

        restore(mortal_postgres, tmp_path / "backup")
        await shop.assert_read_models_equal_the_log()
        assert "ahead of the log, which was restored to an older state" in shop.projector.log.read_text()
        await assert_each_can_be_read(shop.query.url, kept)
        # The log has not come that far again.
        assert codes(await read(shop, lost)) == {(400, "token-beyond-log")}
        assert {(await deliver(commands, one)).status_code for one in lost} == {404}

        placed = await place_orders(commands)
    await shop.assert_all_is_well([*kept, *placed])


@pytest.mark.promise("failures", "Read models of a lost past are built again even when the log has grown beyond them")
async def test_read_models_of_another_past_are_built_again_though_the_log_has_grown_beyond_them(
    shop: Shop, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    await shop.start()
    async with httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands:
        kept = await place_orders(commands, 20)
        back_up(mortal_postgres, tmp_path / "backup")
        await assert_each_can_be_read(shop.query.url, await place_orders(commands, 5))
        await asyncio.to_thread(shop.projector.stop)

        restore(mortal_postgres, tmp_path / "backup")
        grown = await place_orders(commands, 50)
    await shop.start(shop.projector)
    await shop.assert_all_is_well([*kept, *grown])
    assert "the log has another past" in shop.projector.log.read_text()


@pytest.mark.promise("live-updates", "Streams of a log that was restored to an older state, or replaced, end")
async def test_streams_of_a_log_that_was_restored_to_an_older_state_end(
    shop: Shop, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    await shop.start()
    async with (
        httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands,
        httpx.AsyncClient(base_url=shop.query.url, timeout=30) as queries,
    ):
        [kept] = await place_orders(commands)
        path = f"/orders/{kept['aggregate_id']}"
        back_up(mortal_postgres, tmp_path / "backup")
        async with following(queries, f"{path}/events") as source:
            await source.until_it_began()
            lost = await commands.post(f"{path}/cancellation", json={"reason": "ordered twice"})
            await source.until(1)
            assert source.positions == [lost.json()["position"]]
            restore(mortal_postgres, tmp_path / "backup")
            await eventually(lambda: source.ended)
        ahead = await queries.get(f"{path}/events", headers={"Last-Event-ID": source.last_id})
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


@pytest.mark.promise("failures", "After a restore and `orders log new-id`, old tokens are refused for ever")
@pytest.mark.promise("failures", "After a restore and `orders log new-id`, no new acknowledgement is lost")
@pytest.mark.promise("failures", "After a restore and `orders log new-id`, the audit shows what happened")
async def test_after_a_restore_and_a_new_id_old_tokens_are_refused_for_ever_and_auditors_see_both(
    shop: Shop, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The services run all the time; only no customer orders between the restore and the new id."""
    key, public_key, seals = (tmp_path / name for name in ("key", "key.pub", "seals"))
    ask = partial(audit, mortal_postgres)
    await shop.start()
    async with httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands:
        assert (await ask("keygen", "--key", key, "--public-key", public_key))[0] == 0
        kept = await place_orders(commands, 20)
        back_up(mortal_postgres, tmp_path / "backup")
        lost = await place_orders(commands, 5)
        await assert_each_can_be_read(shop.query.url, lost)
        assert (await ask("seal", "--key", key, "--seals", seals))[0] == 0

        restore(mortal_postgres, tmp_path / "backup")
        old, new = await give_new_id(mortal_postgres)
        [first] = await place_orders(commands)
        assert ConsistencyToken.decode(first["consistency_token"]) == ConsistencyToken(UUID(new), 21)
        await assert_each_can_be_read(shop.query.url, [first])
        await assert_refused(shop, [*kept, *lost], log_id=old)

        grown = await place_orders(commands, 10)  # beyond what was lost
        await assert_each_can_be_read(shop.query.url, grown)
        await assert_refused(shop, [*kept, *lost], log_id=old)
        assert {(await deliver(commands, one)).status_code for one in lost} == {404}
    await shop.assert_read_models_equal_the_log()
    assert f"it belongs to log {old}, this is {new}" in shop.projector.log.read_text()
    acknowledged = [*kept, first, *grown]
    await assert_the_log_holds_each_once(mortal_postgres.url, acknowledged, and_nothing_else=True)

    change = f"{new} after position 20, given at "
    code, said = await ask("verify")
    assert (code, f"new id    {change}" in said) == (0, True)
    code, said = await ask("verify", "--seals", seals, "--public-key", public_key)
    assert code == 1
    assert said.startswith("position 21: truncated tail: the seal on line 1 is for position 25, but the log became ")
    assert f"{change}" in said
    assert "'disk failed, backup of noon'" in said


async def assert_refused(shop: Shop, acknowledged: list[Acknowledgement], log_id: str) -> None:
    answers = await read(shop, acknowledged)
    assert codes(answers) == {(400, "unknown-log")}
    assert {answer.json()["log_id"] for answer in answers} == {log_id}
