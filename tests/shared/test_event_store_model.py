"""The log in PostgreSQL against the one in memory: whatever is appended, both answer the same."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from uuid_utils.compat import uuid7

from cli.stack.embedded_postgres import EmbeddedPostgres
from shared.eventstore import idempotency_keys
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, AppendResult, NewEvent, StreamAppend
from shared.eventstore.log import StoredEvent
from shared.eventstore.memory import InMemoryEventStore
from shared.migrations import migrate
from tests.effort import examples
from tests.shared.hash_chain import assert_sound

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

STREAMS, KEYS = ["a", "b", "c"], ["k1", "k2", "k3"]
JSON_TEXTS = st.sampled_from(["{}", ' {"b" : 1,\n"a":1, "a":2}', '{"é":"\\u00e9 😀 1e400"}', "[1.0, 1.00]", "null"])
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - zone apart
EVENTS = st.builds(
    NewEvent,
    st.uuids(version=4),
    st.sampled_from(["A", "B"]),
    st.integers(1, 9),
    *[JSON_TEXTS] * 2,
    TIMES,
)


class OfStream(NamedTuple):
    """What a command wants of one stream. `off` is by how much its expected version is wrong."""

    stream: str
    off: int
    events: list[NewEvent]


class Wish(NamedTuple):
    """One command of a group. `under` tells which of the log's ids it was decided under: the present one, the first, or
    none that it names."""

    streams: list[OfStream]
    under: str
    key: str | None
    fingerprint: bytes


OF_STREAMS = st.builds(
    OfStream,
    st.sampled_from(STREAMS),
    st.sampled_from([0, 0, 0, 0, 0, 1, -1, 7]),
    st.lists(EVENTS, max_size=3),
)
WISHES = st.builds(
    Wish,
    st.lists(OF_STREAMS, min_size=1, max_size=3, unique_by=lambda of_stream: of_stream.stream),
    st.sampled_from(["present", "present", "present", "none", "first"]),
    st.none() | st.sampled_from(KEYS),
    st.sampled_from([b"request", b"other request"]),
)
GROUPS = st.lists(WISHES, max_size=5, unique_by=lambda wish: wish.key or object())


_lives = itertools.count(1)


class EventStore(RuleBasedStateMachine):
    """Every life continues the same log with streams and keys of its own. Its model begins at position 0."""

    def __init__(self, runner: asyncio.Runner, connection: Connection) -> None:
        super().__init__()
        self.runner = runner
        self.connection = connection
        self.life = f"life-{next(_lives)}-"

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize()
    def begin(self) -> None:
        self.base = self.run(event_log.read_head(self.connection))
        self.base_hash: bytes = self.run(self.connection.fetchval("select hash from log_head"))
        self.now = datetime.now(UTC)
        self.model = InMemoryEventStore(self.base.log_id, lambda: self.now)

    @rule(group=GROUPS)
    def append(self, group: list[Wish]) -> None:
        requests = self._requests_of(group)
        results = self.run(event_log.append_group(self.connection, requests))
        assert results == [self._moved(result) for result in self.run(self.model.append_group(requests))]

    @rule(wish=WISHES, event=EVENTS)
    def append_one_key_twice_in_a_group(self, wish: Wish, event: NewEvent) -> None:
        good = [OfStream(stream, 0, [fresh(event)]) for stream in STREAMS[:2]]
        new_key = str(uuid7())
        twice = self._requests_of([Wish([of_stream], "none", new_key, wish.fingerprint) for of_stream in good])
        with pytest.raises(asyncpg.UniqueViolationError):
            self.run(event_log.append_group(self.connection, twice))
        with pytest.raises(ValueError, match="each Idempotency-Key once"):
            self.run(self.model.append_group(twice))

    @rule()
    def forget_old_keys(self) -> None:
        aged = "update idempotency_keys set recorded_at = recorded_at - interval '8 days' where key like $1"
        self.run(self.connection.execute(aged, self.life + "%"))
        self.now += timedelta(days=8)
        purged = self.run(idempotency_keys.purge_keys(self.connection, timedelta(days=7)))
        assert purged == self.run(self.model.purge_keys(timedelta(days=7)))

    @rule()
    def give_a_new_id(self) -> None:
        row = self.run(self.connection.fetchrow("select * from give_new_log_id('restored')"))
        assert row is not None
        head = self.run(self.model.read_head())
        assert (row["old_id"], row["position"]) == (head.log_id, self.base.position + head.position)
        self.model.log_id = row["new_id"]

    @rule(key=st.sampled_from(KEYS))
    def look_a_key_up(self, key: str) -> None:
        found = self.run(idempotency_keys.find_key(self.connection, self.life + key))
        expected = self.run(self.model.find_key(self.life + key))
        assert found == (expected and (expected[0], self._moved(expected[1])))

    @rule(stream=st.sampled_from(STREAMS), after=st.integers(0, 9))
    def read_a_stream(self, stream: str, after: int) -> None:
        read = self.run(collected(event_log.read_stream(self.connection, self.life + stream, after)))
        expected = self.run(collected(self.model.read_stream(self.life + stream, after)))
        assert [event[:9] for event in read] == [self._moved_event(event)[:9] for event in expected]

    @invariant()
    def the_log_is_sound(self) -> None:
        log = self.run(collected(event_log.read_all(self.connection, self.base.position, page=5)))
        expected = self.run(self.model.read_batch(0, len(log) + 1))
        assert [event[:9] for event in log] == [self._moved_event(event)[:9] for event in expected]
        last_hash = assert_sound(log, self.base_hash, after=self.base.position)
        row = self.run(self.connection.fetchrow("select position, hash, recorded_at from log_head"))
        assert row is not None
        assert (row["position"], row["hash"]) == (self.base.position + len(log), last_hash)
        assert not log or row["recorded_at"] == log[-1].recorded_at

    def _requests_of(self, group: list[Wish]) -> list[AppendRequest]:
        """Each decided on the events of those before it in the group, as if those were in the log."""
        versions: Counter[str] = Counter()
        for stream in STREAMS:
            versions[stream] = self.run(self.model.read_version(self.life + stream))
        requests = []
        for wish in group:
            streams = []
            for stream, off, events in wish.streams:
                streams.append(StreamAppend(self.life + stream, versions[stream] + off, [fresh(e) for e in events]))
                versions[stream] += len(events)
            key = wish.key and self.life + wish.key
            log_id = {"present": self.model.log_id, "first": self.base.log_id}.get(wish.under)
            requests.append(AppendRequest(streams, uuid7(), key, wish.fingerprint if key else None, log_id))
        return requests

    def _moved(self, result: AppendResult) -> AppendResult:
        """As the log answers, in which this life does not begin at position 0."""
        return result._replace(position=result.position + self.base.position if result.position else 0)

    def _moved_event(self, event: StoredEvent) -> StoredEvent:
        return event._replace(position=event.position + self.base.position)


def fresh(event: NewEvent) -> NewEvent:
    """The event under an id that no other has; a shrinking life repeats itself."""
    return event._replace(event_id=uuid7())


async def collected(events: AsyncIterator[StoredEvent]) -> list[StoredEvent]:
    return [event async for event in events]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.mark.promise("failures", "No command service decides on a cached state that a restore lost")
@pytest.mark.hypothesis
@pytest.mark.timeout(400)  # a failure is worth the time it takes to shrink
def test_the_log_behaves_as_its_model(postgres: EmbeddedPostgres, runner: asyncio.Runner) -> None:
    async def connect() -> Connection:
        server = await asyncpg.connect(postgres.url)
        await server.execute("create database test_model")
        await server.close()
        url = urlsplit(postgres.url)._replace(path="/test_model").geturl()
        await migrate(url)
        return await asyncpg.connect(url)

    connection = runner.run(connect())
    try:
        run_state_machine_as_test(
            lambda: EventStore(runner, connection),  # type: ignore[arg-type]  # any factory will do
            settings=settings(
                max_examples=examples(70),
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
    finally:
        runner.run(connection.close())
