"""Parked streams, whatever happens: each is the fold of its events before the one that could not be applied."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Coroutine
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from projector import engine as engine_module
from projector.engine import Engine
from projector.folding import PoisonEvent, digest, fold
from projector.lease import Lease
from projector.projection import Entry, Recorded
from projector.projections.orders import ORDERS, OrderDocument
from projector.session import Session
from projector.stores import EVERYTHING, Fenced
from shared import codec
from shared.event_store import StoredEvent
from shared.events.order import OrderEvent, order_of
from shared.poison import LONGEST_ERROR, LONGEST_TRACEBACK, describe
from shared.settings import OnPoison
from tests.orders import paid, placed, shipped
from tests.projector.histories import later, placings, stored
from tests.projector.memory import MemoryLog, MemoryStore

T = TypeVar("T")
ORDER_IDS = st.sampled_from("abc")
MOST_PARKED = 2  # of the three orders


def folded(events: list[StoredEvent]) -> OrderDocument | None:
    """One by one, by the sound projection."""
    document = None
    for event in events:
        payload = codec.decode(event.event_type, event.schema_version, event.data)
        recorded = Recorded(payload, event.version, event.position, event.occurred_at)
        document = ORDERS.apply(order_of(event.stream_id), document, recorded)
    return document


@dataclass(slots=True)
class OverlappingLease(Lease):
    machine: Parking

    async def raise_epoch(self, above: int) -> None:
        if self.epoch != self.machine.epoch:
            raise ConnectionError  # a lease that is over has no connection
        self.epoch = self.machine.epoch = above + 1


class Parking(RuleBasedStateMachine):
    """Engines on a log and a store in memory. Events are poisoned and mended, engines crash and overlap, the store is
    emptied and replaced by older copies."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.loop = asyncio.new_event_loop()
        self.log, self.store = MemoryLog(), MemoryStore()
        self.poisoned: set[int] = set()
        self.ever_poisoned: set[int] = set()
        self.engines: list[Engine[OrderDocument]] = []
        self.copies = [self.store.copy()]
        self.epoch = 0
        self.projection = replace(ORDERS, apply=self.apply)

    def apply(self, order_id: str, document: OrderDocument | None, recorded: Recorded) -> OrderDocument:
        if recorded.position in self.poisoned:
            raise ValueError(f"indigestible: {recorded.position}")
        return ORDERS.apply(order_id, document, recorded)

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @initialize(on_poison=st.sampled_from(["park", "park", "stop"]))
    def begin(self, on_poison: OnPoison) -> None:
        self.log.install(self.patch)
        self.patch.setattr(engine_module, "MOST_PARKED", MOST_PARKED)
        self.start(on_poison, 3)

    def start(self, on_poison: OnPoison, batch_size: int) -> None:
        """Another engine takes over; those before do not know."""
        self.epoch += 1
        lease = OverlappingLease(Session(cast("Any", None)), self.epoch, "", self)
        self.engines = [*self.engines[-2:], Engine(self.projection, self.store, lease, batch_size, on_poison)]

    @rule(order_ids=st.lists(ORDER_IDS, min_size=1, max_size=4), data=st.data(), poisoned=st.integers(0, 8))
    def append(self, order_ids: list[str], data: st.DataObject, poisoned: int) -> None:
        for nr, order_id in enumerate(order_ids):
            version = 1 + sum(event.stream_id == f"order-{order_id}" for event in self.log.events)
            event: OrderEvent = data.draw(placings if version == 1 else later)
            position = len(self.log.events) + 1
            self.log.events.append(stored(event, order_id, version, position)._replace(hash=b"%032d" % position))
            if nr == poisoned:
                self.poisoned.add(position)
                self.ever_poisoned.add(position)

    @rule(which=st.sampled_from([-1, -1, -1, -2, -3]))
    def step(self, which: int, retry: Container[str] = ()) -> None:
        engine = self.engines[max(which, -len(self.engines))]
        try:
            self.do(engine.step(retry))
        except (PoisonEvent, ConnectionError):
            pass
        except Fenced:
            assert engine is not self.engines[-1]

    @rule(data=st.data(), asked=ORDER_IDS | st.just(EVERYTHING))
    def mend_and_retry(self, data: st.DataObject, asked: str) -> None:
        if self.poisoned:
            self.poisoned.remove(data.draw(st.sampled_from(sorted(self.poisoned))))
        self.step(-1, {asked})

    @rule(what=st.sampled_from(["park", "stop", "before", "after", "copy", "older copy"]), number=st.integers(1, 5))
    def disturb(self, what: OnPoison | str, number: int) -> None:
        match what:
            case "park" | "stop":
                self.start(what, number)
            case "before" | "after":
                self.store.fail = what
            case "copy":
                self.copies = [*self.copies[-2:], self.store.copy()]
            case "older copy":
                self.store.contents = deepcopy(self.copies[number % len(self.copies)])

    @invariant()
    def every_stream_is_the_fold_of_its_events_before_its_poison(self) -> None:
        contents = self.store.contents
        position = 0 if contents.checkpoint is None else contents.checkpoint.position
        entries: set[Entry] = set()
        for order_id in "abc":
            events = [e for e in self.log.events[:position] if e.stream_id == f"order-{order_id}"]
            parked = contents.parked.get(order_id)
            if parked is not None:
                assert parked.position in self.ever_poisoned
                assert parked.waiting == sum(event.position > parked.position for event in events)
                events = [event for event in events if event.position < parked.position]
            document = folded(events)
            found = contents.documents.get(order_id)
            assert (found and found["document"].encode()) == (document and msgspec.json.encode(document))
            entries |= ORDERS.entries(document) if document else set()
        assert contents.entries == {tuple(entry) for entry in entries}
        assert len(contents.parked) <= MOST_PARKED

    def teardown(self) -> None:
        """Once everything is mended and tried again, nothing is missing."""
        try:
            self.all_is_mended()
        finally:
            self.loop.close()
            self.patch.undo()

    def all_is_mended(self) -> None:
        self.poisoned.clear()
        self.store.fail = None
        self.start("stop", 3)
        while self.do(self.engines[-1].step({EVERYTHING})):
            pass
        contents = self.store.contents
        assert contents.parked == {}
        assert contents.checkpoint is not None
        assert contents.checkpoint.position == len(self.log.events)
        self.every_stream_is_the_fold_of_its_events_before_its_poison()


