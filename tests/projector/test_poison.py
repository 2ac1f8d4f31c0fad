"""Events that a projection cannot apply, seen from outside: it stops, or parks the stream, and never skips one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import structlog

from shared.settings import Settings
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import paid, placed
from tests.projector.sick import SickStack, three_events_of_two_orders
from tests.query_service.reads import get, token_now
from tests.recording import Recorder
from tests.running import eventually

NAMES = pytest.mark.parametrize("name", ["orders", "revenue_by_day"])
REPORT = "/reports/revenue?from=2000-01-01&to=2000-12-31"


@pytest.fixture
async def stack(settings: Settings, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> AsyncIterator[SickStack]:
    async with SickStack(settings, monkeypatch, recorder) as stack:
        yield stack


async def assert_equal_to_the_log(settings: Settings) -> None:
    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    )


@pytest.mark.promise("poison", "A stuck projection does not stop the others")
@NAMES
async def test_one_stuck_projection_does_not_stop_the_other(name: str, stack: SickStack, recorder: Recorder) -> None:
    await stack.start(name, "stop")
    position = await three_events_of_two_orders(recorder, stack)
    (other,) = {"orders", "revenue_by_day"} - {name}

    await eventually(stack.at_the_head(other))

    async def stopped() -> bool:
        return (await stack.status(name))["stopped_at"] is not None

    await eventually(stopped)
    status, healthy = await stack.status(name), await stack.status(other)
    event = status["stopped_at"]
    assert (status["checkpoint"], status["projector_state"], status["parked"]) == (position - 1, "stuck", 0)
    assert (event["document_id"], event["position"], event["event_type"]) == ("a", position, "PaymentConfirmed")
    assert event["error"] == "ValueError: indigestible"
    assert event["traceback"].startswith("Traceback (most recent call last):")
    assert "indigestible" in status["stuck_because"]
    assert (healthy["stopped_at"], healthy["stuck_because"], healthy["projector_state"]) == (None, None, "active")
    assert await stack.metric("orders_projection_poison_events_total", outcome="stopped", projection=name) >= 1


@NAMES
async def test_a_stopped_projection_tries_again_when_it_is_asked_to(
    name: str, stack: SickStack, recorder: Recorder, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projector.worker_status.FIRST_RETRY_SECONDS", 60.0)
    monkeypatch.setattr("projector.worker_status.LAST_POISON_RETRY_SECONDS", 60.0)
    await stack.start(name, "stop")
    await three_events_of_two_orders(recorder, stack)

    async def stopped() -> bool:
        return (await stack.status(name))["stopped_at"] is not None

    await eventually(stopped)
    stack.error = "still indigestible"
    await stack.retry()
    assert (await stack.status(name))["stopped_at"]["error"] == "ValueError: still indigestible"

    stack.sick.clear()
    await stack.retry()

    assert (await stack.status(name))["stopped_at"] is None
    await assert_equal_to_the_log(settings)


@pytest.mark.promise(
    "poison", "A parked stream waits in order while the others continue, and misses nothing after a retry"
)
@NAMES
async def test_a_parked_stream_waits_in_order_and_the_others_go_on_until_it_is_tried_again(
    name: str, stack: SickStack, recorder: Recorder, settings: Settings
) -> None:
    await stack.start(name, "park")
    before = await stack.metric("orders_projection_poison_events_total", outcome="parked", projection=name)
    with structlog.testing.capture_logs() as logged:
        position = await three_events_of_two_orders(recorder, stack)
        await eventually(stack.at_the_head("orders", "revenue_by_day"))

    status = await stack.status(name)
    (event,) = status["parked_events"]
    assert (status["parked"], status["stopped_at"], status["projector_state"]) == (1, None, "active")
    assert (event["document_id"], event["position"], event["waiting"]) == ("a", position, 1)
    assert (event["event_type"], event["error"]) == ("PaymentConfirmed", "ValueError: indigestible")
    assert "in apply" in event["traceback"]
    (line,) = (line for line in logged if line["event"] == "document parked")
    assert (line["projection"], line["position"], line["stream_id"]) == (name, position, "order-a")
    assert isinstance(line["exc_info"], ValueError)
    assert await stack.metric("orders_projection_poison_events_total", outcome="parked", projection=name) == before + 1

    async def counted() -> bool:
        return await stack.metric("orders_projection_parked_streams", partition="0", projection=name) == 1

    await eventually(counted)
    stack.error = "still indigestible"
    await stack.retry("a")
    (event,) = (await stack.status(name))["parked_events"]
    assert (event["position"], event["waiting"], event["error"]) == (position, 1, "ValueError: still indigestible")

    stack.sick.clear()
    await stack.retry("a")

    assert (await stack.status(name))["parked"] == 0
    await assert_equal_to_the_log(settings)


@pytest.mark.promise("poison", "A parked order is never shown as newer than it is")
async def test_a_parked_order_is_shown_as_far_as_it_is_known_and_never_claimed_to_be_newer(
    stack: SickStack, recorder: Recorder
) -> None:
    await stack.start("orders", "park")
    position = await three_events_of_two_orders(recorder, stack)
    await eventually(stack.at_the_head("orders"))
    log = (await token_now(recorder)).partition("-")[0]

    old = await stack.queries.get("/orders/a")
    known = await stack.queries.get("/orders/a", headers={"Consistency-Token": f"{log}-{position - 1}"})
    newer = await stack.queries.get("/orders/a", headers={"Consistency-Token": f"{log}-{position}"})
    other = await get(stack.queries, "/orders/b", recorder)

    for answer in (old, known):
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
        assert answer.headers["projection-parked"] == str(position)
        assert answer.headers["consistency-token"] == f"{log}-{position - 1}"
    assert (newer.status_code, newer.json()["code"]) == (503, "projection-parked")
    assert (newer.json()["parked"], newer.headers["retry-after"]) == (position, "30")
    assert (other.json()["version"], other.headers.get("projection-parked")) == (3, None)


@pytest.mark.promise("poison", "An order whose first event is parked is never reported as missing")
async def test_an_order_whose_first_event_is_poison_is_not_said_not_to_exist(
    stack: SickStack, recorder: Recorder
) -> None:
    await stack.start("orders", "park")
    stack.sick.add(1)
    await recorder.record("a", placed(), paid())
    await eventually(stack.at_the_head("orders"))

    answer = await stack.queries.get("/orders/a")

    assert (answer.status_code, answer.json()["code"]) == (503, "projection-parked")
    assert (await stack.queries.get("/orders")).json()["orders"] == []


async def test_a_report_says_how_many_orders_it_does_not_fully_count(stack: SickStack, recorder: Recorder) -> None:
    await stack.start("revenue_by_day", "park")
    await three_events_of_two_orders(recorder, stack)
    await eventually(stack.at_the_head("revenue_by_day"))
    assert (await stack.queries.get(REPORT)).headers["projection-parked-streams"] == "1"

    stack.sick.clear()
    await stack.retry()

    assert "projection-parked-streams" not in (await stack.queries.get(REPORT)).headers


@pytest.mark.bound("projector", "parked documents of a read model")
async def test_a_projection_that_raises_on_too_many_streams_stops(
    stack: SickStack, recorder: Recorder, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projector.engine.MOST_PARKED", 2)
    await stack.start("orders", "park")
    stack.sick.update(range(1, 5))
    for order_id in "abcd":
        await recorder.record(order_id, placed())

    async def stopped() -> bool:
        status = await stack.status("orders")
        return status["parked"] == 2 and status["stopped_at"] is not None and status["stopped_at"]["position"] == 3

    await eventually(stopped)
    stack.sick.clear()
    await stack.retry()
    await assert_equal_to_the_log(settings)
