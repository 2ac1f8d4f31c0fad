"""The runner of processes on a real log, with gateways that decline, fail and lose answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from time import monotonic
from typing import Any, get_args
from unittest.mock import patch

import asyncpg
import msgspec
import pytest
import structlog

from command_service.app import create_group_commit, create_handler
from command_service.decision import CommandMetadata
from command_service.domain.order import CancelOrder, PlaceOrder
from command_service.gateways.carrier import CarrierEffect
from command_service.gateways.gateway import Gateway, GatewayUnavailable
from command_service.gateways.payment import PaymentEffect
from command_service.handler import Handler
from command_service.processes import app as process_app
from command_service.processes import dispatcher
from command_service.processes.fulfilment import FULFILMENT, reactions
from command_service.processes.fulfilment.state import Timer
from command_service.processes.interventions import RetryProcess
from command_service.processes.runner import ProcessRunner
from shared.aggregates.order import OrderLine
from shared.aggregates.process import PROCESS, Process
from shared.eventstore.snapshots import Snapshots
from shared.eventstore.store import PostgresEventStore
from shared.http.operations import NotReady
from shared.settings import Settings
from tests.roles import settings_of
from tests.running import eventually
from tests.simulation.providers import Carrier, Chances, PaymentProvider, Provider

SOON = timedelta(milliseconds=50)
WELL = Chances(0, 0, 0, 0, 0, 0, 0)
FAILING = Chances(unavailable=0.2, unknown=0.3, declined=0, review=0, out_of_stock=0.2, split=0.2, lost=0)
AWAY = WELL._replace(unavailable=1)


def _anything(_effect_id: str, _effect: Any) -> None:
    """Is carried out."""


class Fulfilments:
    """A log, its commands, and providers; runners come and go."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool[asyncpg.Record], handler: Handler) -> None:
        self.settings = settings
        self.pool = pool
        self.handler = handler
        self.payments, self.carrier = PaymentProvider(Random(1), WELL, _anything), Carrier(Random(2), WELL, _anything)
        self.snapshots = Snapshots(PostgresEventStore(pool), None)

    async def place(self, *order_ids: str) -> None:
        line = OrderLine("MUG", 2, 500)
        await asyncio.gather(*(self.give(PlaceOrder(one, "ann", "GBP", (line,), "home")) for one in order_ids))

    async def give(self, command: Any) -> None:
        await self.handler.handle(command, CommandMetadata("test"))

    @asynccontextmanager
    async def running(self, fulfilment: str = "orchestrated") -> AsyncIterator[ProcessRunner]:
        """A runner, with the rights that it has in production."""
        gateways: dict[type[Any], Gateway] = dict.fromkeys(get_args(PaymentEffect), self.payments)
        gateways.update(dict.fromkeys(get_args(CarrierEffect), self.carrier))
        settings = settings_of(self.settings, "orders_command").model_copy(update={"fulfilment": fulfilment})
        async with process_app.running(settings, gateways) as runner:
            await eventually(lambda: is_ready(runner))
            yield runner

    async def process(self, order_id: str, kind: str = "fulfilment") -> Process | None:
        loaded = await self.snapshots.load(PROCESS, PROCESS.stream_of(f"{kind}-{order_id}"))
        state: Process | None = loaded.state
        return state

    async def ends(self, outcome: str, *order_ids: str, kind: str = "fulfilment", seconds: float = 20) -> None:
        for order_id in order_ids:

            async def ended(order_id: str = order_id) -> bool:
                process = await self.process(order_id, kind)
                return process is not None and process.outcome == outcome

            await eventually(ended, seconds)

    async def stuck(self, order_id: str) -> str:
        """Why."""
        reasons = []

        async def is_stuck() -> bool:
            process = await self.process(order_id)
            reasons.append(process.stuck if process is not None else None)
            return reasons[-1] is not None

        await eventually(is_stuck)
        return str(reasons[-1])

    async def count(self, event_type: str) -> int:
        return int(await self.pool.fetchval("select count(*) from events where event_type = $1", event_type))


