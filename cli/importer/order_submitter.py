"""Places orders through the command API, many at a time, until each outcome is known or patience runs out.

Repeating a request is safe because the order id is ours: an order that an earlier attempt, or an earlier run, did place
is answered 409 `order-already-placed`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx
import msgspec

from cli.importer.http_connection import Answer, Connection, Target
from cli.importer.online_retail import Order, Placement, Reject

# The service is overloaded, on its way up or down, or does not know the outcome itself: ask again.
RETRIED = {429, 500, 502, 503, 504}
REFUSED = {400, 409, 413, 422}
ALREADY_PLACED = "order-already-placed"

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

_encode = msgspec.json.Encoder().encode


class _FieldError(msgspec.Struct):
    pointer: str = ""
    detail: str = ""


class _Problem(msgspec.Struct):
    code: str
    detail: str = ""
    errors: list[_FieldError] = []


class _NotSettled(Exception):
    """Patience ran out before the outcome of an order was learned."""


class _NotTheCommandService(Exception):
    """Whoever listens at the address does not answer as the command service does."""


@dataclass
class Tally:
    """What is known so far. Valid at any moment, also when a run is interrupted."""

    accepted: int = 0
    already_there: int = 0
    refused: list[Reject] = field(default_factory=list)
    trouble: str = ""  # why the last attempt without an outcome had none

    @property
    def settled(self) -> int:
        return self.accepted + self.already_there + len(self.refused)


class Placer:
    """Places orders with at most `concurrency` requests at a time.

    An order is given up after `patience` seconds of attempts; all the rest are, once no order at all was settled for
    that long. What is given up is missing from the tally, never guessed.
    """

    def __init__(self, command_url: str, concurrency: int, patience: float, tally: Tally) -> None:
        base = httpx.URL(command_url)
        self._url = base.copy_with(path=base.path.rstrip("/") + "/orders")
        self._concurrency = concurrency
        self._patience = patience
        self._tally = tally
        self._last_settled = time.monotonic()
        self._stopped = False

    async def place(self, placements: list[Placement], on_settled: Callable[[], None]) -> None:
        """Place the orders, in order as far as concurrency allows; `on_settled` is called once per known outcome."""
        self._last_settled = time.monotonic()
        queue = iter(placements)
        target = Target(self._url)
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._concurrency, len(placements))):
                workers.create_task(self._work(Connection(target), queue, on_settled))

    async def _work(self, connection: Connection, queue: Iterator[Placement], on_settled: Callable[[], None]) -> None:
        try:
            await self._place_each(connection, queue, on_settled)
        finally:
            connection.close()

    async def _place_each(
        self, connection: Connection, queue: Iterator[Placement], on_settled: Callable[[], None]
    ) -> None:
        for placement in queue:
            if self._stopped or time.monotonic() - self._last_settled > self._patience:
                return
            try:
                answer = await self._settle(connection, placement.order)
                self._count(placement, answer)
            except _NotSettled:
                continue
            except _NotTheCommandService as error:
                self._tally.trouble, self._stopped = str(error), True
                return
            self._last_settled = time.monotonic()
            on_settled()

    async def _settle(self, connection: Connection, order: Order) -> Answer:
        """The first answer that says what became of the order. Raises `_NotSettled` when there is none in time."""
        body = _encode(order)
        deadline = time.monotonic() + self._patience
        for pause in _pauses():
            wait = pause
            try:
                answer = await connection.post(body)
            except OSError as error:
                self._tally.trouble = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            else:
                if answer.status not in RETRIED:
                    return answer
                self._tally.trouble = f"{answer.status} {_explain(answer)}"
                wait = max(pause, _retry_after(answer))
            if self._stopped or time.monotonic() + wait > deadline:
                break
            await asyncio.sleep(wait)
        raise _NotSettled

    def _count(self, placement: Placement, answer: Answer) -> None:
        order = placement.order
        if answer.status == HTTPStatus.CREATED:
            self._tally.accepted += 1
            return
        problem = _problem(answer) if answer.status in REFUSED else None
        if problem is None:
            raise _NotTheCommandService(
                f"{self._url} answered {answer.status}, which the order command service does not"
            )
        if problem.code == ALREADY_PLACED:
            self._tally.already_there += 1
        else:
            reject = Reject(order.order_id, placement.lines, problem.code, _explain(answer))
            self._tally.refused.append(reject)


def _pauses() -> Iterator[float]:
    """Doubling pauses in seconds, without end; drawn at random so that the workers do not return all at once."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _retry_after(answer: Answer) -> float:
    """Seconds; 0 where the header is missing or a date, which the command service never sends."""
    try:
        return float(answer.retry_after or 0)
    except ValueError:
        return 0.0


def _problem(answer: Answer) -> _Problem | None:
    """The problem details (RFC 9457) of an error, or None if it carries none."""
    try:
        return msgspec.json.decode(answer.body, type=_Problem)
    except msgspec.DecodeError:
        return None


def _explain(answer: Answer) -> str:
    problem = _problem(answer)
    if problem is None:
        return answer.reason
    fields = "; ".join(f"{error.pointer} {error.detail}" for error in problem.errors[:5])
    return f"{problem.detail} ({fields})" if fields else problem.detail
