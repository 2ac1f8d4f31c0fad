"""The event store against a model of it in memory: whatever is appended, the real log answers as the model does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from uuid_utils.compat import uuid7

from cli.stack.embedded_postgres import EmbeddedPostgres
from shared.eventstore import log as event_log
from shared.eventstore.log import AppendRequest, AppendResult, AppendStatus, NewEvent, StoredEvent
from shared.migrations import migrate
from tests.shared.hash_chain import assert_sound

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

STREAMS, KEYS = ["a", "b", "ä"], ["k1", "k2", "k3"]
JSON_TEXTS = st.sampled_from(["{}", ' {"b" : 1,\n"a":1, "a":2}', '{"é":"\\u00e9 😀 1e400"}', "[1.0, 1.00]", "null"])
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - zone apart
EVENTS = st.builds(
    NewEvent,
    st.uuids(version=4),
    st.sampled_from(["A", "Ä"]),
    st.integers(1, 9),
    *[JSON_TEXTS] * 2,
    TIMES,
)


class Wish(NamedTuple):
    """One command of a group. `off` is by how much its expected version is wrong; `under` tells which of the log's ids
    it was decided under: the present one, the first, or none that it names."""

    stream: str
    off: int
    under: str
    events: list[NewEvent]
    key: str | None
    fingerprint: bytes


WISHES = st.builds(
    Wish,
    st.sampled_from(STREAMS),
    st.sampled_from([0, 0, 0, 0, 1, -1, 7]),
    st.sampled_from(["present", "present", "none", "first"]),
    st.lists(EVENTS, max_size=3),
    st.none() | st.sampled_from(KEYS),
    st.sampled_from([b"request", b"other request"]),
)
GROUPS = st.lists(WISHES, max_size=3, unique_by=(lambda wish: wish.stream, lambda wish: wish.key or wish.stream))


@dataclass
class Model:
    """What the log is supposed to be."""

    head: int
    log_id: UUID
    streams: dict[str, list[tuple[int, NewEvent]]] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, AppendResult]] = field(default_factory=dict)

    def append(self, append: AppendRequest) -> AppendResult:
        stream = self.streams.setdefault(append.stream_id, [])
        if append.key in self.keys:
            fingerprint, first = self.keys[append.key]
            same = fingerprint == append.fingerprint
            return first._replace(
                outcome=AppendStatus.REPLAYED if same else AppendStatus.KEY_REUSED, log_id=self.log_id
            )
        good = len(stream) == append.expected_version and append.log_id in (None, self.log_id)
        outcome = AppendStatus.APPENDED if good else AppendStatus.CONFLICT
        if outcome is AppendStatus.APPENDED:
            for event in append.events:
                self.head += 1
                stream.append((self.head, event))
        position = stream[-1][0] if stream else 0
        verdict = AppendResult(outcome, append.command_id, append.stream_id, len(stream), position, self.log_id)
        if outcome is AppendStatus.APPENDED and append.key is not None:
            assert append.fingerprint is not None
            self.keys[append.key] = append.fingerprint, verdict
        return verdict


_lives = itertools.count(1)


class EventStore(RuleBasedStateMachine):
    """Every life continues the same log with streams and keys of its own."""

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
        self.model = Model(self.base.position, self.base.log_id)

    @rule(group=GROUPS)
    def append(self, group: list[Wish]) -> None:
        appends = [self._append_of(wish) for wish in group]
        verdicts = self.run(event_log.append_group(self.connection, appends))
        assert verdicts == [self.model.append(append) for append in appends]

    @rule(wish=WISHES, event=EVENTS)
    def append_to_one_stream_twice_in_a_group(self, wish: Wish, event: NewEvent) -> None:
        twice = [self._append_of(wish._replace(off=0, under="none", key=None, events=[fresh(event)])) for _ in range(2)]
        with pytest.raises(asyncpg.UniqueViolationError):
            self.run(event_log.append_group(self.connection, twice))

    @rule(key=st.sampled_from(KEYS))
    def forget_an_old_key(self, key: str) -> None:
        aged = "update idempotency_keys set recorded_at = recorded_at - interval '8 days' where key = $1"
        self.run(self.connection.execute(aged, self.life + key))
        purged = self.run(event_log.purge_keys(self.connection, timedelta(days=7)))
        assert purged == (self.model.keys.pop(self.life + key, None) is not None)

    @rule()
    def give_a_new_id(self) -> None:
        row = self.run(self.connection.fetchrow("select * from give_new_log_id('restored')"))
        assert row is not None
        assert (row["old_id"], row["position"]) == (self.model.log_id, self.model.head)
        self.model.log_id = row["new_id"]

    @rule(key=st.sampled_from(KEYS))
    def look_a_key_up(self, key: str) -> None:
        found = self.run(event_log.find_key(self.connection, self.life + key))
        expected = self.model.keys.get(self.life + key)
        assert found == (
            expected and (expected[0], expected[1]._replace(outcome=AppendStatus.REPLAYED, log_id=self.model.log_id))
        )

    @rule(stream=st.sampled_from(STREAMS), after=st.integers(0, 9))
    def read_a_stream(self, stream: str, after: int) -> None:
        read = self.run(collected(event_log.read_stream(self.connection, self.life + stream, after)))
        expected = self.model.streams.get(self.life + stream, [])[after:]
        assert [event.version for event in read] == list(range(after + 1, after + 1 + len(expected)))
        assert [(event.position, NewEvent(*event[3:9])) for event in read] == expected

    @invariant()
    def the_log_is_sound(self) -> None:
        log = self.run(collected(event_log.read_all(self.connection, self.base.position, page=5)))
        assert len(log) == self.model.head - self.base.position
        last_hash = assert_sound(log, self.base_hash, after=self.base.position)
        row = self.run(self.connection.fetchrow("select position, hash, recorded_at from log_head"))
        assert row is not None
        assert (row["position"], row["hash"]) == (self.model.head, last_hash)
        assert not log or row["recorded_at"] == log[-1].recorded_at

    def _append_of(self, wish: Wish) -> AppendRequest:
        stream = self.life + wish.stream
        version = len(self.model.streams.get(stream, [])) + wish.off
        key = wish.key and self.life + wish.key
        events = [fresh(event) for event in wish.events]
        log_id = {"present": self.model.log_id, "first": self.base.log_id}.get(wish.under)
        return AppendRequest(stream, version, uuid7(), events, key, wish.fingerprint if key else None, log_id)


def fresh(event: NewEvent) -> NewEvent:
    """The event under an id that no other has; a shrinking life repeats itself."""
    return event._replace(event_id=uuid7())


async def collected(events: Any) -> list[StoredEvent]:
    return [event async for event in events]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


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
                max_examples=70,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
    finally:
        runner.run(connection.close())
