"""The fulfilment of order 42, decided without a store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from command_service.domain import DECIDERS
from command_service.domain.decider import MoreStreams
from command_service.gateways.payment import Authorised, Captured
from command_service.processes.advance import AdvanceProcess, Answer, SubjectChanged, Trigger
from shared.aggregates import aggregate_of
from shared.aggregates.order import OrderLine, OrderPlaced

NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)
PLACED = OrderPlaced("ann", "GBP", (OrderLine("MUG", 2, 500),), "home")
ORDER_42, PROCESS_42 = "order-42", "process-fulfilment-42"
AUTHORISE, CAPTURE, BOOK, HAND_OVER = (f"fulfilment-42-{number}" for number in range(1, 5))


class Log:
    """The streams of order 42 and of its process."""

    def __init__(self, *events: Any) -> None:
        self.now = NOW
        self.position = 0
        self.states: dict[str, Any] = {ORDER_42: None, PROCESS_42: None}
        self.append(*events)

    def append(self, *events: Any) -> None:
        """To the order, by its routes."""
        self._apply({ORDER_42: events})

    def _apply(self, events: Mapping[str, Any]) -> None:
        for stream, some in events.items():
            for event in some:
                self.states[stream] = aggregate_of(stream).after(self.states.get(stream), event, self.now)
                self.position += 1

    def when(self, trigger: Trigger) -> dict[str, list[Any]]:
        """What is appended, to each stream."""
        return self.give(AdvanceProcess("fulfilment", "42", trigger))

    def give(self, command: Any) -> dict[str, list[Any]]:
        """What is appended, to each stream."""
        while True:
            try:
                decided = DECIDERS[type(command)].decide_over(command, self.states, self.now)
            except MoreStreams as more:
                self.states.update(dict.fromkeys(more.streams))
                continue
            self._apply(decided)
            return {stream: [*events] for stream, events in decided.items()}

    def see(self, event_type: type[Any]) -> dict[str, list[Any]]:
        """Tells the process of the event that was appended last."""
        return self.when(SubjectChanged(self.position, event_type.__name__))


def names(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


def placed() -> Log:
    log = Log(PLACED)
    log.see(OrderPlaced)
    return log


def captured() -> Log:
    """The order is paid; a parcel is being booked."""
    log = placed()
    log.when(Answer(AUTHORISE, Authorised()))
    log.when(Answer(CAPTURE, Captured()))
    return log
