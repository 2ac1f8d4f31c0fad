"""What event streams hold for clients that do not read is bounded over all of them."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from query_service.live.held_events import HeldByStream, HeldEvents, size_of
from shared.eventstore.log import StoredEvent
from tests.projector.test_versions import history


@pytest.fixture
def events() -> list[StoredEvent]:
    return [event._replace(data="x" * 10_000) for event in history()[:4]]


class Stack:
    def __init__(self, max_bytes: int, stack: ExitStack) -> None:
        self.held = HeldEvents(max_bytes)
        self.cut: list[str] = []
        self._stack = stack

    def stream(self, name: str) -> HeldByStream:
        return self._stack.enter_context(self.held.stream(lambda: self.cut.append(name)))


def test_the_stream_that_holds_the_most_is_cut_off(events: list[StoredEvent]) -> None:
    with ExitStack() as stack:
        streams = Stack(3 * size_of(events[0]), stack)
        slow, fast = streams.stream("slow"), streams.stream("fast")
        slow.hold(events[:2])
        for _ in range(3):
            fast.hold(events[2:3])
            fast.release(events[2:3])
        slow.hold(events[2:3])
        assert streams.cut == []
        fast.hold(events[3:])
        assert streams.cut == ["slow"]
        assert slow.is_cut
        slow.hold(events[:2])
        with slow.sending(b"x" * 1_000_000):
            pass
        slow.release(events[:3])
        assert streams.cut == ["slow"], "what was cut off holds nothing"
        assert not fast.is_cut


def test_an_event_that_many_streams_hold_counts_once(events: list[StoredEvent]) -> None:
    with ExitStack() as stack:
        streams = Stack(2 * size_of(events[0]), stack)
        many = [streams.stream(str(number)) for number in range(100)]
        for stream in many:
            stream.hold(events[:2])
        assert streams.cut == []
        for stream in many:
            stream.release(events[:1])
        many[0].hold(events[2:3])
        assert streams.cut == []


def test_a_block_that_the_client_does_not_take_counts_for_its_stream_alone() -> None:
    with ExitStack() as stack:
        streams = Stack(25_000, stack)
        one, other = streams.stream("one"), streams.stream("other")
        with one.sending(b"x" * 10_000):
            assert streams.cut == []
            with other.sending(b"x" * 20_000):
                assert streams.cut == ["other"]
            with streams.stream("third").sending(b"x" * 14_000):
                assert streams.cut == ["other"]