async def is_ready(runner: ProcessRunner) -> bool:
    try:
        await runner.ready()
    except NotReady:
        return False
    return True


@pytest.fixture
async def fulfilments(settings: Settings) -> AsyncIterator[Fulfilments]:
    after = dict.fromkeys(reactions.AFTER, timedelta(hours=1)) | dict.fromkeys((Timer.TRACK, Timer.RESTOCK), SOON)
    monitor, group_commit = create_group_commit(settings)
    group_commit.start()
    async with asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=4) as pool:
        store = PostgresEventStore(pool)
        handler = create_handler(settings, store, Snapshots(store, None), group_commit)
        with patch.object(reactions, "AFTER", after), patch.object(dispatcher, "LAST_RETRY_SECONDS", 0.05):
            yield Fulfilments(settings, pool, handler)
        await handler.close()
        await group_commit.stop()
        await monitor.close()


@pytest.mark.parametrize("fulfilment", ["orchestrated", "choreographed"])
async def test_orders_are_delivered_whichever_answers_are_lost(fulfilments: Fulfilments, fulfilment: str) -> None:
    fulfilments.payments.chances = fulfilments.carrier.chances = FAILING
    orders = [f"order-{number}" for number in range(10)]
    kinds = ["fulfilment"] if fulfilment == "orchestrated" else ["order_payment", "order_shipping"]
    async with fulfilments.running(fulfilment):
        await fulfilments.place(*orders)
        for kind in kinds:
            await fulfilments.ends("delivered", *orders, kind=kind)

    assert [fulfilments.payments.kept(order_id) for order_id in orders] == [1000] * 10


async def test_a_runner_goes_on_where_another_stopped(fulfilments: Fulfilments) -> None:
    fulfilments.payments.chances = AWAY
    async with fulfilments.running():
        await fulfilments.place("first")

        async def waits() -> bool:
            process = await fulfilments.process("first")
            return process is not None and bool(process.effects)

        await eventually(waits)
    await fulfilments.place("second")
    fulfilments.payments.chances = WELL

    async with fulfilments.running():
        await fulfilments.ends("delivered", "first", "second")


async def test_orders_that_were_placed_before_the_first_runner_are_left_alone(fulfilments: Fulfilments) -> None:
    await fulfilments.place("by hand")
    async with fulfilments.running():
        await fulfilments.place("next")
        await fulfilments.ends("delivered", "next")

    assert await fulfilments.process("by hand") is None


async def test_after_a_restore_the_log_says_what_processes_wait_for(fulfilments: Fulfilments) -> None:
    await fulfilments.place("by hand")
    fulfilments.payments.chances = AWAY
    async with fulfilments.running():
        await fulfilments.place("begun")
        await eventually(lambda: fulfilments.process("begun"))
    await fulfilments.place("placed since")
    await fulfilments.pool.execute("delete from process_progress")  # a backup does not have them
    await fulfilments.pool.execute("delete from process_waiting")
    fulfilments.payments.chances = WELL

    async with fulfilments.running():
        await fulfilments.ends("delivered", "begun", "placed since")

    assert await fulfilments.process("by hand") is None


async def test_two_runners_do_everything_once(fulfilments: Fulfilments) -> None:
    async with fulfilments.running() as one, fulfilments.running() as other:
        orders = [f"order-{number}" for number in range(5)]
        await fulfilments.place(*orders)
        await fulfilments.give(CancelOrder("order-0", "changed my mind"))
        await fulfilments.ends("delivered", *orders[1:])
        await fulfilments.ends("cancelled", "order-0")
        await one.ready()
        await other.ready()


