"""Orders at a given rate, whatever the answers: the customers of a busy day do not wait for each other.

As little of HTTP as that takes, because the load shares the machine with what it measures.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import mean
from time import monotonic
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

from tests.orders import order_body

PATIENCE_SECONDS = 5.0  # after which a customer goes away
_TICK_SECONDS = 0.01
_BODY = json.dumps(order_body()).encode()
_REQUEST = (
    b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Idempotency-Key: %b\r\n\r\n%b"
)


@dataclass
class Tally:
    """What became of the requests; `goodput` counts acknowledgements by the second they came in."""

    outcomes: Counter[str] = field(default_factory=Counter)
    goodput: Counter[int] = field(default_factory=Counter)
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    refused_after: list[float] = field(default_factory=list)  # seconds
    started: float = field(default_factory=monotonic)

    def mean_goodput(self, seconds: int) -> float:
        """Acknowledgements a second, over `seconds` less the first, in which the load begins."""
        return mean(self.goodput[second] for second in range(1, seconds))


_Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Load:
    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._free: list[_Line] = []

    async def order(self, rate: float, seconds: int) -> Tally:
        """`rate` orders a second."""
        tally = Tally()
        sent = 0
        async with asyncio.TaskGroup() as customers:
            while (elapsed := monotonic() - tally.started) < seconds:
                due = round(elapsed * rate)
                for _ in range(due - sent):
                    customers.create_task(self._order(tally))
                sent = due
                await asyncio.sleep(_TICK_SECONDS)
        return tally

    async def as_answered(self, customers: int, seconds: int) -> Tally:
        """As many as are answered: each customer orders again when the last order was answered."""
        tally = Tally()

        async def keep_ordering() -> None:
            while monotonic() - tally.started < seconds:
                await self._order(tally)

        await asyncio.gather(*(keep_ordering() for _ in range(customers)))
        return tally

    async def at_once(self, orders: int) -> Tally:
        """So many orders at the same moment."""
        tally = Tally()
        await asyncio.gather(*(self._order(tally) for _ in range(orders)))
        return tally

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, writer in self._free:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self._free), return_exceptions=True)

    async def _order(self, tally: Tally) -> None:
        asked = monotonic()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                status, body = await self._ask_on_any_line(uuid4().bytes.hex().encode())
        except (OSError, EOFError):  # TimeoutError is an OSError
            tally.outcomes["went away"] += 1
            return
        answer = json.loads(body)
        if status == 201:
            tally.outcomes["placed"] += 1
            tally.goodput[int(monotonic() - tally.started)] += 1
            tally.acknowledged.append(answer)
        else:
            tally.outcomes[answer["code"]] += 1
            tally.refused_after.append(monotonic() - asked)

    async def _ask_on_any_line(self, key: bytes) -> tuple[int, bytes]:
        while self._free:
            line = self._free.pop()
            with suppress(OSError, EOFError):  # the service has closed it for being idle; the key allows another try
                return await self._ask(line, key)
        return await self._ask(await asyncio.open_connection(self._host, self._port), key)

    async def _ask(self, line: _Line, key: bytes) -> tuple[int, bytes]:
        reader, writer = line
        try:
            writer.write(_REQUEST % (len(_BODY), key, _BODY))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
        except BaseException:  # cancelled, too: an answer half read must not be taken for the next one
            writer.transport.abort()
            raise
        self._free.append(line)
        return int(head[9:12]), body
