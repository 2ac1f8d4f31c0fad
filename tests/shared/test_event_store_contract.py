"""What every event store promises: the tests run on the log in PostgreSQL and on the one in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from shared.eventstore.append_request import AppendRequest, AppendResult, AppendStatus, StreamAppend
from shared.eventstore.log import StoredEvent
from shared.eventstore.memory import InMemoryEventStore
from shared.eventstore.snapshot_rows import Snapshot
from shared.eventstore.store import EventStore, PostgresEventStore
from tests.shared.hash_chain import assert_sound, first_hash
from tests.shared.test_event_store import append, happened

APPENDED, CONFLICT = AppendStatus.APPENDED, AppendStatus.CONFLICT
REPLAYED, KEY_REUSED = AppendStatus.REPLAYED, AppendStatus.KEY_REUSED
MAC = bytes(32)


def stream(stream_id: str, expected_version: int = 0, events: int = 1) -> StreamAppend:
    return StreamAppend(stream_id, expected_version, [happened() for _ in range(events)])


def of_owner(owner: str | None, stream_id: str, expected_version: int = 0) -> AppendRequest:
    return AppendRequest([stream(stream_id, expected_version)._replace(owner=owner)], uuid7())


def over(*streams: StreamAppend, key: str | None = None) -> AppendRequest:
    """A command that names several streams."""
    return AppendRequest(streams, uuid7(), key, b"request" if key else None)


def statuses(results: Sequence[AppendResult]) -> list[AppendStatus]:
    return [result.status for result in results]


async def log_of(store: EventStore) -> list[StoredEvent]:
    return [event async for event in store.read_all()]


async def names(store: EventStore) -> list[tuple[str, int]]:
    """(stream, version) of every event, in order."""
    return [(event.stream_id, event.version) for event in await log_of(store)]


class EventStoreContract:
    async def test_an_empty_store_holds_nothing(self, store: EventStore) -> None:
        head = await store.read_head()
        assert (head.position, head.recorded_at) == (0, None)
        assert await log_of(store) == []
        assert [event async for event in store.read_stream("order-1")] == []
        assert await store.read_version("order-1") == 0
        assert await store.find_key("key") is None
        assert await store.load_stream("order-1", b"shape") == (None, [])
        assert await store.append_group([]) == []

    async def test_events_are_read_as_they_were_appended(self, store: EventStore) -> None:
        request = append("order-1", events=3)
        [result] = await store.append_group([request])
        stored = [event async for event in store.read_stream("order-1")]
        assert [tuple(event[3:9]) for event in stored] == [tuple(event) for event in request.streams[0].events]
        assert [event[:3] for event in stored] == [(1, "order-1", 1), (2, "order-1", 2), (3, "order-1", 3)]
        head = await store.read_head()
        assert result == (APPENDED, request.command_id, "order-1", 3, 3, head.log_id)
        assert (head.position, head.recorded_at) == (3, stored[-1].recorded_at)
        assert_sound(stored, first_hash(head.log_id))

    async def test_reading_begins_after_a_version_or_position_and_is_bounded(self, store: EventStore) -> None:
        await store.append_group([append("order-1", events=2), append("order-2"), append("order-1", 2, events=2)])
        assert [event.version async for event in store.read_stream("order-1", 1)] == [2, 3, 4]
        assert [event.version for event in await store.read_stream_page("order-1", 1, 2)] == [2, 3]
        assert [event.position for event in await store.read_batch(1, 3)] == [2, 3, 4]
        assert [event.position async for event in store.read_all(3)] == [4, 5]
        assert await store.read_version("order-1") == 4

    async def test_decides_on_each_command_alone(self, store: EventStore) -> None:
        await store.append_group([append("order-1", key="key"), append("order-2")])
        results = await store.append_group([append("order-3", key="key"), append("order-2"), append("order-1", 1)])
        assert [(result.status, *result[2:5]) for result in results] == [
            (REPLAYED, "order-1", 1, 1),
            (CONFLICT, "order-2", 1, 2),
            (APPENDED, "order-1", 2, 3),
        ]

    async def test_a_command_without_events_has_its_version_checked_and_its_key_kept(self, store: EventStore) -> None:
        await store.append_group([append("order-1", events=2), append("order-2")])
        unchanged = append("order-1", 2, events=0, key="key")
        results = await store.append_group([unchanged, append("order-1", 1, events=0)])
        assert [(result.status, result.version, result.position) for result in results] == [
            (APPENDED, 2, 2),
            (CONFLICT, 2, 2),
        ]
        assert await store.find_key("key") == (b"request", results[0]._replace(status=REPLAYED))
        assert len(await log_of(store)) == 3

    async def test_what_was_decided_under_another_log_id_is_a_conflict(self, store: EventStore) -> None:
        log_id = (await store.read_head()).log_id
        foreign, own = (append("order-1")._replace(log_id=decided_under) for decided_under in (uuid4(), log_id))
        assert statuses(await store.append_group([foreign])) == [CONFLICT]
        assert statuses(await store.append_group([own])) == [APPENDED]

    async def test_a_key_gives_the_first_acknowledgement_or_refuses_another_request(self, store: EventStore) -> None:
        [first] = await store.append_group([append("order-1", events=2, key="key")])
        other = append("order-9", key="key")._replace(fingerprint=b"other request")
        for request, status in ((append("order-9", key="key"), REPLAYED), (other, KEY_REUSED)):
            assert await store.append_group([request]) == [first._replace(status=status)]
        assert len(await log_of(store)) == 2

    async def test_a_command_that_was_not_appended_leaves_its_key_unused(self, store: EventStore) -> None:
        await store.append_group([append("order-1", 1, key="key")])
        assert await store.find_key("key") is None

    async def test_a_key_twice_in_a_group_is_refused_and_nothing_appended(self, store: EventStore) -> None:
        with pytest.raises((ValueError, asyncpg.UniqueViolationError)):
            await store.append_group([append("order-1", key="key"), append("order-2", key="key")])
        assert await log_of(store) == []

    async def test_no_key_is_purged_before_it_is_a_day_old(self, store: EventStore) -> None:
        await store.append_group([append("order-1", key="one"), append("order-2", key="two")])
        assert await store.purge_keys(timedelta(days=-7)) == 0
        assert await store.find_key("one") is not None


class SeveralStreamsContract:
    async def test_events_of_a_command_get_consecutive_positions_in_its_order(self, store: EventStore) -> None:
        await store.append_group([append("stock-1")])
        request = over(stream("order-1", events=2), stream("stock-1", 1), stream("stock-2"))
        [result] = await store.append_group([request])
        assert await names(store) == [("stock-1", 1), ("order-1", 1), ("order-1", 2), ("stock-1", 2), ("stock-2", 1)]
        assert (result.stream_id, result.version, result.position) == ("order-1", 2, 5)

    @pytest.mark.promise("commands", "A command over several streams is appended to all of them or to none")
    @pytest.mark.parametrize("stale", [0, 1, 2])
    async def test_one_stream_at_another_version_makes_all_of_the_command_a_conflict(
        self, store: EventStore, stale: int
    ) -> None:
        await store.append_group([append("order-2")])
        streams = [stream(f"stock-{nr}", 1 if nr == stale else 0) for nr in range(3)]
        results = await store.append_group([over(*streams), append("order-2", 1)])
        assert statuses(results) == [CONFLICT, APPENDED]
        assert await names(store) == [("order-2", 1), ("order-2", 2)]

    async def test_a_stream_without_events_is_only_checked(self, store: EventStore) -> None:
        await store.append_group([append("price-1")])
        checked, stale = (over(stream("order-1"), stream("price-1", version, events=0)) for version in (1, 0))
        assert statuses(await store.append_group([stale, append("order-9")])) == [CONFLICT, APPENDED]
        assert statuses(await store.append_group([checked])) == [APPENDED]
        assert await store.read_version("price-1") == 1

    async def test_streams_that_are_expected_to_be_absent_are_checked(self, store: EventStore) -> None:
        await store.append_group([append("stock-1")])
        there, not_there = (
            over(stream(f"order-{nr}"), *[stream(f"stock-{n}", events=0) for n in (9, nr)]) for nr in (1, 2)
        )
        results = await store.append_group([append("order-8"), there, not_there])
        assert statuses(results) == [APPENDED, CONFLICT, APPENDED]
        assert [(result.version, result.position) for result in results] == [(1, 2), (0, 0), (1, 3)]
        assert await store.existing(["stock-1", "stock-9", "order-2", "order-1"]) == {"stock-1", "order-2"}

    async def test_a_stream_that_begins_in_the_group_is_absent_before_and_not_after(self, store: EventStore) -> None:
        def placed(number: int) -> AppendRequest:
            return over(stream(f"order-{number}"), stream("stock-1", events=0))

        results = await store.append_group([placed(1), append("stock-1"), placed(2)])
        assert statuses(results) == [APPENDED, APPENDED, CONFLICT]

    async def test_events_for_other_streams_alone_leave_the_own_version(self, store: EventStore) -> None:
        await store.append_group([append("order-1", events=2)])
        [result] = await store.append_group([over(stream("order-1", 2, events=0), stream("stock-1"))])
        assert (result.status, result.stream_id, result.version, result.position) == (APPENDED, "order-1", 2, 3)

    async def test_a_replay_names_the_own_stream_of_the_first_request(self, store: EventStore) -> None:
        request = over(stream("order-1"), stream("stock-1"), key="key")
        [first] = await store.append_group([request])
        results = await store.append_group([append("order-9"), request._replace(command_id=uuid7())])
        assert results[1] == first._replace(status=REPLAYED)
        assert (first.version, first.position) == (1, 2)


class SharedStreamsContract:
    async def test_commands_on_one_stream_follow_each_other_in_a_group(self, store: EventStore) -> None:
        results = await store.append_group([append("order-1", version, events=2) for version in (0, 2, 4)])
        assert [(result.status, result.version, result.position) for result in results] == [
            (APPENDED, 2, 2),
            (APPENDED, 4, 4),
            (APPENDED, 6, 6),
        ]

    async def test_one_that_expects_the_version_before_the_group_conflicts(self, store: EventStore) -> None:
        results = await store.append_group([append("order-1"), append("order-1"), append("order-1", 1)])
        assert [(result.status, result.version) for result in results] == [(APPENDED, 1), (CONFLICT, 1), (CONFLICT, 1)]

    @pytest.mark.promise("commands", "No command is appended that was decided on an event which was not")
    @pytest.mark.parametrize("failure", ["stale", "of another log", "replayed", "key reused"])
    async def test_what_was_decided_on_a_failed_command_conflicts_even_at_a_version_that_fits(
        self, store: EventStore, failure: str
    ) -> None:
        await store.append_group([append("order-1", key="key")])
        failed = {
            "stale": append("order-1", 0),
            "of another log": append("order-1", 1)._replace(log_id=uuid4()),
            "replayed": append("order-1", 1, key="key"),
            "key reused": append("order-1", 1, key="key")._replace(fingerprint=b"other request"),
        }[failure]
        group = [failed, append("order-1", 1), over(stream("stock-1"), stream("order-1", 1)), append("stock-1")]
        results = await store.append_group([*group, append("order-2")])
        assert statuses(results)[1:] == [CONFLICT, CONFLICT, CONFLICT, APPENDED]
        assert await names(store) == [("order-1", 1), ("order-2", 1)]

    async def test_a_failed_command_without_events_for_a_stream_fails_no_other_on_it(self, store: EventStore) -> None:
        failed = over(stream("order-1", 7), stream("price-1", 0, events=0))
        results = await store.append_group([failed, over(stream("order-2"), stream("price-1", 0, events=0))])
        assert statuses(results) == [CONFLICT, APPENDED]


class OwnerContract:
    async def test_every_event_of_a_stream_carries_the_owner_that_its_first_append_names(
        self, store: EventStore
    ) -> None:
        await store.append_group([of_owner("ann", "order-1"), of_owner("bob", "order-2"), append("stock-1")])
        await store.append_group([of_owner("eve", "order-1", 1), append("order-2", 1), append("stock-1", 1)])
        owners = [(event.stream_id, event.owner) for event in await log_of(store)]
        assert owners == 2 * [("order-1", "ann"), ("order-2", "bob"), ("stock-1", None)]

    async def test_a_stream_that_one_group_begins_and_continues_has_one_owner(self, store: EventStore) -> None:
        group = [of_owner("ann", "order-1"), of_owner("eve", "order-1", 1), append("order-1", 2), append("order-2")]
        await store.append_group(group)
        assert [event.owner for event in await log_of(store)] == ["ann", "ann", "ann", None]

    async def test_a_loaded_stream_shows_its_owner(self, store: EventStore) -> None:
        await store.append_group([of_owner("ann", "order-1")])
        _, events = await store.load_stream("order-1", b"shape")
        assert [event.owner for event in events] == ["ann"]


class PageContract:
    @pytest.mark.bound("all", "page of the log or of a stream")
    async def test_a_page_ends_with_the_event_that_reaches_its_bytes(self, store: EventStore) -> None:
        await store.append_group([append(f"order-{number}", events=2) for number in range(3)])
        size = sum(len(text) for text in (await log_of(store))[0][6:8])
        for max_bytes, count in ((1, 1), (size, 1), (size + 1, 2), (100 * size, 4)):
            events, more = await store.read_page(1, 4, max_bytes)
            assert [event.position for event in events] == [*range(2, 2 + count)]
            assert more
        assert await store.read_page(6, 4, size) == ([], False)
        events, more = await store.read_page(4, 4, 100 * size)
        assert ([event.position for event in events], more) == ([5, 6], False)


class SnapshotContract:
    async def test_a_snapshot_is_loaded_with_the_events_after_it(self, store: EventStore) -> None:
        await store.append_group([append("order-1", events=3)])
        at = [event async for event in store.read_stream("order-1")][1].occurred_at
        await store.save_snapshot("order-1", b"shape", 2, 2, at, '{"state": 2}', MAC)
        snapshot, events = await store.load_stream("order-1", b"shape")
        assert snapshot is not None
        assert snapshot._replace(taken_at=at) == Snapshot(2, 2, at, at, '{"state": 2}', MAC)
        assert [event.version for event in events] == [3]
        other_shape, events = await store.load_stream("order-1", b"other shape")
        assert (other_shape, [event.version for event in events]) == (None, [1, 2, 3])

    async def test_an_older_state_never_replaces_a_later_one(self, store: EventStore) -> None:
        await store.append_group([append("order-1", events=3)])
        at = happened().occurred_at
        for version in (1, 3, 2):
            await store.save_snapshot("order-1", b"shape", version, version, at, f"{version}", MAC)
        snapshot, _ = await store.load_stream("order-1", b"shape")
        assert snapshot is not None
        assert (snapshot.version, snapshot.state) == (3, "3")

    async def test_a_state_of_events_that_the_log_lacks_is_not_saved(self, store: EventStore) -> None:
        await store.append_group([append("order-2"), append("order-1", events=2)])
        for version, position in ((3, 4), (2, 4), (1, 3)):
            await store.save_snapshot("order-1", b"shape", version, position, happened().occurred_at, "{}", MAC)
        snapshot, _ = await store.load_stream("order-1", b"shape")
        assert snapshot is None


class Contract(
    EventStoreContract, SeveralStreamsContract, SharedStreamsContract, OwnerContract, PageContract, SnapshotContract
):
    pass


class TestInMemory(Contract):
    @pytest.fixture
    def store(self) -> EventStore:
        return InMemoryEventStore()


class TestInPostgres(Contract):
    @pytest.fixture
    def store(self, connection: asyncpg.Connection[asyncpg.Record]) -> EventStore:
        return PostgresEventStore(connection)
