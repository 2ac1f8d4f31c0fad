"""The bounded queue in front of the log, and what clients are told when the log is slow, cut off or away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TypeAlias
from urllib.parse import urlsplit

import asyncpg
import httpx
import psutil
import pytest
import pytest_asyncio

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_server import port_is_free
from command_service import append_queue
from shared.eventstore import log as event_log
from shared.migrations import migrate
from shared.settings import Settings
from tests.command_service.test_operations import samples
from tests.faults import shop as faults
from tests.faults.proxy import FaultProxy
from tests.faults.shop import Process
from tests.given_when_then import events_of, problem, stored
from tests.orders import order_body, placed
from tests.roles import PASSWORDS
from tests.running import eventually, free_ports, fresh_database, running_command_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_REDIS = "redis://127.0.0.1:1/0"
WAITS_FOR_THE_LOCK = (
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
)
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass
class Shop:
    """A command service of the test's own, its log, and a second connection that can lock the log."""

    settings: Settings
    client: httpx.AsyncClient
    connection: Connection
    rival: Connection

    async def place(self, order_id: str | None = None, key: str | None = None) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        body = order_body(order_id=order_id) if order_id else order_body()
        return await self.client.post("/orders", json=body, headers=headers)

    @asynccontextmanager
    async def log_locked(self) -> AsyncIterator[None]:
        """No session can append in the meantime."""
        async with self.rival.transaction():
            await self.rival.execute("select from log_head for update")
            yield

    async def group_commit_waits_for_the_lock(self) -> None:
        await eventually(lambda: self.connection.fetchval(WAITS_FOR_THE_LOCK))

    async def cut_connections(self) -> None:
        """As an administrator does it; returns when the server has let go of them."""
        query = (
            "select pid, pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'orders-%'"
        )
        pids = [row["pid"] for row in await self.connection.fetch(query)]
        assert pids
        await eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))

    async def queued(self, commands: int) -> None:
        """Returns once so many wait in the queue."""

        async def there() -> bool:
            return samples((await self.client.get("/metrics")).text)["orders_append_queue_commands"] == commands

        await eventually(there)

    async def log(self) -> list[event_log.StoredEvent]:
        return [event async for event in event_log.read_all(self.connection)]


@asynccontextmanager
async def running_shop(database_url: str, through: str | None = None, **changes: object) -> AsyncIterator[Shop]:
    """`through` is the address by which the service reaches the database, where that is another."""
    settings = settings_for(through or database_url, NO_REDIS, **changes)
    connection, rival = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    url, as_many_as_wanted = f"http://127.0.0.1:{settings.command_port}", httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=url, timeout=30, limits=as_many_as_wanted) as client,
        running_command_service(settings),
    ):
        yield Shop(settings, client, connection, rival)
    connection.terminate()
    rival.terminate()


@pytest_asyncio.fixture(loop_scope="module")
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    async with fresh_database(postgres.url) as url:
        yield url


