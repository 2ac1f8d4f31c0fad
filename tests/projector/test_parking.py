"""Parked streams, whatever happens: each is the fold of its events before the one that could not be applied."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Coroutine
from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from projector import engine as engine_module
from projector.engine import Engine
from projector.folding import fold, fold_batch
from projector.projection import D, Entry, Projection, RecordedEvent
from projector.projections.orders import ORDERS
from projector.routing import PoisonEvent, record, route
from projector.stores.store import EVERYTHING, Fenced
from shared.aggregates.order import OrderDocument, OrderEvent
from shared.eventstore.lease import Lease, try_acquire
from shared.eventstore.log import StoredEvent
from shared.eventstore.subscription import LogSession, open_session
from shared.failpoints import armed
from shared.read_models.poison import LONGEST_ERROR, LONGEST_TRACEBACK, describe
from shared.settings import OnPoison, Settings
from tests.effort import examples
from tests.orders import paid, placed, shipped
from tests.projector.fresh_log import FreshLog
from tests.projector.histories import later, placings, stored
from tests.projector.inspected_stores import (
    NOTHING,
    ConnectionCut,
    InspectedPostgres,
    InspectedRedis,
    InspectedStore,
    listed,
    load_all,
)

T = TypeVar("T")


class Do(Protocol):
    """Runs what is asked of the servers, for a test that is not asynchronous itself."""

    def __call__(self, asked: Coroutine[Any, Any, T], /) -> T: ...


ORDER_IDS = st.sampled_from("abc")
DISTURBANCES = st.sampled_from(["park", "stop", "applying", "applied", "copy", "older copy", "older copy"])
MOST_PARKED = 2  # of the three orders
MOST_ENGINES = 3


def folded(projection: Projection[D], events: list[StoredEvent]) -> D | None:
    """One by one, by the sound projection."""
    document = None
    for event in events:
        recorded = record(event)
        document = projection.apply(recorded.aggregate_id, document, recorded)
    return document


class OverlappingLease(Lease):
    """Of a projector that does not know of those after it. Its session lives, so that it can go on reading."""

    def __init__(self, held: Lease, machine: Parking) -> None:
        super().__init__(held.session, held.epoch, held.name)
        self._machine = machine

    async def raise_epoch(self, above: int) -> None:
        if self is not self._machine.lease:
            raise ConnectionCut  # a lease that is over has no connection
        await super().raise_epoch(above)


class Parking(RuleBasedStateMachine):
    """Engines on a real log and a real store. Events are poisoned and mended, engines crash and overlap, the store is
    emptied and replaced by older copies."""

    def __init__(self, do: Do, log: FreshLog, inspected: InspectedStore, sessions: list[LogSession]) -> None:
        super().__init__()
        self.do, self.log, self.inspected, self.sessions = do, log, inspected, sessions
        self.poisoned: set[int] = set()
        self.ever_poisoned: set[int] = set()
        self.turns = 0
        self.breaks_off: str | None = None  # the failpoint at which the next apply loses its connection
        self.lease: Lease | None = None  # of the last engine
        self.engines: list[Engine[Any]] = []
        self.copies = [NOTHING]
        self.projection: Projection[Any] = replace(inspected.projection, apply=self.apply)

    def apply(self, order_id: str, document: Any, recorded: RecordedEvent[Any]) -> Any:
        if recorded.position in self.poisoned:
            raise ValueError(f"indigestible: {recorded.position}")
        return self.inspected.projection.apply(order_id, document, recorded)

    @initialize(on_poison=st.sampled_from(["park", "park", "stop"]))
    def begin(self, on_poison: OnPoison) -> None:
        self.do(self.log.begin())
        self.do(self.inspected.put_back(NOTHING))
        self.start(on_poison, 3)

    def start(self, on_poison: OnPoison, batch_size: int) -> None:
        """Another engine takes over; those before do not know."""
        self.turns += 1
        number = self.turns % len(self.sessions)
        held = self.do(try_acquire(self.sessions[number], f"the lease of session {number}"))
        assert held is not None
        self.lease = OverlappingLease(held, self)
        engine = Engine(self.projection, self.inspected.store, self.lease, batch_size, on_poison)
        self.engines = [*self.engines[1 - MOST_ENGINES :], engine]

    @rule(what=st.sampled_from(["append"] * 3 + ["step"] * 4 + ["retry"] + ["disturb"] * 2), data=st.data())
    def go_on(self, what: str, data: st.DataObject) -> None:
        """One rule, because of several Hypothesis leaves some out: a life without events or steps shows nothing."""
        match what:
            case "append":
                self.append(data, data.draw(st.lists(ORDER_IDS, min_size=1, max_size=4)))
            case "step":
                self.step(data.draw(st.sampled_from([-1, -1, -1, -2, -3])))
            case "retry":
                self.mend_and_retry(data, data.draw(ORDER_IDS | st.just(EVERYTHING)))
            case "disturb":
                self.disturb(data.draw(DISTURBANCES), data.draw(st.integers(1, 5)))

    def append(self, data: st.DataObject, order_ids: list[str]) -> None:
        poisoned = data.draw(st.integers(0, 6))
        for nr, order_id in enumerate(order_ids):
            version = 1 + sum(event.stream_id == f"order-{order_id}" for event in self.log.events)
            event: OrderEvent = data.draw(placings if version == 1 else later)
            position = len(self.log.events) + 1
            self.do(self.log.append(stored(event, order_id, version, position)))
            if nr == poisoned:
                self.poisoned.add(position)
                self.ever_poisoned.add(position)

    def step(self, which: int, retry: Container[str] = ()) -> None:
        engine = self.engines[max(which, -len(self.engines))]
        try:
            with armed(f"projection.{self.breaks_off}", self.break_off) if self.breaks_off else nullcontext():
                self.do(engine.step(retry))
        except (PoisonEvent, ConnectionCut):
            pass
        except Fenced:
            assert engine is not self.engines[-1]

    def break_off(self) -> None:
        self.breaks_off = None
        raise ConnectionCut

    def mend_and_retry(self, data: st.DataObject, asked: str) -> None:
        if self.poisoned:
            self.poisoned.remove(data.draw(st.sampled_from(sorted(self.poisoned))))
        self.step(-1, {asked})

    def disturb(self, what: OnPoison | str, number: int) -> None:
        match what:
            case "park" | "stop":
                self.start(what, number)
            case "applying" | "applied":
                self.breaks_off = what
            case "copy":
                self.copies = [*self.copies[-1:], self.do(self.inspected.copy())]
            case "older copy":
                self.do(self.inspected.put_back(self.copies[number % len(self.copies)]))

    @invariant()
    def every_stream_is_the_fold_of_its_events_before_its_poison(self) -> None:
        store = self.inspected.store
        checkpoint = self.do(store.checkpoint())
        position = 0 if checkpoint is None else checkpoint.position
        found = {} if checkpoint is None else self.do(load_all(store, checkpoint, [*"abc"]))
        every_parked = [] if checkpoint is None else self.do(store.parked(checkpoint))
        entries: list[Entry] = []
        for order_id in "abc":
            events = [e for e in self.log.events[:position] if e.stream_id == f"order-{order_id}"]
            for parked in (poison for poison in every_parked if poison.document_id == order_id):
                assert parked.position in self.ever_poisoned
                assert parked.waiting == sum(event.position > parked.position for event in events)
                events = [event for event in events if event.position < parked.position]
            document = folded(self.inspected.projection, events)
            assert found.get(order_id) == (document and msgspec.json.encode(document))
            entries += self.inspected.projection.entries(document) if document else ()
        assert self.do(self.inspected.listed()) == listed(entries)
        assert self.do(store.count_parked()) == len(every_parked) <= MOST_PARKED

    def teardown(self) -> None:
        """Once everything is mended and tried again, nothing is missing."""
        self.poisoned.clear()
        self.breaks_off = None
        self.start("stop", 3)
        while self.do(self.engines[-1].step({EVERYTHING})):
            pass
        checkpoint = self.do(self.inspected.store.checkpoint())
        assert checkpoint is not None
        assert checkpoint.position == len(self.log.events)
        assert self.do(self.inspected.store.parked(checkpoint)) == []
        self.every_stream_is_the_fold_of_its_events_before_its_poison()


@pytest.fixture
async def do() -> Do:
    return asyncio.get_running_loop().run_until_complete


@pytest.fixture
async def sessions(projector_settings: Settings, fresh_log: FreshLog) -> AsyncIterator[list[LogSession]]:
    """One more than there are engines at a time; they may idle while a failure is made small."""
    async with AsyncExitStack() as stack:
        opened = [open_session(projector_settings, fresh_log.notified.set, 600.0) for _ in range(MOST_ENGINES + 1)]
        yield [await stack.enter_async_context(session) for session in opened]


@pytest.fixture(params=["redis", "postgresql"])
async def inspected(
    request: pytest.FixtureRequest,
    redis: Redis,
    pool: asyncpg.Pool[asyncpg.Record],
    connection: asyncpg.Connection[asyncpg.Record],
) -> InspectedStore:
    return InspectedRedis(redis) if request.param == "redis" else InspectedPostgres(pool, connection)


@pytest.mark.promise(
    "poison", "A parked stream waits in order while the others continue, and misses nothing after a retry"
)
@pytest.mark.hypothesis
@pytest.mark.timeout(400)  # a failure is worth the time it takes to shrink
def test_whatever_happens_a_read_model_is_the_fold_of_the_log_up_to_what_is_parked(
    do: Do, fresh_log: FreshLog, inspected: InspectedStore, sessions: list[LogSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MOST_PARKED", MOST_PARKED)
    run_state_machine_as_test(
        lambda: Parking(do, fresh_log, inspected, sessions),  # type: ignore[arg-type]  # any factory will do
        settings=settings(
            max_examples=examples(25),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def raising(*positions: int) -> Any:
    def apply(order_id: str, document: OrderDocument | None, recorded: RecordedEvent[Any]) -> OrderDocument:
        if recorded.position in positions:
            raise ValueError("indigestible")
        return ORDERS.apply(order_id, document, recorded)

    return replace(ORDERS, apply=apply)


@pytest.fixture
def log() -> list[StoredEvent]:
    """Two orders, taking turns."""
    steps: tuple[OrderEvent, ...] = (placed(), paid(), shipped())
    events = [(event, order_id) for event in steps for order_id in "ab"]
    return [stored(event, order_id, 1 + nr // 2, nr + 1) for nr, (event, order_id) in enumerate(events)]


def test_a_parked_stream_does_not_hold_up_the_others(log: list[StoredEvent]) -> None:
    result = fold(raising(3), route(ORDERS, log), {}, may_park=1)

    assert result.poison is None
    assert result.events == len(log)
    assert {name: document.version for name, document in result.documents.items()} == {"a": 1, "b": 3}
    assert result.parked["a"].event.position == 3
    assert result.waiting == {"a": ["order-a"]}


def test_without_room_the_fold_stops_before_the_event(log: list[StoredEvent]) -> None:
    result = fold(raising(3, 4), route(ORDERS, log), {}, may_park=1)

    assert result.poison is not None
    assert result.poison.event.position == 4
    assert result.events == 3


async def test_an_event_that_makes_a_document_that_cannot_be_written_is_poison_as_well(log: list[StoredEvent]) -> None:
    def entries(document: OrderDocument) -> frozenset[Entry]:
        if document.order_id == "a" and document.version > 1:
            raise ValueError("nowhere to list it")
        return ORDERS.entries(document)

    result, changes = await fold_batch(replace(ORDERS, entries=entries), route(ORDERS, log), {}, may_park=1)

    assert result.parked["a"].event.position == 3
    assert {name: fields["version"] for name, fields in changes.documents.items()} == {"a": "1", "b": "3"}


def test_a_want_of_memory_is_no_poison(log: list[StoredEvent]) -> None:
    def apply(*_: object) -> OrderDocument:
        raise MemoryError

    with pytest.raises(MemoryError):
        fold(replace(ORDERS, apply=apply), route(ORDERS, log), {}, may_park=1)


def test_what_is_kept_of_an_error_is_bounded_and_can_be_written() -> None:
    try:
        raise ValueError("\ud800" + 100_000 * "x")
    except ValueError as error:
        line, traceback = describe(error)

    assert len(line) <= LONGEST_ERROR
    assert len(traceback) <= LONGEST_TRACEBACK
    assert line.startswith("ValueError: \\ud800xxx")
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert (line + traceback).encode()
