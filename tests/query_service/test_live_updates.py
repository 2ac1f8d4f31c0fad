"""GET /orders/{order_id}/events and GET /customers/{customer_id}/orders/events."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import httpx
import pytest
from prometheus_client import REGISTRY

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from query_service.live import stream_filter
from shared.aggregates.order import ShippingAddressChanged
from shared.eventstore.log import read_head
from shared.eventstore.token import ConsistencyToken
from tests.given_when_then import problem
from tests.orders import new_order_id, paid, placed, shipped
from tests.query_service.event_source import EventSource, following
from tests.query_service.log_copy import served_from_copy
from tests.query_service.past import Past, past, shared_past
from tests.query_service.reads import token_now
from tests.recording import put_in_log
from tests.running import eventually, free_ports, running_query_service

__all__ = ["past", "shared_past"]  # fixtures

# One database and one query service for the module: an order of its own is all that a test needs.
pytestmark = pytest.mark.asyncio(loop_scope="module")


def customer_of(past: Past) -> str:
    return f"customer-of-{past.order_id}"


def of_customer(past: Past) -> str:
    return f"/customers/{customer_of(past)}/orders/events"


def paths(past: Past) -> list[str]:
    return [f"{past.path}/events", of_customer(past)]


async def place(past: Past, order_id: str | None = None) -> int:
    return await past.recorder.record(order_id or past.order_id, placed(customer_id=customer_of(past)))


async def test_new_events_are_sent_as_the_history_shows_them(past: Past) -> None:
    before = await place(past)
    async with following(past.queries, f"{past.path}/events") as source:
        await source.until_it_began()
        assert source.last_id == str(before), "before any event there is an id to come back with"
        assert source.retry_ms
        await past.recorder.record("somebody-elses", placed())
        await past.recorder.record(past.order_id, paid(), shipped())
        await source.until(2)
    history = (await past.queries.get(f"{past.path}/history")).json()["events"]
    told = [data for _, data in source.messages]
    identified = {"order_id": past.order_id, "stream_id": f"order-{past.order_id}"}
    assert [event | identified for event in history[1:]] == [
        {name: value for name, value in event.items() if name != "consistency_token"} for event in told
    ]
    assert [int(last_id) for last_id, _ in source.messages] == source.positions
    log_id = (await read_head(past.recorder.connection)).log_id
    for event in told:
        assert ConsistencyToken.decode(event["consistency_token"]) == ConsistencyToken(log_id, event["position"])
    assert source.headers["content-type"].startswith("text/event-stream")
    assert source.headers["cache-control"] == "private, no-store"
    assert source.headers["x-accel-buffering"] == "no"
    assert source.headers["consistency-token"] == ConsistencyToken(log_id, before).encode()


@pytest.mark.promise("live-updates", "A stream of another category is never taken for an order")
async def test_a_stream_of_another_category_is_never_taken_for_an_order(past: Past) -> None:
    order_id = f"customer-{past.order_id}"  # as the name of that customer's stream
    await place(past, order_id)
    async with following(past.queries, f"/orders/{order_id}/events") as source:
        await source.until_it_began()
        await put_in_log(past.recorder.connection, order_id, placed())
        await past.recorder.record(order_id, paid())
        await source.until(1)
    assert [event["event_type"] for _, event in source.messages] == ["PaymentConfirmed"]


async def test_the_stream_of_a_customer_has_the_events_of_every_order_also_of_later_ones(past: Past) -> None:
    first, second, third = past.order_id, new_order_id(), new_order_id()
    await place(past, first)
    await place(past, second)
    async with following(past.queries, of_customer(past)) as source:
        await source.until_it_began()
        await past.recorder.record(second, paid())
        await past.recorder.record("somebody-elses-too", placed())
        await place(past, third)
        await past.recorder.record(third, paid(), shipped())
        await past.recorder.record(first, paid())
        await source.until(5)
    assert [(data["order_id"], data["version"]) for _, data in source.messages] == [
        (second, 2), (third, 1), (third, 2), (third, 3), (first, 2),
    ]  # fmt: skip


async def test_a_client_that_resumes_receives_what_it_missed_and_then_new_events(past: Past) -> None:
    await place(past)
    for path in paths(past):
        async with following(past.queries, path) as source:
            await source.until_it_began()
            await past.recorder.record(past.order_id, ShippingAddressChanged("1"))
            await source.until(1)
        last = await past.recorder.record(past.order_id, ShippingAddressChanged("2"), ShippingAddressChanged("3"))
        for resumed, last_id in ((path, source.last_id), (f"{path}?after={source.last_id}", None)):
            async with following(past.queries, resumed, last_id) as again:
                await again.until(2)
                assert again.positions[:2] == [last - 1, last]
                live = await past.recorder.record(past.order_id, ShippingAddressChanged("4"))
                await again.until_reached(live)
                assert again.positions[-1] == live
                assert again.positions == sorted(set(again.positions))


async def test_the_header_takes_precedence_over_the_parameter_as_a_browser_repeats_both(past: Past) -> None:
    first = await place(past)
    last = await past.recorder.record(past.order_id, paid())
    for path in paths(past):
        async with following(past.queries, f"{path}?after=0", last_id=first) as source:
            await source.until(1)
        assert source.positions == [last]


async def test_the_whole_past_comes_in_order_however_many_pages_it_takes(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_filter, "EVENTS", 3)
    orders = [new_order_id() for _ in range(20)]
    expected = [await place(past, order_id) for order_id in orders]
    for number, order_id in enumerate([*orders, *reversed(orders)]):
        expected.append(await past.recorder.record(order_id, ShippingAddressChanged(f"address-{number}")))
        await past.recorder.record("somebody-elses-as-well", placed())
    async with following(past.queries, f"{of_customer(past)}?after=0") as source:
        await source.until(len(expected))
        assert source.positions == expected
    async with following(past.queries, f"/orders/{orders[0]}/events?after=0") as source:
        await source.until(3)
        assert [data["version"] for _, data in source.messages] == [1, 2, 3]


async def test_events_are_sent_as_they_were_stored_even_those_that_this_program_cannot_read(past: Past) -> None:
    await place(past)
    text = '{ "paper" :\n "blue\\u00e9",\r\n "later": [1.00] }'
    async with following(past.queries, f"{past.path}/events") as source:
        await source.until_it_began()
        await past.recorder.record_raw(past.order_id, "OrderGiftWrapped", 7, text)
        await source.until(1)
    [(_, event)] = source.messages
    assert (event["event_type"], event["schema_version"]) == ("OrderGiftWrapped", 7)
    assert event["data"] == {"paper": "blueé", "later": [1.0]}


# --- silence -------------------------------------------------------------------------------------------------------


@pytest.mark.promise("live-updates", "A quiet stream sends heartbeats with the position that it has reached")
async def test_a_quiet_stream_sends_heartbeats_with_the_position_that_it_has_reached(past: Past) -> None:
    await place(past)
    async with running_query_service(past.settings, sse_heartbeat_seconds=0.05) as queries:
        for path in paths(past):
            async with following(queries, path) as source:
                await source.until_it_began()
                elsewhere = await past.recorder.record("yet-somebody-elses", placed())
                await source.until_reached(elsewhere)
                await eventually(lambda: source.comments.count("heartbeat") > 2)
                assert source.messages == []
                last = await past.recorder.record(past.order_id, ShippingAddressChanged("elsewhere"))
                await source.until_reached(last)
                assert source.positions == [last]


# --- refusals ------------------------------------------------------------------------------------------------------


async def test_an_order_that_does_not_exist_is_404_as_of_a_position_of_the_log(past: Past) -> None:
    answer = await past.queries.get(f"{past.path}/events")
    assert past.order_id in problem(answer, 404, "order-not-found")["detail"]
    assert answer.headers["consistency-token"] == await token_now(past.recorder)


async def test_a_customer_without_orders_can_be_followed(past: Past) -> None:
    async with following(past.queries, of_customer(past)) as source:
        await source.until_it_began()
        position = await place(past)
        await source.until(1)
    assert source.positions == [position]


async def test_an_id_that_cannot_be_read_is_400(past: Past) -> None:
    await place(past)
    for path in paths(past):
        for bad in ("", "x", "-1", "01", "1.5", "+1", str(2**63), "9" * 40, "1,2"):
            problem(await past.queries.get(path, headers={"Last-Event-ID": bad}), 400, "malformed-event-id")


async def test_a_position_that_the_log_does_not_reach_is_400(past: Past) -> None:
    head = await place(past)
    for path in paths(past):
        for ahead in (head + 1, 2**63 - 1):
            for query, headers in ((f"?after={ahead}", {}), ("", {"Last-Event-ID": str(ahead)})):
                answer = await past.queries.get(f"{path}{query}", headers={"Prefer": "wait=30", **headers}, timeout=5)
                body = problem(answer, 400, "unknown-position")
                assert (int(body["position"]), body["head"]) == (ahead, head)


async def test_a_position_that_is_reached_in_time_is_followed(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey
) -> None:
    """As when a client comes from a replica that is ahead of this one."""
    async with served_from_copy(postgres.url, valkey.url) as (queries, log, copy), AsyncExitStack() as stack:
        for recorder in (log, copy):
            await recorder.record("42", placed())
        position = await log.record("42", paid())
        ahead = stack.enter_async_context(following(queries, "/orders/42/events", position, prefer="wait=20"))
        coming = asyncio.create_task(ahead)
        await copy.record("42", paid())
        source: EventSource = await coming
        for recorder in (log, copy):
            await recorder.record("42", shipped())
        await source.until(1)
        assert source.positions == [position + 1]


async def test_a_bad_parameter_is_422(past: Past) -> None:
    await place(past)
    for path in paths(past):
        for query, pointer in {
            "after=-1": "query/after",
            "after=x": "query/after",
            f"after={2**63}": "query/after",
        }.items():
            [error] = problem(await past.queries.get(f"{path}?{query}"), 422, "invalid-request")["errors"]
            assert error["pointer"] == pointer
        problem(await past.queries.get(f"{path}?from=1"), 400, "malformed-query")
    problem(await past.queries.get("/orders/no%20such/events"), 422, "invalid-request")
    problem(await past.queries.get("/customers/no%20such/orders/events"), 422, "invalid-request")


async def test_a_token_is_handled_as_everywhere(past: Past) -> None:
    for path in paths(past):
        other = ConsistencyToken(uuid4(), 1).encode()
        problem(await past.queries.get(path, headers={"Consistency-Token": other}), 400, "unknown-log")
        problem(await past.queries.get(path, headers={"Consistency-Token": "x"}), 400, "malformed-token")
        head = await read_head(past.recorder.connection)
        ahead = {"Consistency-Token": ConsistencyToken(head.log_id, head.position + 1).encode(), "Prefer": "wait=0"}
        problem(await past.queries.get(path, headers=ahead), 400, "token-beyond-log")


async def test_more_streams_than_one_process_offers_are_503_until_one_ends(past: Past) -> None:
    await place(past)
    async with running_query_service(past.settings, sse_streams=2) as queries:
        path, other = paths(past)
        async with following(queries, path):
            async with following(queries, other):
                for refused in (path, other):
                    answer = await queries.get(refused)
                    assert problem(answer, 503, "too-many-streams")["most"] == 2
                assert REGISTRY.get_sample_value("orders_event_streams") == 2
                problem(await queries.get("/orders/unheard-of/events"), 503, "too-many-streams")
            await eventually(lambda: REGISTRY.get_sample_value("orders_event_streams") == 1)
            problem(await queries.get("/orders/unheard-of/events"), 404, "order-not-found")
            async with following(queries, other) as source:
                await source.until_it_began()


async def test_live_updates_need_no_redis(past: Past) -> None:
    await place(past)
    (nobody,) = free_ports(1)
    async with running_query_service(past.settings, redis_url=f"redis://127.0.0.1:{nobody}/0") as queries:
        for path in paths(past):
            async with following(queries, path) as source:
                await source.until_it_began()
                await past.recorder.record(past.order_id, ShippingAddressChanged("elsewhere"))
                await source.until(1)


async def test_without_postgresql_no_stream_begins(past: Past) -> None:
    (nobody,) = free_ports(1)
    async with running_query_service(
        past.settings, database_url=f"postgresql://orders_auditor@127.0.0.1:{nobody}/orders"
    ) as queries:
        for path in paths(past):
            problem(await queries.get(path), 503, "log-unavailable")


# --- the process ---------------------------------------------------------------------------------------------------


async def test_the_time_to_answer_ends_where_the_stream_begins(past: Past) -> None:
    def measured() -> tuple[float, float]:
        labels = {"method": "GET", "route": "/orders/{order_id}/events"}
        names = ("orders_http_request_seconds_count", "orders_http_request_seconds_sum")
        count, total = (REGISTRY.get_sample_value(name, labels) or 0.0 for name in names)
        return count, total

    await place(past)
    count, total = measured()
    started = asyncio.get_running_loop().time()
    async with following(past.queries, f"{past.path}/events") as source:
        await source.until_it_began()
        answered = asyncio.get_running_loop().time() - started
        await past.recorder.record(past.order_id, *[ShippingAddressChanged("elsewhere")] * 50)
        await source.until(50)
        assert measured() == (count, total)
    await eventually(lambda: measured()[0] == count + 1)
    assert measured()[1] - total < answered


async def test_a_service_that_stops_ends_its_streams_at_once_and_in_good_order(past: Past) -> None:
    await place(past)
    async with AsyncExitStack() as clients:
        async with running_query_service(past.settings) as queries:
            another = await clients.enter_async_context(httpx.AsyncClient(base_url=queries.base_url))
            sources = [await clients.enter_async_context(following(another, path)) for path in paths(past) * 5]
            stopping_at = asyncio.get_running_loop().time()
        await eventually(lambda: all(source.ended for source in sources))
        assert asyncio.get_running_loop().time() - stopping_at < 2.0
    assert not any(source.lost for source in sources)