class TestTheQueue:
    @pytest.mark.promise("commands", "The append queue is bounded, and a refusal says when to retry")
    @pytest.mark.parametrize(
        ("admission", "size", "refusal"),
        [  # one client gets half of what is admitted
            (0.03, 10, "More commands arrive than can be answered in time"),
            (0.0, 5, "5 commands are waiting to be appended"),
        ],
        ids=["by admission, at the door", "by the queue itself, without admission"],
    )
    @pytest.mark.bound("command", "commands in progress")
    async def test_is_bounded_and_says_when_to_come_back(
        self, database: str, admission: float, size: int, refusal: str
    ) -> None:
        async with running_shop(database, append_queue_size=size, admission_delay_seconds=admission) as shop:
            async with shop.log_locked():
                first = asyncio.create_task(shop.place())
                await shop.group_commit_waits_for_the_lock()
                more = [asyncio.create_task(shop.place()) for _ in range(20)]
                await eventually(lambda: sum(task.done() for task in more) == 15)
                for refused in [task.result() for task in more if task.done()]:
                    assert refusal in problem(refused, 503, "overloaded")["detail"]
            accepted = [answer for answer in await asyncio.gather(first, *more) if answer.status_code == 201]
            assert len(accepted) == 6
            assert len(await shop.log()) == 6

    @pytest.mark.bound("command", "append queue")
    @pytest.mark.bound("command", "one group commit")
    async def test_is_bounded_in_bytes_as_well(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(append_queue, "_QUEUE_BYTES", 20_000)
        monkeypatch.setattr(append_queue, "_GROUP_BYTES", 5_000)
        body = order_body(items=[{"product_id": "P", "product_name": "N" * 190, "quantity": 1, "unit_price": 1}] * 5)
        async with running_shop(database, admission_delay_seconds=0.0) as shop:
            before = samples((await shop.client.get("/metrics")).text)
            async with shop.log_locked():
                first = asyncio.create_task(shop.place())
                await shop.group_commit_waits_for_the_lock()
                more = [asyncio.create_task(shop.client.post("/orders", json=body)) for _ in range(60)]
                await eventually(lambda: sum(task.done() for task in more) > 30)
                for refused in [task.result() for task in more if task.done()]:
                    problem(refused, 503, "overloaded")
            accepted = [answer for answer in await asyncio.gather(first, *more) if answer.status_code == 201]
            assert 10 < len(accepted) < 30
            after = samples((await shop.client.get("/metrics")).text)
            groups = "orders_append_group_commands_count"
            assert after[groups] - before[groups] >= 4

    async def test_is_shown_while_it_grows(self, database: str) -> None:
        async with running_shop(database) as shop:
            async with shop.log_locked():
                first = asyncio.create_task(shop.place())
                await shop.group_commit_waits_for_the_lock()
                more = [asyncio.create_task(shop.place()) for _ in range(7)]
                await shop.queued(7)
            await asyncio.gather(first, *more)
            await shop.queued(0)

    async def test_becomes_groups_that_share_one_append(self, database: str) -> None:
        async with running_shop(database) as shop:
            await shop.place()
            before = samples((await shop.client.get("/metrics")).text)
            async with shop.log_locked():
                first = asyncio.create_task(shop.place())
                await shop.group_commit_waits_for_the_lock()
                more = [asyncio.create_task(shop.place()) for _ in range(100)]
                await shop.queued(100)
            answers = await asyncio.gather(first, *more)
            assert {answer.status_code for answer in answers} == {201}
            after = samples((await shop.client.get("/metrics")).text)
            grown = {
                name: after[f"orders_append_group_commands_{name}"] - before[f"orders_append_group_commands_{name}"]
                for name in ("count", "sum")
            }
            assert grown == {"count": 2, "sum": 101}
            assert len({event.recorded_at for event in (await shop.log())[2:]}) == 1, "one append, one time"

    async def test_never_puts_one_key_into_a_group_twice(self, database: str) -> None:
        async with running_shop(database) as shop:
            async with shop.log_locked():
                first = asyncio.create_task(shop.place())
                await shop.group_commit_waits_for_the_lock()
                same = [asyncio.create_task(shop.place(key="key")) for _ in range(10)]
                await shop.queued(10)
            answers = await asyncio.gather(*same)
            assert {answer.status_code for answer in answers} == {201}
            assert len({answer.content for answer in answers}) == 1
            assert (await first).status_code == 201
            assert len(await shop.log()) == 2

    @pytest.mark.promise("commands", "No command waits longer than the configured limit")
    async def test_lets_no_command_wait_longer_than_promised(self, database: str) -> None:
        bounds = {"append_wait_seconds": 0.3, "append_timeout_seconds": 0.6}
        async with running_shop(database, None, append_group_size=1, **bounds) as shop, shop.log_locked():
            started = monotonic()
            answers = await asyncio.gather(*[shop.place() for _ in range(8)])
            assert monotonic() - started < 2.5
            assert sorted(answer.status_code for answer in answers) == [503] * 7 + [504]

    async def test_of_one_order_lets_no_command_wait_longer_than_promised(self, database: str) -> None:
        bounds = {"append_wait_seconds": 0.3, "append_timeout_seconds": 0.6}
        async with running_shop(database, None, **bounds) as shop:
            await shop.place("hot")
            move = {"shipping_address_id": "office"}
            async with shop.log_locked():
                started = monotonic()
                answers = await asyncio.gather(
                    *[shop.client.put("/orders/hot/shipping-address", json=move) for _ in range(8)]
                )
                assert monotonic() - started < 2.5
                assert {answer.status_code for answer in answers} == {503, 504}


class TestAConnectionThatIsLost:
    async def test_while_idle_is_made_anew_unnoticed(self, database: str) -> None:
        async with running_shop(database) as shop:
            await shop.place("before")
            await shop.client.post("/orders/before/delivery", json={})
            await shop.cut_connections()
            assert (await shop.place("after")).status_code == 201
            assert (await shop.client.post("/orders/before/delivery", json={})).status_code == 409
            assert (await shop.client.get("/readyz")).status_code == 200

    async def test_during_an_append_leaves_the_outcome_unknown_and_the_key_tells_it(self, database: str) -> None:
        async with running_shop(database) as shop:
            async with shop.log_locked():
                cut = asyncio.create_task(shop.place("1", key="key"))
                await shop.group_commit_waits_for_the_lock()
                await shop.cut_connections()
                body = problem(await cut, 504, "outcome-unknown")
                assert "Idempotency-Key" in body["detail"]
                assert body["command_id"]
            answer = await shop.place("1", key="key")
            assert answer.status_code == 201
            assert "idempotent-replayed" not in answer.headers, "it had not taken effect"
            assert await events_of(shop.connection, "1") == [placed()]

    @pytest.mark.promise(
        "commands", "An unknown outcome is never reported as success; a retry with the same key tells the outcome"
    )
    async def test_after_the_commit_leaves_the_outcome_unknown_and_the_key_tells_it(self, database: str) -> None:
        address = urlsplit(database)
        assert address.port is not None
        proxy = FaultProxy(address.port)
        through = address._replace(netloc=f"{address.username}:{address.password}@127.0.0.1:{proxy.port}").geturl()
        async with proxy, running_shop(database, through) as shop:
            await shop.place("0")
            proxy.cut_answer_to(b"the-key")
            problem(await shop.place("1", key="the-key"), 504, "outcome-unknown")
            [event] = await stored(shop.connection, "1")
            answer = await shop.place("1", key="the-key")
            assert (answer.status_code, answer.headers["idempotent-replayed"]) == (201, "true")
            assert answer.json()["position"] == event.position
            assert len(await stored(shop.connection, "1")) == 1

    async def test_by_a_log_too_slow_leaves_the_outcome_unknown_and_the_key_tells_it(self, database: str) -> None:
        async with running_shop(database, append_timeout_seconds=0.3) as shop:
            async with shop.log_locked():
                problem(await shop.place("1", key="key"), 504, "outcome-unknown")
            answer = await shop.place("1", key="key")
            assert answer.status_code == 201
            assert await events_of(shop.connection, "1") == [placed()]

    async def test_because_the_database_takes_none_is_said_so_and_made_anew(
        self, database: str, postgres: EmbeddedPostgres
    ) -> None:
        server = await asyncpg.connect(postgres.url)
        name = urlsplit(database).path.removeprefix("/")
        async with running_shop(database, append_wait_seconds=0.3) as shop:
            await shop.place("1")
            await server.execute(f"alter database {name} allow_connections false")
            await shop.cut_connections()
            problem(await shop.place(), 503, "log-unavailable")
            problem(await shop.client.post("/orders/1/delivery", json={}), 503, "log-unavailable")
            problem(await shop.client.get("/readyz"), 503, "not-ready")
            await server.execute(f"alter database {name} allow_connections true")
            assert (await shop.place()).status_code == 201
            assert (await shop.client.get("/readyz")).status_code == 200
        await server.close()


@pytest.fixture(scope="module")
def mortal_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, to be killed."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("mortal") / "postgres", flush_initial_files=False) as server:
        yield server


@pytest.mark.subprocess
class TestPostgresAway:
    async def test_is_said_in_time_and_its_return_needs_no_restart(self, mortal_postgres: EmbeddedPostgres) -> None:
        url = mortal_postgres.url
        await migrate(url, PASSWORDS)
        async with running_shop(url, append_wait_seconds=0.5) as shop:
            await shop.place("1", key="key")
            mortal_postgres.kill()
            started = monotonic()
            answers = await asyncio.gather(
                *[shop.place() for _ in range(20)],
                *[shop.client.put("/orders/1/shipping-address", json={"shipping_address_id": "x"}) for _ in range(20)],
                shop.client.post("/orders/2/delivery", json={}),
                shop.client.post("/orders/1/delivery", json={}, headers={"Idempotency-Key": "other"}),
            )
            assert monotonic() - started < 3
            for answer in answers:
                problem(answer, 503, "overloaded" if "overloaded" in answer.text else "log-unavailable")
            assert sum("log-unavailable" in answer.text for answer in answers) > 20
            problem(await shop.client.get("/readyz"), 503, "not-ready")
            assert (await shop.client.get("/livez")).status_code == 200

            waiting = asyncio.create_task(shop.place())
            await asyncio.to_thread(mortal_postgres.start)
            await waiting
            await eventually(lambda: is_ready(shop))
            assert (await shop.place()).status_code == 201
            assert (await shop.place("1", key="key")).headers["idempotent-replayed"] == "true"


async def is_ready(shop: Shop) -> bool:
    return (await shop.client.get("/readyz")).status_code == 200


class TestADefect:
    async def test_of_group_commit_leaves_no_command_waiting(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object) -> None:
            raise ZeroDivisionError

        async with running_shop(database, append_group_size=1) as shop:
            await shop.place()
            monkeypatch.setattr(event_log, "append_group", fail)
            answers = await asyncio.gather(*[shop.place() for _ in range(3)])
            assert sorted(answer.json()["code"] for answer in answers) == ["outcome-unknown", *["shutting-down"] * 2]
            monkeypatch.undo()
            problem(await shop.place(), 503, "shutting-down")
            problem(await shop.client.get("/readyz"), 503, "not-ready")


@pytest_asyncio.fixture(loop_scope="module")
async def process(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Process]:
    """`orders run command`, ready."""
    patient = {"APPEND_WAIT_SECONDS": "10", "APPEND_TIMEOUT_SECONDS": "10"}
    shop = faults.Shop(tmp_path, faults.Servers(database, NO_REDIS), **{**patient, **getattr(request, "param", {})})
    await shop.start(shop.command)
    yield shop.command
    shop.close()


@asynccontextmanager
async def rival_of(database: str) -> AsyncIterator[Connection]:
    rival = await asyncpg.connect(database)
    yield rival
    await rival.close()


class TestStopping:
    @pytest.mark.promise("commands", "A stopping service finishes the commands that it accepted")
    async def test_finishes_what_was_accepted(self, database: str, process: Process) -> None:
        """The real process, told to stop while orders arrive: it places each one that it read, and no other. One of
        which it had read a part is refused."""
        answers: list[httpx.Response] = []

        async def keep_ordering(client: httpx.AsyncClient) -> None:
            with suppress(httpx.TransportError):  # the service is gone
                while True:
                    answers.append(await client.post("/orders", json=order_body()))

        async with rival_of(database) as rival, httpx.AsyncClient(base_url=process.url, timeout=30) as client:
            ordering = [asyncio.create_task(keep_ordering(client)) for _ in range(20)]
            await eventually(lambda: len(answers) >= 200)
            async with rival.transaction():
                await rival.execute("select from log_head for update")
                process.request_stop()
                await eventually(lambda: "Waiting for connections to close" in process.log.read_text())
                assert port_is_free(process.port)
                before = len(answers)
            await asyncio.gather(*ordering)
            assert await process.until_it_ends() == 0
            log = [event.stream_id async for event in event_log.read_all(rival)]
        placed = [answer for answer in answers if answer.status_code == httpx.codes.CREATED]
        assert {answer.json()["code"] for answer in answers if answer not in placed} <= {"shutting-down"}
        assert len(placed) > before, "some were in progress when it was told to stop"
        assert sorted(log) == sorted(f"order-{answer.json()['aggregate_id']}" for answer in placed)

    @pytest.mark.promise("commands", "A stopping service whose log hangs ends in time and reports unknown outcomes")
    @pytest.mark.parametrize("process", [{"SHUTDOWN_SECONDS": "1", "APPEND_TIMEOUT_SECONDS": "2"}], indirect=True)
    async def test_by_a_log_that_hangs_is_not_held_up_and_still_answers(self, database: str, process: Process) -> None:
        async with rival_of(database) as rival, httpx.AsyncClient(base_url=process.url, timeout=30) as client:
            async with rival.transaction():
                await rival.execute("select from log_head for update")
                placing = [asyncio.create_task(client.post("/orders", json=order_body())) for _ in range(20)]
                async with rival_of(database) as watcher:
                    await eventually(lambda: watcher.fetchval(WAITS_FOR_THE_LOCK))
                started = monotonic()
                process.request_stop()
                assert await process.until_it_ends() == 0
                assert monotonic() - started < 1 + 2 + 4
            for answer in await asyncio.gather(*placing):  # the log may still take them, once it goes on
                problem(answer, 504, "outcome-unknown")

    async def test_without_postgres_does_not_wait_for_it(self, database: str) -> None:
        [closed_port] = free_ports(1)
        away = urlsplit(database)._replace(netloc=f"orders:orders@127.0.0.1:{closed_port}").geturl()
        started = monotonic()
        async with running_shop(database, away, append_wait_seconds=1) as shop:
            placing = asyncio.create_task(shop.place())
            await shop.queued(1)
        assert monotonic() - started < 5
        problem(await placing, 503, "log-unavailable")
