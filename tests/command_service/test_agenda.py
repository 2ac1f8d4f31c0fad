"""What processes wait for, and in which order it is done."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from command_service.processes.agenda import Agenda, Pending, PendingTimer, Waiting
from command_service.processes.lanes import Lane, Schedule
from shared.aggregates.process import (
    PROCESS,
    EffectAnswered,
    EffectRequested,
    EventReceived,
    ProcessEnded,
    ProcessRetried,
    ProcessStarted,
    ProcessStuck,
    TimerCancelled,
    TimerSet,
)
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent
from shared.eventstore.memory import InMemoryEventStore

NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)
DUE_AT = NOW + timedelta(hours=1)
BEGIN = (ProcessStarted("fulfilment", "1", 1), EventReceived(7, "OrderPlaced", {}))
REQUESTED = EffectRequested("fulfilment-1-1", "Authorise", {"amount": 1000, "currency": "GBP"})
LOG_ID = InMemoryEventStore().log_id


def stored(position: int, process_id: str, event: Any) -> StoredEvent:
    name, version, data = codec.encode(event)
    metadata = '{"command_id":"c","correlation_id":"a journey"}'
    return StoredEvent(position, PROCESS.stream_of(process_id), 1, LOG_ID, name, version, data, metadata, NOW, NOW, b"")


def after(*events: Any, process_id: str = "fulfilment-1", agenda: Agenda | None = None) -> Agenda:
    agenda = agenda or Agenda()
    for position, event in enumerate(events, start=8):
        agenda.apply(stored(position, process_id, event))
    return agenda


def names(pending: list[Pending]) -> list[str]:
    return [one.name for one in pending]


def test_an_effect_is_waited_for_until_it_has_its_answer() -> None:
    agenda = after(*BEGIN, REQUESTED)
    [effect] = agenda.effects()
    assert (effect.requested, effect.cause.correlation_id, agenda.has(effect)) == (REQUESTED, "a journey", True)

    after(EffectAnswered(REQUESTED.effect_id, "Authorised", {}), agenda=agenda)
    assert (agenda.pending(), agenda.has(effect)) == ([], False)


def test_a_timer_is_waited_for_until_it_is_cancelled_or_set_anew() -> None:
    agenda = after(*BEGIN, TimerSet("payment", DUE_AT))
    [first] = agenda.timers()
    after(TimerSet("payment", DUE_AT + timedelta(hours=1)), agenda=agenda)
    [second] = agenda.timers()
    assert (agenda.has(first), agenda.has(second)) == (False, True)

    after(TimerCancelled("payment"), agenda=agenda)
    assert agenda.pending() == []


def test_what_a_stuck_process_waits_for_is_left_out_until_it_is_retried() -> None:
    agenda = after(*BEGIN, REQUESTED, TimerSet("payment", DUE_AT), ProcessStuck("a defect"))
    assert (agenda.pending(), agenda.stuck) == ([], ["fulfilment-1"])

    waited_for = agenda.apply(stored(20, "fulfilment-1", ProcessRetried({})))

    assert names([*waited_for]) == names(agenda.pending()) == ["fulfilment-1-1", "fulfilment-1 payment"]


def test_a_process_that_ended_waits_for_nothing() -> None:
    agenda = after(*BEGIN, TimerSet("payment", DUE_AT), ProcessEnded("delivered"))
    assert (agenda.pending(), agenda.processes) == ([], {})


def test_what_is_waited_for_is_read_back_as_it_was_saved() -> None:
    [saved] = after(*BEGIN, REQUESTED, TimerSet("payment", DUE_AT)).processes.values()
    assert saved.begun_by == 7
    assert msgspec.json.decode(msgspec.json.encode(saved), type=Waiting) == saved


@pytest.mark.bound("processes", "what each process waits for that has not ended")
def test_a_process_that_waits_takes_little_memory() -> None:
    count = 2_000
    tracemalloc.start()
    agenda = Agenda()
    for number in range(count):
        requested = EffectRequested(f"fulfilment-{number}-1", REQUESTED.effect, dict(REQUESTED.data))
        after(*BEGIN, requested, TimerSet("payment", DUE_AT), process_id=f"fulfilment-{number}", agenda=agenda)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size / count < 4 * 1024


# --- in which order ------------------------------------------------------------------------------------------------


def timer(number: int, due_at: datetime = DUE_AT) -> PendingTimer:
    agenda = after(*BEGIN, TimerSet("track", due_at), process_id=f"fulfilment-{number}")
    return agenda.timers()[0]


def taken(lane: Lane) -> list[str]:
    started = []
    while (pending := lane.start()) is not None:
        started.append(pending.process_id.removeprefix("fulfilment-"))
    return started


def test_a_lane_takes_old_and_new_processes_in_turn() -> None:
    lane = Lane(slots=5)
    for number in range(10):
        lane.put(timer(number), newer=False)
    for number in (10, 11):
        lane.put(timer(number), newer=True)

    assert taken(lane) == ["10", "0", "11", "1", "2"]


def test_a_lane_starts_as_many_as_it_has_slots() -> None:
    lane, first, second = Lane(slots=1), timer(1), timer(2)
    for pending in (first, second):
        lane.put(pending, newer=True)
    assert taken(lane) == ["1"]

    lane.finish(first)
    assert taken(lane) == ["2"]


def test_what_is_queued_or_under_way_is_not_started_twice() -> None:
    lane, pending = Lane(slots=2), timer(1)
    for _ in range(2):
        lane.put(pending, newer=True)
    assert taken(lane) == ["1"]

    lane.put(pending, newer=True)
    assert taken(lane) == []


def test_a_schedule_gives_what_is_due_in_order() -> None:
    schedule = Schedule(lambda _: True)
    late, soon, later = (timer(number, NOW + timedelta(seconds=seconds)) for number, seconds in enumerate((-1, 0, 1)))
    for pending in (later, soon, late):
        schedule.add(pending, pending.due_at)

    assert [*schedule.take_due(NOW)] == [late, soon]
    assert schedule.next_due == later.due_at


def test_a_schedule_drops_what_is_not_waited_for_any_more() -> None:
    waited_for = {timer(number) for number in range(3)}
    schedule = Schedule(waited_for.__contains__)
    for pending in waited_for:
        schedule.add(pending, pending.due_at)
    other = timer(5)
    for _ in range(1_100):
        schedule.add(other, other.due_at)

    assert len(schedule) < 200
