"""Places orders through the command API, many at a time, until each outcome is known or patience runs out.

Repeating a request is safe because the order id is ours: an order that an earlier attempt, or an earlier run, did place
is answered 409 `order-already-placed`.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import msgspec

from cli.online_retail import Order, Placement, Reject

# The service is overloaded, on its way up or down, or does not know the outcome itself: ask again.
RETRIED = {429, 500, 502, 503, 504}
REFUSED = {400, 409, 413, 422}
ALREADY_PLACED = "order-already-placed"

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
REQUEST_SECONDS = 30.0  # longer than the service waits for its database, so that it is the service who answers


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
        self._command_url = command_url
        self._concurrency = concurrency
        self._patience = patience
        self._tally = tally
        self._last_settled = time.monotonic()
        self._stopped = False

    async def place(self, placements: list[Placement], on_settled: Callable[[], None]) -> None:
        """Place the orders, in order as far as concurrency allows; `on_settled` is called once per known outcome."""
        self._last_settled = time.monotonic()
        queue = iter(placements)
        tls = httpx.create_ssl_context()
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._concurrency, len(placements))):
                workers.create_task(self._work(tls, queue, on_settled))

    async def _work(self, tls: ssl.SSLContext, queue: Iterator[Placement], on_settled: Callable[[], None]) -> None:
        # A client of its own, with one connection: in a pool that all share, httpcore looks at every connection for
        # every request, which was half of the time an import took.
        client = httpx.AsyncClient(
            base_url=self._command_url,
            headers={"Content-Type": "application/json"},
            timeout=REQUEST_SECONDS,
            verify=tls,  # shared, because reading the certificates takes far longer than an order
            trust_env=False,  # a proxy of the environment is for the internet, not for the command service
        )
        async with client:
            await self._place_each(client, queue, on_settled)

    async def _place_each(
        self, client: httpx.AsyncClient, queue: Iterator[Placement], on_settled: Callable[[], None]
    ) -> None:
        for placement in queue:
            if self._stopped or time.monotonic() - self._last_settled > self._patience:
                return
            try:
                response = await self._settle(client, placement.order)
                self._count(placement, response)
            except _NotSettled:
                continue
            except _NotTheCommandService as error:
                self._tally.trouble, self._stopped = str(error), True
                return
            self._last_settled = time.monotonic()
            on_settled()

    async def _settle(self, client: httpx.AsyncClient, order: Order) -> httpx.Response:
        """The first answer that says what became of the order. Raises `_NotSettled` when there is none in time."""
        body = msgspec.json.encode(order)
        deadline = time.monotonic() + self._patience
        for pause in _pauses():
            wait = pause
            try:
                response = await client.post("/orders", content=body)
            except httpx.RequestError as error:
                self._tally.trouble = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            else:
                if response.status_code not in RETRIED:
                    return response
                self._tally.trouble = f"{response.status_code} {_explain(response)}"
                wait = max(pause, _retry_after(response))
            if self._stopped or time.monotonic() + wait > deadline:
                break
            await asyncio.sleep(wait)
        raise _NotSettled

    def _count(self, placement: Placement, response: httpx.Response) -> None:
        order = placement.order
        if response.status_code == httpx.codes.CREATED:
            self._tally.accepted += 1
            return
        problem = _problem(response) if response.status_code in REFUSED else None
        if problem is None:
            raise _NotTheCommandService(
                f"{response.request.url} answered {response.status_code}, which the order command service does not"
            )
        if problem.code == ALREADY_PLACED:
            self._tally.already_there += 1
        else:
            reject = Reject(order.order_id, placement.lines, problem.code, _explain(response))
            self._tally.refused.append(reject)


def _pauses() -> Iterator[float]:
    """Doubling pauses in seconds, without end; drawn at random so that the workers do not return all at once."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _retry_after(response: httpx.Response) -> float:
    """Seconds; 0 where the header is missing or a date, which the command service never sends."""
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0


def _problem(response: httpx.Response) -> _Problem | None:
    """The problem details (RFC 9457) of an error, or None if it carries none."""
    try:
        return msgspec.json.decode(response.content, type=_Problem)
    except msgspec.DecodeError:
        return None


def _explain(response: httpx.Response) -> str:
    problem = _problem(response)
    if problem is None:
        return response.reason_phrase
    fields = "; ".join(f"{error.pointer} {error.detail}" for error in problem.errors[:5])
    return f"{problem.detail} ({fields})" if fields else problem.detail
