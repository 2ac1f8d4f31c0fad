"""A response of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

The format is FastAPI's, the response is not: FastAPI's would buffer what a client does not read, would not end when the
server stops, and its pings could not carry the position that the stream has reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from random import Random
from time import perf_counter, time

from fastapi.sse import format_sse_event
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from query_service.live.held_events import HeldByStream
from query_service.live.log_tail import SubscriptionClosed
from shared.http.event_streams import HEADERS, MEDIA_TYPE
from shared.http.protocol import ServerProtocol, protocol_of
from shared.metrics import EVENT_STREAMS_CUT

LAST_BLOCK_SECONDS = 1.0  # to send the end of the stream while the service stops

_random = Random()  # not the shared one: hypothesis controls that in tests


def opening(position: int, retry_ms: int | None = None) -> bytes:
    """The first block: an id from which a client can resume before the first event, and the time to reconnect.

    That time is random, so that the clients of a stopped server do not all reconnect at once.
    """
    if retry_ms is None:
        retry_ms = _random.randrange(1_000, 3_000)
    return format_sse_event(comment=f"after position {position}", id=str(position), retry=retry_ms)


def heartbeat(position: int) -> bytes:
    """A block without data: the page gets no event, but the client resumes from this position."""
    return format_sse_event(comment="heartbeat", id=str(position))


def event(position: int, data: bytes) -> bytes:
    return format_sse_event(data_str=data.decode(), id=str(position))


class EventStream(Response):
    """Sends `blocks` until they end, the client disconnects or the server stops, at the latest `until` (Unix time).

    Closes the connection of a client that does not read a block within `send_seconds`.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        blocks: AsyncGenerator[bytes, None],
        held: HeldByStream,
        send_seconds: float,
        headers: dict[str, str],
        until: float | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._blocks = blocks
        self._held = held
        self._send_seconds = send_seconds
        self._until = until
        self.init_headers({**HEADERS, **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["answered_at"] = perf_counter()  # the measured time to answer ends here
        protocol = protocol_of(scope)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        writing = asyncio.create_task(self._write(protocol, send))
        disconnected = asyncio.create_task(_wait_for_disconnect(receive))
        stopping = asyncio.create_task(protocol.stopping.wait())
        tasks = (writing, disconnected, stopping)
        try:
            left = None if self._until is None else max(0.0, self._until - time())
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not writing.cancelled():
            writing.result()
        await _send(protocol, send, b"", min(self._send_seconds, LAST_BLOCK_SECONDS), more=False)

    async def _write(self, protocol: ServerProtocol, send: Send) -> None:
        async with aclosing(self._blocks) as blocks:
            try:
                async for block in blocks:
                    with self._held.sending(block):
                        taken = await _send(protocol, send, block, self._send_seconds)
                    if not taken:
                        return
                    del block
            except SubscriptionClosed:
                return  # the client reconnects with its last id


async def _send(protocol: ServerProtocol, send: Send, block: bytes, seconds: float, *, more: bool = True) -> bool:
    """False when the connection was closed because the client does not read."""
    try:
        async with asyncio.timeout(seconds):
            await send({"type": "http.response.body", "body": block, "more_body": more})
    except TimeoutError:
        cut_off(protocol)
        return False
    return True


def cut_off(protocol: ServerProtocol) -> None:
    """Closes the connection of a client that does not read. It misses nothing when it resumes."""
    EVENT_STREAMS_CUT.inc()
    protocol.cut()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
