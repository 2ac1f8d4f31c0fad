"""While a read model is an emergency behind, the command service admits fewer commands, and says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import TypeAlias

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_service.throttle import LEAST_SHARE, Throttle, Throttled, share_of
from shared.eventstore import log as event_log
from shared.read_models import progress
from shared.read_models.keys import Checkpoint
from shared.read_models.lag import EMERGENCY_SECONDS
from shared.read_models.progress import ReadModelLag, read_behind
from shared.settings import Settings
from tests.command_service.test_operations import samples
from tests.given_when_then import problem
from tests.orders import new_order_id, order_body, placed
from tests.recording import Recorder, make_older
from tests.roles import settings_of
from tests.running import eventually, free_ports, running_command_service, running_projector

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@given(st.floats(0, 10 * EMERGENCY_SECONDS))
def test_all_are_admitted_up_to_an_emergency_and_fewer_the_longer_it_lasts(lag: float) -> None:
    share = share_of(lag)
    assert LEAST_SHARE <= share <= 1
    assert (share == 1) == (lag <= EMERGENCY_SECONDS)
    assert share_of(2 * lag) <= share


def test_half_are_admitted_at_twice_an_emergency_and_some_however_long_it_lasts() -> None:
    assert share_of(2 * EMERGENCY_SECONDS) == 0.5
    assert share_of(float("inf")) == LEAST_SHARE


async def away() -> list[ReadModelLag]:
    raise ConnectionRefusedError


def throttle() -> Throttle:
    return Throttle(away)


def admitted(throttle: Throttle) -> bool:
    try:
        throttle.admit()
    except Throttled:
        return False
    return True


@pytest.mark.promise(
    "overload", "A throttled service admits its share of the commands and tells the other clients when to retry"
)
@given(st.lists(st.floats(EMERGENCY_SECONDS * 1.001, 100 * EMERGENCY_SECONDS), min_size=1, max_size=300))
def test_of_any_run_of_commands_as_many_are_admitted_as_the_share_says(lags: list[float]) -> None:
    throttled = throttle()
    passed = 0
    for lag in lags:
        throttled.set([ReadModelLag("orders", lag)])
        passed += admitted(throttled)
    assert abs(passed - sum(map(share_of, lags))) <= 1


def test_who_comes_again_every_time_gets_through() -> None:
    throttled = throttle()
    throttled.set([ReadModelLag("orders", 1e9)])
    assert any(admitted(throttled) for _ in range(round(1 / LEAST_SHARE) + 1))


@pytest.fixture
async def minute_old_event(connection: Connection) -> Connection:
    await Recorder(connection).record(new_order_id(), placed())
    await make_older(connection, 62)
    return connection


async def report(connection: Connection, position: int, ready_at: int = 0, projection: str = "orders") -> None:
    """Says where the read model is, as its projector would."""
    log_id = (await event_log.read_head(connection)).log_id
    await progress.report(connection, projection, Checkpoint(log_id, position, ready_at, 1))


@pytest.fixture
async def throttled(minute_old_event: Connection, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A command service, while the orders are a minute behind."""
    await report(minute_old_event, 0)
    async with running_command_service(settings) as url, httpx.AsyncClient(base_url=url) as client:
        await eventually(lambda: refused(client))
        yield client


async def refused(client: httpx.AsyncClient) -> bool:
    return (await place(client)).status_code == 503


