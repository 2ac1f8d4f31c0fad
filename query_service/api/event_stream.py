"""A response of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

The format is FastAPI's; the response is our own. FastAPI's would keep what a client does not read, would not end when
the server stops, and its pings could not say how far the log was followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from random import Random
from time import perf_counter

from fastapi.sse import format_sse_event
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from query_service.live.log_tail import SubscriptionClosed
from shared.http.protocol import ServerProtocol, protocol_of
from shared.metrics import EVENT_STREAMS_CUT

MEDIA_TYPE = "text/event-stream"
FAREWELL_SECONDS = 1.0  # for the end of the stream: the service that stops does not wait longer
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would otherwise collect events before it passes them on
}

_random = Random()  # of its own: tests that draw at random watch over the one that all share


def opening(position: int, retry_ms: int | None = None) -> bytes:
    """What a stream begins with: an id that can be resumed from before there was any event, and when to try again.

    That is not the same for all, so that those whose server stopped do not all come back at once.
    """
    if retry_ms is None:
        retry_ms = _random.randrange(1_000, 3_000)
    return format_sse_event(comment=f"after position {position}", id=str(position), retry=retry_ms)


def heartbeat(position: int) -> bytes:
    """Nothing for the page, which gets no event without data; but the client resumes from here."""
    return format_sse_event(comment="heartbeat", id=str(position))


def event(position: int, data: bytes) -> bytes:
    return format_sse_event(data_str=data.decode(), id=str(position))


class EventStream(Response):
    """Sends what `blocks` gives until that ends, the client goes or the server stops.

    A client that lets a block wait for `send_seconds` is cut off.
    """

    media_type = MEDIA_TYPE

    def __init__(self, blocks: AsyncGenerator[bytes, None], send_seconds: float, headers: dict[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self._blocks = blocks
        self._send_seconds = send_seconds
        self.init_headers({**_HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["answered_at"] = perf_counter()  # as far as the time to answer is measured
        protocol = protocol_of(scope)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        writing = asyncio.create_task(self._write(protocol, send))
        gone = asyncio.create_task(_gone(receive))
        stopping = asyncio.create_task(protocol.stopping.wait())
        tasks = (writing, gone, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not writing.cancelled():
            writing.result()
        await _send(protocol, send, b"", min(self._send_seconds, FAREWELL_SECONDS), more=False)

    async def _write(self, protocol: ServerProtocol, send: Send) -> None:
        async with aclosing(self._blocks) as blocks:
            try:
                async for block in blocks:
                    if not await _send(protocol, send, block, self._send_seconds):
                        return
            except SubscriptionClosed:
                return  # the client comes back with the last id it has


async def _send(protocol: ServerProtocol, send: Send, block: bytes, seconds: float, *, more: bool = True) -> bool:
    """False when the client had to be cut off."""
    try:
        async with asyncio.timeout(seconds):
            await send({"type": "http.response.body", "body": block, "more_body": more})
    except TimeoutError:
        cut_off(protocol)
        return False
    return True


def cut_off(protocol: ServerProtocol) -> None:
    """Closes the connection of a client that does not read: what it missed it gets when it comes back."""
    EVENT_STREAMS_CUT.inc()
    protocol.cut()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
