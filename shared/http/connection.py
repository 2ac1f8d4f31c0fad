"""A connection of the server: how long it waits for its client, what it holds, and how it is refused.

`shared.http.protocol` reads its requests.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any, NoReturn

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from shared.http import refusals
from shared.http.held_bytes import HeldBytes
from shared.http.limits import MAX_REQUEST_LINE_BYTES, MIN_BODY_RATE, ConnectionLimits
from shared.http.middleware import correlation_id
from shared.http.open_connections import OpenConnections
from shared.http.refusals import Refusal
from shared.http.response_headers import PRIVATE, as_lines
from shared.metrics import HTTP_REQUESTS

_PRIVATE = as_lines(PRIVATE)
_DISCARD_BYTES = 8 * 1024 * 1024


class RefusedError(Exception):
    """Stops the parser."""


class ServerConnection(HttpToolsProtocol):
    """The part of `ServerProtocol` that does not depend on what a request says."""

    limits = ConnectionLimits()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        if "connections" not in app_state:  # one dictionary for all connections of the server
            app_state["connections"] = OpenConnections(self.limits, self.loop)
        self.open_connections: OpenConnections = app_state["connections"]

    @property
    def fixed_headers(self) -> bytes:
        """Header lines of an answer that the application does not see."""
        lines: bytes = getattr(self.config.app, "fixed_headers", _PRIVATE)
        return lines

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.stopping = asyncio.Event()  # set when the server is stopping and waits for its responses
        self.app_state = {**self.app_state, "protocol": self}
        self.url = b""
        self.headers = []
        self.read_deadline = self.loop.time() + self.limits.deadlines.first_byte
        self.write_deadline = inf
        self._begun = False  # the parser is within a request
        self._in_head = True
        self._since = 0.0  # when the head, or then the body, began; 0: now
        self._answering = False
        self._pause = 0.0  # seconds between the answer that is due, or was sent, and the next request
        self._unparsed = 0  # bytes since the parser last reported anything that it does not buffer
        self._head_bytes = self._head_lines = self._body_bytes = 0
        self._skipped_body = False  # the parser takes the body of a request with `Upgrade` for another protocol
        self._refusal: Refusal | None = None
        self._discarded: int | None = None  # bytes since the connection was refused
        self._counted = self.open_connections.add(self, self.client[0] if self.client else "")
        self._held = HeldBytes(self.open_connections, self.open_connections.client_on(self))
        if not self._counted:
            self._write_refusal(refusals.TOO_MANY_CONNECTIONS)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.open_connections.unsent.remove(self)
        if self._counted:
            self._held.release()
            self.open_connections.remove(self)
        # Breaks reference cycles: the cyclic collector runs seldom (`shared.gc_tuning`), and clients that connect anew
        # for each request would make the process grow. A request that is still being handled keeps what it needs.
        self.app_state = {}
        self.cycle = self.scope = None  # type: ignore[assignment]
        self.pipeline.clear()

    def shutdown(self) -> None:
        self.stopping.set()
        if self._begun and not self._answering:
            self.refuse(refusals.SHUTTING_DOWN)
        else:
            super().shutdown()

    def cut(self) -> None:
        """Closes the connection at once. An orderly close would wait until the client has read everything."""
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.flow.pause_reading()  # else a client that reads nothing could send requests that are refused at once
        self.write_deadline = self.loop.time() + self.limits.deadlines.read
        self.open_connections.unsent.add(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.open_connections.unsent.remove(self)
        self.write_deadline = inf
        self._resume_reading()

    def _resume_reading(self) -> None:
        """Unless requests that were sent ahead, or answers, are waiting, or the client has to pause."""
        if not (self.pipeline or self._pause or self.flow.write_paused or self.transport.is_closing()):
            self.flow.resume_reading()

    def expire(self) -> None:
        """A deadline has passed."""
        if self.transport.is_closing() or self._discarded is not None or self.write_deadline < self.loop.time():
            self.cut()
        elif self._begun:
            self.refuse(refusals.SLOW_HEAD if self._in_head else refusals.SLOW_BODY)
        else:
            self.transport.close()
            self.read_deadline = self.loop.time() + self.limits.deadlines.read

    def _set_read_deadline(self) -> None:
        """Of the request that has begun to arrive. Has to be called whenever more of it has."""
        if self._answering:
            self.read_deadline = inf
        elif self._begun:
            self._since = self._since or self.loop.time()
            deadlines = self.limits.deadlines
            seconds = deadlines.head if self._in_head else deadlines.body + self._body_bytes / MIN_BODY_RATE
            self.read_deadline = self._since + seconds

    def _stop(self, refusal: Refusal) -> NoReturn:
        """Stops the parser."""
        self._refusal = refusal
        raise RefusedError

    def refuse(self, refusal: Refusal) -> None:
        """Answers and closes the connection; only closes it where another answer is due first."""
        if self._discarded is not None or self.transport.is_closing():
            return
        is_refused = self._begun and not self._in_head and self.cycle.response_complete  # by its head
        if self._answering or self.pipeline or is_refused:
            self.cut()
            return
        self._write_refusal(refusal)
        # Closing with unread bytes resets the connection, and the client would lose the answer.
        self._discarded = 0
        self.read_deadline = self.loop.time() + self.limits.deadlines.close
        self._held.release()
        self.cycle = None  # type: ignore[assignment]
        self.flow.resume_reading()
        self.transport.write_eof()

    def _write_refusal(self, refusal: Refusal) -> None:
        url = self.url if self._begun and len(self.url) <= MAX_REQUEST_LINE_BYTES else b"/"
        path = url.partition(b"?")[0].decode("latin-1")
        self.transport.write(
            refusals.answer(refusal, self.root_path, path, correlation_id(self.headers), self.fixed_headers)
        )
        HTTP_REQUESTS.labels("other", "unmatched", refusal.status).inc()

    def _discard(self, size: int) -> None:
        assert self._discarded is not None
        self._discarded += size
        if self._discarded > _DISCARD_BYTES:
            self.transport.abort()