async def place(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/orders", json=order_body())


@pytest.mark.promise(
    "overload", "A throttled service admits its share of the commands and tells the other clients when to retry"
)
async def test_a_share_is_admitted_and_the_others_are_told_when_to_come_again(throttled: httpx.AsyncClient) -> None:
    before = samples((await throttled.get("/metrics")).text)
    answers = [await place(throttled) for _ in range(20)]

    refusals = [answer for answer in answers if answer.status_code != 201]
    assert 9 <= len(refusals) <= 12  # of a little more than a minute, half a minute is a little less than half
    for answer in refusals:
        body = problem(answer, 503, "throttled")
        assert answer.headers["retry-after"] == "3"  # a little more than 2 s
        assert body["projection"] == "orders"
        assert 60_000 <= body["lag_ms"] < 90_000
        assert 0.3 < body["share"] < 0.5
    after = samples((await throttled.get("/metrics")).text)
    name = "orders_throttled_commands_total"
    assert after[name] - before[name] == len(refusals)
    assert 0.5 < after["orders_throttled_share"] < 0.7


@pytest.mark.promise("overload", "A command that is throttled has no effect, and no key is made to seal it with")
async def test_nothing_is_made_for_a_command_that_is_throttled(
    throttled: httpx.AsyncClient, minute_old_event: Connection
) -> None:
    bodies = [order_body(customer_id=f"c{number}", note="A note about a person") for number in range(20)]
    answers = [await throttled.post("/orders", json=body) for body in bodies]
    placed_by = {f"customer-c{number}" for number, answer in enumerate(answers) if answer.status_code == 201}
    assert 0 < len(placed_by) < len(answers)
    assert {row["subject"] for row in await minute_old_event.fetch("select subject from subject_keys")} == placed_by


async def test_only_commands_are_throttled(throttled: httpx.AsyncClient) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
        for _ in range(3):
            assert (await throttled.get(path)).status_code == 200


async def test_it_ends_when_the_read_model_has_caught_up(
    throttled: httpx.AsyncClient, minute_old_event: Connection
) -> None:
    head = (await event_log.read_head(minute_old_event)).position
    await report(minute_old_event, head)

    async def none_refused() -> bool:
        return not any([await refused(throttled) for _ in range(3)])

    await eventually(none_refused)
    assert samples((await throttled.get("/metrics")).text)["orders_throttled_share"] == 0


@pytest.mark.parametrize("why", ["no projector ever reported", "being built anew", "another read model"])
async def test_nobody_is_throttled_for_a_read_model_that_is(
    why: str, minute_old_event: Connection, settings: Settings
) -> None:
    match why:
        case "being built anew":
            await report(minute_old_event, 0, ready_at=1)
        case "another read model":
            await report(minute_old_event, 0, projection="revenue_by_day")
    connection = await asyncpg.connect(settings_of(settings, "orders_command").database_url.get_secret_value())
    watching = Throttle(partial(read_behind, connection, ["orders"]))
    watching.set([ReadModelLag("orders", 60)])  # until it has asked
    watching.start()
    await eventually(lambda: not watching.active)
    await watching.stop()
    await connection.close()


async def test_a_setting_turns_it_off(throttled: httpx.AsyncClient, settings: Settings) -> None:
    (port,) = free_ports(1)
    off = settings.model_copy(update={"throttle_for": "", "command_port": port})
    async with running_command_service(off) as url, httpx.AsyncClient(base_url=url) as client:
        await eventually(lambda: refused(throttled))
        assert not any([await refused(client) for _ in range(5)])


async def test_while_postgresql_cannot_be_asked_what_was_known_holds() -> None:
    asked = 0

    async def ask() -> list[ReadModelLag]:
        nonlocal asked
        asked += 1
        raise ConnectionRefusedError

    watching = Throttle(ask)
    watching.set([ReadModelLag("orders", 60)])
    watching.start()
    await eventually(lambda: asked)
    assert watching.active
    await watching.stop()


@pytest.mark.promise(
    "overload", "A read model more than 30 s behind throttles commands, also when its projector is gone"
)
async def test_a_projector_that_is_gone_throttles_as_its_lag_grows(settings: Settings, connection: Connection) -> None:
    async with running_command_service(settings) as url, httpx.AsyncClient(base_url=url) as client:
        async with running_projector(settings):
            for _ in range(3):
                assert (await place(client)).status_code == 201
            head = (await event_log.read_head(connection)).position
            reported = "select position from projection_progress where projection = 'orders'"
            await eventually(lambda: _is(connection, reported, head))
        assert (await place(client)).status_code == 201
        await make_older(connection, 62)
        await eventually(lambda: refused(client))


async def _is(connection: Connection, query: str, value: int) -> bool:
    return bool(await connection.fetchval(query) == value)