async def test_an_order_ends_in_the_form_of_fulfilment_that_it_began_in(fulfilments: Fulfilments) -> None:
    fulfilments.payments.chances = AWAY
    async with fulfilments.running("orchestrated"):
        await fulfilments.place("before")
        await eventually(lambda: fulfilments.process("before"))
    await fulfilments.pool.execute("update process_progress set received = 0")  # as if it was killed before it saved
    fulfilments.payments.chances = WELL

    async with fulfilments.running("choreographed"):
        await fulfilments.place("after")
        await fulfilments.ends("delivered", "after", kind="order_shipping")
        await fulfilments.ends("delivered", "before")

    assert await fulfilments.process("before", "order_payment") is None
    assert await fulfilments.process("after") is None


# --- timers --------------------------------------------------------------------------------------------------------


@pytest.mark.promise("processes", "A timer fires once, within a second of being due, also after a standstill")
async def test_a_timer_that_fell_due_during_a_standstill_fires_once(fulfilments: Fulfilments) -> None:
    fulfilments.payments.chances = AWAY
    with patch.dict(reactions.AFTER, {Timer.PAYMENT: timedelta(seconds=1)}):
        async with fulfilments.running():
            await fulfilments.place("1")
            await eventually(lambda: fulfilments.process("1"))
        process = await fulfilments.process("1")
        assert process is not None
        due_at = process.timers[Timer.PAYMENT]
        await eventually(lambda: datetime.now(UTC) > due_at)
        began = monotonic()

        async with fulfilments.running(), fulfilments.running():

            async def has_fired() -> bool:
                return await fulfilments.count("TimerFired") > 0

            await eventually(has_fired)
            assert monotonic() - began < 2  # to start, and one second
            fulfilments.payments.chances = WELL
            await fulfilments.ends("cancelled", "1")

    assert await fulfilments.count("TimerFired") == 1


async def test_a_timer_fires_within_a_second_of_being_due(fulfilments: Fulfilments) -> None:
    fulfilments.payments.chances = AWAY
    with patch.dict(reactions.AFTER, {Timer.PAYMENT: timedelta(seconds=1)}):
        async with fulfilments.running():
            await fulfilments.place("1")

            async def has_fired() -> bool:
                return await fulfilments.count("TimerFired") > 0

            await eventually(has_fired)
    rows = await fulfilments.pool.fetch(
        "select event_type, data, recorded_at from events where event_type in ('TimerSet', 'TimerFired') order by 3"
    )
    due_at = datetime.fromisoformat(msgspec.json.decode(rows[0]["data"])["due_at"])
    assert timedelta(0) <= rows[-1]["recorded_at"] - due_at < timedelta(seconds=1)


# --- defects -------------------------------------------------------------------------------------------------------


class _Partly(PaymentProvider):
    """Raises for the orders called unlucky."""

    error: Exception = GatewayUnavailable(retry_after=0)

    async def carry_out(self, effect_id: str, effect: Any) -> Any:
        if "unlucky" in effect_id:
            raise self.error
        return await super().carry_out(effect_id, effect)


async def _is_stuck_alone(fulfilments: Fulfilments) -> str:
    async with fulfilments.running():
        await fulfilments.place("unlucky", "lucky")
        await fulfilments.ends("delivered", "lucky")
        return await fulfilments.stuck("unlucky")


async def test_an_effect_that_gets_no_answer_leaves_its_process_stuck_and_no_other(fulfilments: Fulfilments) -> None:
    fulfilments.payments = _Partly(Random(1), WELL, _anything)
    with patch.object(dispatcher, "MAX_ATTEMPTS", 3):
        reason = await _is_stuck_alone(fulfilments)

    assert "fulfilment-unlucky-1 has no answer" in reason
    assert "GatewayUnavailable" in reason


async def test_a_gateway_with_a_defect_leaves_the_process_stuck_until_it_is_retried(fulfilments: Fulfilments) -> None:
    fulfilments.payments = _Partly(Random(1), WELL, _anything)
    fulfilments.payments.error = KeyError("amount")
    reason = await _is_stuck_alone(fulfilments)
    assert "KeyError('amount')" in reason

    fulfilments.payments = PaymentProvider(Random(1), WELL, _anything)
    async with fulfilments.running():
        await fulfilments.give(RetryProcess("fulfilment-unlucky"))
        await fulfilments.ends("delivered", "unlucky")


