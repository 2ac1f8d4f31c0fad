"""Live updates where it is easy to lose an event or to send it twice: at the seam between the past and the present,
when clients reconnect, are too slow, or change process, and when PostgreSQL is lost."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from select import select
from typing import NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import given as for_all
from hypothesis import settings as effort
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from query_service.live import held_events, log_tail, stream_filter
from query_service.live.stream_filter import EventBatch, StreamFilter
from shared.aggregates.order import ShippingAddressChanged
from shared.eventstore.log import Connection, Head, read_head
from tests.orders import new_order_id, placed
from tests.query_service.event_source import following
from tests.query_service.past import Past, past, shared_past
from tests.recording import lose_every_notification
from tests.running import eventually, running_query_service

__all__ = ["past", "shared_past"]  # fixtures

pytestmark = pytest.mark.asyncio(loop_scope="module")


def moved(to: str = "elsewhere") -> ShippingAddressChanged:
    return ShippingAddressChanged(to)


async def positions_in_log(past: Past, order_ids: list[str], after: int = 0) -> list[int]:
    rows = await past.recorder.connection.fetch(
        "select position from events where stream_id = any($1) and position > $2 order by position",
        [f"order-{order_id}" for order_id in order_ids],
        after,
    )
    return [row["position"] for row in rows]


async def end_sessions(past: Past) -> None:
    """Ends every session with which events are followed."""
    await past.recorder.connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'orders-live' and datname = current_database()"
    )


# --- arbitrary clients, beside arbitrary writers -------------------------------------------------------------------


class Plan(NamedTuple):
    """A client follows an order (its number) or the order's customer from `start` on, and reconnects with its last id
    after so many events."""

    order: int
    whole_customer: bool
    start: float | None  # as a share of the log as it is then; None: from now on
    stays_for: list[int]


plans = st.builds(
    Plan,
    order=st.integers(0, 5),
    whole_customer=st.booleans(),
    start=st.none() | st.floats(0, 1),
    stays_for=st.lists(st.integers(1, 6), max_size=3),
)
# (number of the order, how many events at once); orders 0 to 3 are alice's, 4 and 5 bob's
appends = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=30)


@pytest.mark.promise(
    "live-updates",
    "A subscriber receives exactly the events of the log, in order, each once, however often it reconnects",
)
@pytest.mark.usefixtures("small_pages")
@for_all(before=appends, meanwhile=appends, clients=st.lists(plans, min_size=1, max_size=5), breaks=st.booleans())
@effort(
    max_examples=10, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a_client_receives_exactly_the_events_that_the_log_holds(
    before: list[tuple[int, int]],
    meanwhile: list[tuple[int, int]],
    clients: list[Plan],
    breaks: bool,
    past: Past,
) -> None:
    orders = [new_order_id() for _ in range(6)]
    customers = [f"of-{orders[0]}"] * 4 + [f"of-{orders[4]}"] * 2
    for order_id, customer_id in zip(orders, customers, strict=True):
        await past.recorder.record(order_id, placed(customer_id=customer_id))

    written, turn = asyncio.Event(), asyncio.Lock()  # one connection is shared by all

    async def write(plan: list[tuple[int, int]]) -> None:
        for number, count in plan:
            async with turn:
                await past.recorder.record(orders[number], *[moved()] * count)

    async def follow(plan: Plan) -> None:
        theirs = [orders[plan.order]]
        path = f"/orders/{theirs[0]}/events"
        if plan.whole_customer:
            theirs = [one for one, whose in zip(orders, customers, strict=True) if whose == customers[plan.order]]
            path = f"/customers/{customers[plan.order]}/orders/events"
        async with turn:
            head = await read_head(past.recorder.connection)
        last_id = None if plan.start is None else int(head.position * plan.start)
        began = last_id
        told: list[int] = []
        for stays_for in plan.stays_for:
            async with following(past.queries, path, last_id) as source:
                await source.until_it_began()
                began = int(source.first_id) if began is None else began
                await eventually(lambda: written.is_set() or len(source.messages) >= stays_for)  # noqa: B023
            told += source.positions
            last_id = int(source.last_id)
        async with following(past.queries, path, last_id) as source:
            await source.until_it_began()
            began = int(source.first_id) if began is None else began
            await written.wait()
            async with turn:
                expected = await positions_in_log(past, theirs, began)
            await eventually(
                lambda: not expected or source.positions[-1:] == expected[-1:] or told[-1:] == expected[-1:]
            )
            told += source.positions
        assert told == expected

    await write(before)
    following_all = asyncio.gather(*map(follow, clients))
    await write(meanwhile[: len(meanwhile) // 2])
    if breaks:
        async with turn:
            await end_sessions(past)
    await write(meanwhile[len(meanwhile) // 2 :])
    written.set()
    await following_all


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a page, a batch and a search end in the middle of what a test wrote."""
    monkeypatch.setattr(stream_filter, "EVENTS", 4)
    monkeypatch.setattr(log_tail, "PAGE", 5)


