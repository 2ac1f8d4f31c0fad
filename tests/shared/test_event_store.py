"""What only the log in PostgreSQL does. What every event store promises is in `test_event_store_contract.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import uuid4

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from shared.eventstore import idempotency_keys
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, AppendStatus, NewEvent
from shared.eventstore.log import StoredEvent
from shared.eventstore.token import ConsistencyToken
from tests.shared.hash_chain import assert_sound, first_hash

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def happened(data: str = "{}") -> NewEvent:
    return NewEvent(uuid7(), "OrderDelivered", 1, data, "{}", datetime.now(UTC))


def append(stream_id: str, expected_version: int = 0, events: int = 1, key: str | None = None) -> AppendRequest:
    fingerprint = b"request" if key else None
    return AppendRequest.of_stream(
        stream_id, expected_version, uuid7(), [happened() for _ in range(events)], key, fingerprint
    )


async def whole_log(connection: Connection) -> list[StoredEvent]:
    return [event async for event in event_log.read_all(connection)]


class TestAnEmptyLog:
    async def test_ends_at_position_0_and_was_never_written_to(self, connection: Connection) -> None:
        head = await event_log.read_head(connection)
        assert (head.position, head.recorded_at) == (0, None)
        assert head.token.encode() == f"{head.log_id.hex}-0"

    async def test_is_no_lag(self, connection: Connection) -> None:
        assert await event_log.read_lag(connection, None) == (0, 0, 0.0)

    async def test_begins_a_chain_of_its_own(self, connection: Connection) -> None:
        head = await event_log.read_head(connection)
        assert await connection.fetchval("select hash from log_head") == first_hash(head.log_id)


class TestReading:
    @pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 6, 7])
    async def test_goes_over_the_borders_of_pages(
        self, connection: Connection, length: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_log, "PAGE", 3)
        await event_log.append_group(connection, [append("order-1", events=length), append("order-2", events=2)])
        for after in range(length + 2):
            read = [event async for event in event_log.read_stream(connection, "order-1", after)]
            assert [event.version for event in read] == list(range(after + 1, length + 1))
            everything = [event async for event in event_log.read_all(connection, after, page=3)]
            assert [event.position for event in everything] == list(range(after + 1, length + 3))

    @pytest.mark.promise("lag", "Lag is measured from the log's true head and the oldest event not applied")
    async def test_lag_is_measured_from_the_true_head_and_the_oldest_event_not_applied(
        self, connection: Connection
    ) -> None:
        await event_log.append_group(connection, [append("order-1", events=3)])
        log_id = (await event_log.read_head(connection)).log_id
        lag = await event_log.read_lag(connection, ConsistencyToken(log_id, 1))
        assert (lag.head, lag.position, lag.events) == (3, 1, 2)
        assert 0 < (lag.seconds or 0) < 60
        assert await event_log.read_lag(connection, ConsistencyToken(log_id, 3)) == (3, 3, 0.0)

    async def test_what_is_of_another_log_or_of_a_lost_future_shows_nothing(self, connection: Connection) -> None:
        await event_log.append_group(connection, [append("order-1", events=3)])
        log_id = (await event_log.read_head(connection)).log_id
        for shown in (None, ConsistencyToken(log_id, 4), ConsistencyToken(uuid4(), 3)):
            lag = await event_log.read_lag(connection, shown)
            assert (lag.position, lag.events) == (0, 3)
            assert 0 < (lag.seconds or 0) < 60


class TestAppendingAGroup:
    async def test_is_all_or_nothing_where_a_key_comes_twice(self, connection: Connection) -> None:
        with pytest.raises(asyncpg.UniqueViolationError):
            await event_log.append_group(connection, [append("order-1", key="key"), append("order-2", key="key")])
        assert await whole_log(connection) == []

    async def test_refuses_what_is_not_json(self, connection: Connection) -> None:
        broken = AppendRequest.of_stream("order-1", 0, uuid7(), [happened("{")])
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await event_log.append_group(connection, [append("order-2"), broken])
        assert await whole_log(connection) == []

    @pytest.mark.promise("event-log", "`recorded_at` never decreases, even when the clock goes back")
    async def test_records_no_earlier_than_before_though_the_clock_went_back(self, connection: Connection) -> None:
        await event_log.append_group(connection, [append("order-1")])
        ahead: datetime = await connection.fetchval(
            "update log_head set recorded_at = clock_timestamp() + interval '1 hour' returning recorded_at"
        )
        for expected_version in (1, 2):
            await event_log.append_group(connection, [append("order-1", expected_version)])
        first, *later = [event.recorded_at for event in await whole_log(connection)]
        assert first < ahead
        assert later == [ahead, ahead]

    async def test_notifies_listeners_of_the_new_head(self, connection: Connection, database_url: str) -> None:
        notifications: asyncio.Queue[object] = asyncio.Queue()
        listener = await asyncpg.connect(database_url)
        await listener.add_listener(event_log.CHANNEL, lambda *arguments: notifications.put_nowait(arguments[-1]))
        await event_log.append_group(connection, [append("order-1", events=2), append("order-2")])
        assert await asyncio.wait_for(notifications.get(), 5) == "3"
        await listener.close()


class TestPurgingKeys:
    async def test_takes_only_old_ones_and_not_too_many_at_once(self, connection: Connection) -> None:
        keys = [f"key-{number}" for number in range(6)]
        await event_log.append_group(connection, [append(key, key=key) for key in keys])
        aged = "update idempotency_keys set recorded_at = recorded_at - interval '8 days' where key = any($1)"
        await connection.execute(aged, keys[:5])
        week = timedelta(days=7)
        assert [await idempotency_keys.purge_keys(connection, week, at_most=2) for _ in range(4)] == [2, 2, 1, 0]
        assert [key for key in keys if await idempotency_keys.find_key(connection, key)] == ["key-5"]

    async def test_leaves_the_events(self, connection: Connection) -> None:
        await event_log.append_group(connection, [append("order-1", key="key")])
        await connection.execute("update idempotency_keys set recorded_at = recorded_at - interval '25 hours'")
        assert await idempotency_keys.purge_keys(connection, timedelta(0)) == 1
        assert len(await whole_log(connection)) == 1


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[list[Connection]]:
    connections = [await asyncpg.connect(database_url) for _ in range(7)]
    yield connections
    for connection in connections:
        await connection.close()


class TestManyWriters:
    @pytest.mark.promise(
        "event-log", "Positions are dense and become visible in order, so a reader that tails the log misses no event"
    )
    async def test_a_reader_who_tails_the_log_never_sees_a_gap(self, connections: list[Connection]) -> None:
        reader, *writers = connections
        per_writer, events = 60, 2

        async def write(writer: int, connection: Connection) -> None:
            for number in range(per_writer):
                group = [append(f"order-{writer}-{number}-{nr}", events=events) for nr in range(1 + number % 3)]
                await event_log.append_group(connection, group)

        writing = [asyncio.create_task(write(*numbered)) for numbered in enumerate(writers)]
        seen: list[StoredEvent] = []
        rounds = 0
        while not all(task.done() for task in writing) or await event_log.read_batch(reader, len(seen), 1):
            batch = await event_log.read_batch(reader, len(seen), 1_000)
            assert [event.position for event in batch] == list(range(len(seen) + 1, len(seen) + len(batch) + 1))
            seen += batch
            rounds += bool(batch)
        await asyncio.gather(*writing)
        assert len(seen) == len(writers) * events * sum(1 + number % 3 for number in range(per_writer))
        assert rounds > 20, "the reader was there while they wrote"
        head = await event_log.read_head(reader)
        assert_sound(seen, first_hash(head.log_id))

    @pytest.mark.promise("event-log", "Of several writers with the same expected version, exactly one succeeds")
    async def test_of_writers_at_one_version_one_wins(self, connections: list[Connection]) -> None:
        for version in range(20):
            rivals = [event_log.append_group(rival, [append("order-1", version)]) for rival in connections]
            outcomes = sorted(result.status for [result] in await asyncio.gather(*rivals))
            assert outcomes == [AppendStatus.APPENDED, *[AppendStatus.CONFLICT] * (len(connections) - 1)]
        assert [event.version for event in await whole_log(connections[0])] == list(range(1, 21))

    async def test_of_requests_with_one_key_one_is_carried_out(self, connections: list[Connection]) -> None:
        rivals = [
            event_log.append_group(rival, [append(f"order-{number}", key="key")])
            for number, rival in enumerate(connections)
        ]
        results = [result for [result] in await asyncio.gather(*rivals)]
        assert sorted(result.status for result in results) == [AppendStatus.APPENDED, *[AppendStatus.REPLAYED] * 6]
        assert len({result[1:] for result in results}) == 1
        assert len(await whole_log(connections[0])) == 1
