"""`orders projections` where a projection cannot apply an event: what an operator sees, and does about it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.settings import Settings
from tests.faults.operator import Operator
from tests.faults.shop import Servers
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import delivered
from tests.projector.sick import SickStack, three_events_of_two_orders
from tests.recording import Recorder
from tests.running import eventually


@pytest.fixture
async def stack(settings: Settings, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> AsyncIterator[SickStack]:
    async with SickStack(settings, monkeypatch, recorder) as stack:
        yield stack


@pytest.fixture
def orders(servers: Servers) -> Operator:
    return Operator(servers)


async def assert_equal_to_the_log(settings: Settings) -> None:
    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    )


@pytest.mark.promise("poison", "An operator sees what is parked, repairs it and retries it")
async def test_an_operator_sees_what_is_parked_mends_it_and_tries_it_again(
    stack: SickStack, orders: Operator, recorder: Recorder, settings: Settings
) -> None:
    await stack.start("orders", "park")
    position = await three_events_of_two_orders(recorder, stack)
    await eventually(stack.at_the_head("orders", "revenue_by_day"))
    what = f"event {position} (PaymentConfirmed, version 2 of order-a): ValueError: indigestible"

    status = await orders("status", "--query-url", str(stack.queries.base_url), "--tracebacks")
    verified = await orders("verify", "orders", code=1)
    again = await orders("retry", "orders", code=1)

    assert f"orders has parked 1 streams:\n  {what}; 1 later events wait" in status
    assert "    Traceback (most recent call last):" in status
    assert "1 documents are parked" in verified
    assert f"document a is parked before position {position}" in verified
    assert f"a is still parked before {what}" in again

    stack.sick.clear()

    assert "a is up to date again" in await orders("retry", "orders", "a")
    await assert_equal_to_the_log(settings)


@pytest.mark.promise("poison", "An operator repairs what stopped a projection, and it continues")
async def test_an_operator_mends_what_has_stopped_a_projection_and_it_goes_on(
    stack: SickStack, orders: Operator, recorder: Recorder, settings: Settings
) -> None:
    await stack.start("revenue_by_day", "stop")
    position = await three_events_of_two_orders(recorder, stack)

    async def stopped() -> bool:
        return (await stack.status("revenue_by_day"))["stopped_at"] is not None

    await eventually(stopped)
    assert f"still stopped before event {position} (PaymentConfirmed" in await orders("retry", "revenue_by_day", code=1)

    stack.sick.clear()

    assert "revenue_by_day continues" in await orders("retry", "revenue_by_day")
    await assert_equal_to_the_log(settings)
    assert "nothing is parked, and no event has stopped it" in await orders("retry", "revenue_by_day")


@pytest.mark.promise("poison", "A retry that is requested while no projector runs is done by the next one")
async def test_what_is_asked_while_no_projector_runs_is_done_by_the_next_one(
    stack: SickStack, orders: Operator, recorder: Recorder, settings: Settings
) -> None:
    """A projector that finds a parked stream leaves it alone unless it is asked."""
    await stack.start("revenue_by_day", "park")
    await three_events_of_two_orders(recorder, stack)
    await eventually(stack.at_the_head("revenue_by_day"))
    await stack.stop()
    stack.sick.clear()
    await stack.start("revenue_by_day", "park")
    await recorder.record("b", delivered())
    await eventually(stack.at_the_head("revenue_by_day"))
    assert (await stack.status("revenue_by_day"))["parked"] == 1
    await stack.stop()
    assert "no projector has tried it" in await orders("retry", "revenue_by_day", "a", "--wait", "0.2", code=1)

    await stack.start("revenue_by_day", "park")

    async def forgotten() -> bool:
        return await stack.store.retries() == frozenset()

    await eventually(forgotten)
    assert (await stack.status("revenue_by_day"))["parked"] == 0
    await assert_equal_to_the_log(settings)


@pytest.mark.promise("rebuilds", "A rebuild that parked a stream is not switched to")
async def test_a_rebuild_says_how_many_streams_it_could_not_finish_and_does_not_switch(
    orders: Operator, recorder: Recorder
) -> None:
    await recorder.record_raw("a", "OrderTeleported", 1, '{"customer_id":"alice"}')

    parking = await orders("rebuild", "orders", code=1, PROJECTOR_ON_POISON="park")

    assert "1 documents are parked" in parking
    assert "OrderTeleported" in parking