def test_whatever_happens_a_read_model_is_the_fold_of_the_log_up_to_what_is_parked() -> None:
    run_state_machine_as_test(
        Parking,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


def raising(*positions: int) -> Any:
    def apply(order_id: str, document: OrderDocument | None, recorded: Recorded) -> OrderDocument:
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
    result = fold(raising(3), log, {}, room=1)

    assert result.poison is None
    assert result.last == log[-1]
    assert {name: document.version for name, document in result.documents.items()} == {"a": 1, "b": 3}
    assert result.parked["a"].event == log[2]
    assert result.waiting == {"a": 1}


def test_without_room_the_fold_stops_before_the_event(log: list[StoredEvent]) -> None:
    result = fold(raising(3, 4), log, {}, room=1)

    assert result.poison is not None
    assert result.poison.event == log[3]
    assert result.last == log[2]


async def test_an_event_that_makes_a_document_that_cannot_be_written_is_poison_as_well(log: list[StoredEvent]) -> None:
    def entries(document: OrderDocument) -> frozenset[Entry]:
        if document.order_id == "a" and document.version > 1:
            raise ValueError("nowhere to list it")
        return ORDERS.entries(document)

    result, changes = await digest(replace(ORDERS, entries=entries), log, {}, room=1)

    assert result.parked["a"].event == log[2]
    assert {name: fields["version"] for name, fields in changes.documents.items()} == {"a": "1", "b": "3"}


def test_a_want_of_memory_is_no_poison(log: list[StoredEvent]) -> None:
    def apply(*_: object) -> OrderDocument:
        raise MemoryError

    with pytest.raises(MemoryError):
        fold(replace(ORDERS, apply=apply), log, {}, room=1)


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