async def test_a_process_that_cannot_even_begin_is_stuck_until_it_is_retried(fulfilments: Fulfilments) -> None:
    def view(order_id: str, order: Any) -> Any:
        if order_id == "unlucky":
            raise KeyError("address")
        return before(order_id, order)

    before = FULFILMENT.view
    with patch.dict(FULFILMENT.__dict__, {"view": view}):
        reason = await _is_stuck_alone(fulfilments)
    assert "SubjectChanged" in reason
    assert "OrderPlaced" in reason
    assert "KeyError('address')" in reason

    async with fulfilments.running():
        await fulfilments.give(RetryProcess("fulfilment-unlucky"))
        await fulfilments.ends("delivered", "unlucky")


@pytest.mark.bound("processes", "effects of one gateway, and timers, under way")
async def test_a_gateway_that_hangs_delays_no_effect_of_another_and_no_timer(fulfilments: Fulfilments) -> None:
    class Hanging(Provider):
        async def carry_out(self, effect_id: str, _effect: Any) -> Any:
            hanging.append(effect_id)
            return await asyncio.Event().wait()

    hanging: list[str] = []
    async with fulfilments.running():
        await fulfilments.place("first")
        await fulfilments.ends("delivered", "first")
    fulfilments.carrier.__class__ = type("Hanging", (Hanging, Carrier), {})
    orders = [f"order-{number}" for number in range(dispatcher.SLOTS + 1)]

    with patch.object(dispatcher, "FINISH_SECONDS", 0.01), patch.dict(reactions.AFTER, {Timer.PARCEL: SOON}):
        async with fulfilments.running():
            await fulfilments.place(*orders)
            await eventually(lambda: len(hanging) == dispatcher.SLOTS)

            async def all_fired() -> bool:
                return await fulfilments.count("TimerFired") >= 1 + len(orders)

            await eventually(all_fired)


# --- the lease, the backlog ----------------------------------------------------------------------------------------


@pytest.mark.promise("processes", "A foreign session that holds the lease of the process runner is named")
async def test_a_foreign_session_that_holds_the_lease_is_named(fulfilments: Fulfilments) -> None:
    foreign = await asyncpg.connect(fulfilments.settings.database_url.get_secret_value())
    await foreign.execute("select pg_advisory_lock(hashtextextended('processes', 0))")
    settings = settings_of(fulfilments.settings, "orders_command").model_copy(update={"fulfilment": "orchestrated"})
    with structlog.testing.capture_logs() as logged:
        async with process_app.running(settings, {}) as runner:
            await eventually(lambda: any(line["event"] == "lease held by a foreign session" for line in logged))
            with pytest.raises(NotReady, match=f"pid {foreign.get_server_pid()}"):
                await runner.ready()
            foreign.terminate()
            await eventually(lambda: is_ready(runner))


async def test_the_command_service_may_take_no_other_lock(settings: Settings) -> None:
    connection = await asyncpg.connect(settings_of(settings, "orders_command").database_url.get_secret_value())
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("select pg_advisory_lock(hashtextextended('orders.1.0', 0))")
    await connection.close()


@pytest.mark.promise("processes", "A backlog of orders after a standstill does not keep new orders waiting")
async def test_a_backlog_does_not_keep_new_orders_waiting(fulfilments: Fulfilments) -> None:
    async with fulfilments.running():
        pass
    backlog = [f"old-{number}" for number in range(100)]
    await fulfilments.place(*backlog)

    async with fulfilments.running():
        await fulfilments.place("new")
        await fulfilments.ends("delivered", "new")
        ended = await fulfilments.count("ProcessEnded")
        await fulfilments.ends("delivered", *backlog, seconds=50)

    assert ended < 90, "one that waits for its turn behind the backlog would be the last to end"