async def test_an_event_between_the_last_page_and_the_subscription_is_not_missed(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client keeps the tail running, which has read the event before the subscription exists."""
    customer = f"of-{past.order_id}"
    start = await past.recorder.record(past.order_id, placed(customer_id=customer))
    read_page = stream_filter.read_page
    between: list[int] = []
    async with following(past.queries, f"/customers/{customer}/orders/events") as other:

        async def read_page_late(connection: Connection, of: StreamFilter, after: int) -> tuple[EventBatch, Head]:
            page = await read_page(connection, of, after)
            if not between:
                between.append(await past.recorder.record(past.order_id, moved()))
                await other.until_reached(between[0])
            return page

        await other.until_it_began()
        await past.recorder.record(past.order_id, moved())
        await other.until(1)
        monkeypatch.setattr(stream_filter, "read_page", read_page_late)
        async with following(past.queries, f"/orders/{past.order_id}/events", start) as source:
            await source.until_reached(start + 1)
            await eventually(lambda: other.last_id == str(between[-1]))
            last = await past.recorder.record(past.order_id, moved())
            await source.until_reached(last)
    assert source.positions == await positions_in_log(past, [past.order_id], start)


# --- processes and servers -----------------------------------------------------------------------------------------


async def test_any_process_goes_on_where_another_ended(past: Past) -> None:
    customer = f"of-{past.order_id}"
    await past.recorder.record(past.order_id, placed(customer_id=customer))
    async with running_query_service(past.settings) as queries:
        for path in (f"/orders/{past.order_id}/events", f"/customers/{customer}/orders/events"):
            async with following(past.queries, path) as one, following(queries, path) as other:
                await one.until_it_began()
                await other.until_it_began()
                await past.recorder.record(past.order_id, moved(), moved())
                await one.until(2)
                await other.until(2)
            assert one.messages == other.messages
            missed = await past.recorder.record(past.order_id, moved())
            async with following(queries, path, one.last_id) as source:
                await source.until(1)
            assert source.positions == [missed]


@pytest.mark.promise("live-updates", "Streams survive a lost PostgreSQL without a gap")
async def test_streams_outlive_a_lost_postgresql_without_a_gap(past: Past) -> None:
    customer = f"of-{past.order_id}"
    start = await past.recorder.record(past.order_id, placed(customer_id=customer))
    paths = (f"/orders/{past.order_id}/events", f"/customers/{customer}/orders/events")
    async with following(past.queries, paths[0]) as one, following(past.queries, paths[1]) as other:
        await one.until_it_began()
        await other.until_it_began()
        for number in range(3):
            await past.recorder.record(past.order_id, moved(), moved())
            await one.until(3 * number + 1)
            await end_sessions(past)
            await past.recorder.record(past.order_id, moved())
        expected = await positions_in_log(past, [past.order_id], start)
        for source in (one, other):
            await source.until(len(expected))
            assert source.positions == expected
            assert not source.ended
            assert not source.lost


async def test_polling_is_enough(past: Past) -> None:
    await past.recorder.record(past.order_id, placed())
    await lose_every_notification(past.recorder.connection)
    async with following(past.queries, f"/orders/{past.order_id}/events") as source:
        await source.until_it_began()
        for _ in range(2):
            position = await past.recorder.record(past.order_id, moved())
            await source.until_reached(position)
    assert len(source.positions) == 2


async def test_a_session_that_is_replaced_leaves_no_gap(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "SESSION_SECONDS", 0.02)
    sessions: set[int] = set()
    await past.recorder.record(past.order_id, placed())
    async with following(past.queries, f"/orders/{past.order_id}/events") as source:
        await source.until_it_began()
        while len(sessions) < 3:
            position = await past.recorder.record(past.order_id, moved())
            await source.until_reached(position)
            rows = await past.recorder.connection.fetch(
                "select pid from pg_stat_activity"
                " where application_name = 'orders-live' and datname = current_database()"
            )
            sessions |= {row["pid"] for row in rows}
        assert source.positions == await positions_in_log(past, [past.order_id], after=source.positions[0] - 1)
    assert not source.lost


@pytest.mark.promise("live-updates", "Streams of a log that was restored to an older state, or replaced, end")
async def test_streams_of_a_log_that_was_replaced_by_another_end(past: Past) -> None:
    await past.recorder.record(past.order_id, placed())
    async with following(past.queries, f"/orders/{past.order_id}/events") as source:
        await past.recorder.record(past.order_id, moved())
        await source.until(1)
        await past.recorder.connection.execute("update log_head set log_id = gen_random_uuid()")
        await eventually(lambda: source.ended)
    async with following(past.queries, f"/orders/{past.order_id}/events") as source:
        await source.until_it_began()
        await past.recorder.record(past.order_id, moved())
        await source.until(1)


# --- clients that do not read --------------------------------------------------------------------------------------

LARGE = moved("x" * 200_000)
MORE_THAN_A_SOCKET_HOLDS = 40  # of those


class Sleeper:
    """A client that requested a stream and does not read it; its kernel buffers little for it."""

    def __init__(self, url: httpx.URL, path: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.socket.connect((url.host, url.port))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode())

    def is_answered(self) -> bool:
        return bool(select([self.socket], [], [], 0)[0])

    def wake(self) -> int:
        """Reads what there is, to the end; the last id that came in whole."""
        received = b""
        self.socket.settimeout(5)
        try:
            while part := self.socket.recv(1 << 20):
                received += part
        except ConnectionResetError:
            pass
        self.socket.close()
        ids = re.findall(rb"\nid: (\d+)\n(?:retry: \d+\n)?\n", received)
        return int(ids[-1])


@asynccontextmanager
async def sleeper(queries: httpx.AsyncClient, path: str) -> AsyncIterator[Sleeper]:
    one = Sleeper(queries.base_url, path)
    try:
        await eventually(one.is_answered)
        yield one
    finally:
        one.socket.close()


def open_streams() -> float:
    return REGISTRY.get_sample_value("orders_event_streams") or 0.0


def cut_off() -> float:
    return REGISTRY.get_sample_value("orders_event_streams_cut_total") or 0.0


@pytest.mark.promise(
    "live-updates", "A client that does not read is cut off, not buffered, and misses nothing after it reconnects"
)
@pytest.mark.bound("query", "events that one event stream has not sent")
async def test_a_client_whose_buffer_is_full_is_disconnected_at_once_and_the_others_are_not(past: Past) -> None:
    start = await past.recorder.record(past.order_id, placed())
    path = f"/orders/{past.order_id}/events"
    async with (
        running_query_service(past.settings, sse_send_seconds=30.0) as queries,
        following(queries, path, start) as awake,
        sleeper(queries, f"{path}?after={start}") as asleep,
    ):
        before = cut_off()
        await past.recorder.record(past.order_id, *[LARGE] * MORE_THAN_A_SOCKET_HOLDS)
        await awake.until(MORE_THAN_A_SOCKET_HOLDS)
        await past.recorder.record(past.order_id, *[moved()] * (log_tail.MAX_BUFFERED + 1))
        await eventually(lambda: cut_off() == before + 1)
        await eventually(lambda: open_streams() == 1)
        expected = await positions_in_log(past, [past.order_id], start)
        await awake.until(len(expected))
        assert awake.positions == expected
        last = await asyncio.to_thread(asleep.wake)
        assert start < last < expected[-1]
        await _missed_nothing(queries, path, last, expected)


@pytest.mark.promise(
    "live-updates", "A client that does not read is cut off, not buffered, and misses nothing after it reconnects"
)
async def test_a_client_that_stops_reading_is_disconnected_in_time(past: Past) -> None:
    start = await past.recorder.record(past.order_id, placed())
    path = f"/orders/{past.order_id}/events"
    async with running_query_service(past.settings, sse_send_seconds=0.2) as queries:
        before = cut_off()
        async with sleeper(queries, f"{path}?after={start}") as live:
            await past.recorder.record(past.order_id, *[LARGE] * MORE_THAN_A_SOCKET_HOLDS)
            await eventually(lambda: (cut_off(), open_streams()) == (before + 1, 0))
            expected = await positions_in_log(past, [past.order_id], start)
            await _missed_nothing(queries, path, await asyncio.to_thread(live.wake), expected)
        async with sleeper(queries, f"{path}?after={start}") as resumed:
            await eventually(lambda: (cut_off(), open_streams()) == (before + 2, 0))
            await _missed_nothing(queries, path, await asyncio.to_thread(resumed.wake), expected)


@pytest.mark.promise("live-updates", "What all clients that do not read leave unread is bounded together, in bytes")
@pytest.mark.bound("query", "events and blocks that all event streams hold for their clients")
async def test_clients_that_do_not_read_leave_so_much_unread_together_and_no_more(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_events, "MAX_BYTES", 4_000_000)
    start = await past.recorder.record(past.order_id, placed())
    path = f"/orders/{past.order_id}/events"
    async with AsyncExitStack() as stack:
        queries = await stack.enter_async_context(running_query_service(past.settings, sse_send_seconds=30.0))
        awake = await stack.enter_async_context(following(queries, path, start))
        before = cut_off()
        asleep = [await stack.enter_async_context(sleeper(queries, f"{path}?after={start}")) for _ in range(5)]
        await past.recorder.record(past.order_id, *[LARGE] * MORE_THAN_A_SOCKET_HOLDS)
        await eventually(lambda: cut_off() == before + len(asleep))
        await awake.until(MORE_THAN_A_SOCKET_HOLDS)
        assert awake.positions == await positions_in_log(past, [past.order_id], start)


async def _missed_nothing(queries: httpx.AsyncClient, path: str, last: int, expected: list[int]) -> None:
    rest = [position for position in expected if position > last]
    async with following(queries, path, last) as again:
        await again.until(len(rest))
        assert again.positions == rest


@pytest.mark.promise("live-updates", "A stopping service does not wait for a client that does not read")
async def test_a_service_that_stops_does_not_wait_for_a_client_that_does_not_read(past: Past) -> None:
    start = await past.recorder.record(past.order_id, placed(), *[LARGE] * MORE_THAN_A_SOCKET_HOLDS)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as after_that:
        async with running_query_service(past.settings, sse_send_seconds=30.0) as queries:
            path = f"/orders/{past.order_id}/events?after={start - MORE_THAN_A_SOCKET_HOLDS}"
            await after_that.enter_async_context(sleeper(queries, path))
            stopping_at = loop.time()
        assert loop.time() - stopping_at < 3.0
