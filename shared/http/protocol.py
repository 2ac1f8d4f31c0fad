"""The server's side of a connection: what a client may send and how long it may take.

A request starts when its body is there. Until then it costs a connection and the bytes that have arrived, and no place
among the requests in progress.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any, NoReturn

import httptools
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from shared.http import refusals
from shared.http.body_after_upgrade import parser_of_body
from shared.http.joined_answer import JoinedAnswer
from shared.http.limits import (
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADER_LINES,
    MAX_REQUEST_LINE_BYTES,
    MIN_BODY_RATE,
    SENT_AHEAD_BYTES,
    SMALL_BYTES,
    ConnectionLimits,
)
from shared.http.middleware import correlation_id
from shared.http.open_connections import OpenConnections
from shared.http.refusals import Refusal
from shared.http.request_head import BODILESS, read_head, read_target
from shared.http.response_headers import PRIVATE, as_lines
from shared.metrics import HTTP_REQUESTS

_PRIVATE = as_lines(PRIVATE)
_DISCARD_BYTES = 8 * 1024 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _RefusedError(Exception):
    """Stops the parser."""


class ServerProtocol(HttpToolsProtocol):
    """Replaces uvicorn's own protocol. `protocol_of` returns that of a request."""

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
        self._open: OpenConnections = app_state["connections"]

    @property
    def fixed_headers(self) -> bytes:
        """Header lines of an answer that the application does not see."""
        lines: bytes = getattr(self.config.app, "fixed_headers", _PRIVATE)
        return lines

    # --- the connection ---------------------------------------------------------------------------------------------

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
        self._held_bytes = 0  # taken from what all connections may hold
        self._held_head = 0  # of these, for a head that is not complete
        self._skipped_body = False  # the parser takes the body of a request with `Upgrade` for another protocol
        self._refusal: Refusal | None = None
        self._discarded: int | None = None  # bytes since the connection was refused
        self._counted = self._open.add(self, self.client[0] if self.client else "")
        if not self._counted:
            self._write_refusal(refusals.TOO_MANY_CONNECTIONS)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._open.unsent.remove(self)
        if self._counted:
            self._release_held()
            self._open.remove(self)
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
        self._open.unsent.add(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._open.unsent.remove(self)
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

    # --- what arrives ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        # The parser buffers an incomplete header however long it is, so it gets no more than a head may have.
        while data and self._discarded is None and not self.transport.is_closing():
            part, data = data[:MAX_HEAD_BYTES], data[MAX_HEAD_BYTES:]
            self._unparsed += len(part)
            self._parse(part)
            if self._unparsed > MAX_HEAD_BYTES and self._discarded is None:
                self.refuse(refusals.HEADERS_TOO_LARGE)
        if self._unparsed > SMALL_BYTES and self._discarded is None and not self._hold_head(self._unparsed):
            self.refuse(refusals.TOO_MANY_LARGE_REQUESTS)
        if self._discarded is None:
            self._set_read_deadline()
        elif data:
            self._discard(len(data))

    def _parse(self, part: bytes) -> None:
        while part:
            try:
                self.parser.feed_data(part)
                return
            except httptools.HttpParserUpgrade as upgrade:  # no other protocol is offered; the request counts as it is
                part = part[upgrade.args[0] :]
                if self._skipped_body:
                    self._skipped_body = False
                    self.parser = parser_of_body(self)
            except httptools.HttpParserError:
                self.refuse(self._refusal or refusals.MALFORMED)
                return

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True
        self._since = 0.0
        self._head_bytes = self._head_lines = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        # The method, two spaces and the version are the rest of the line.
        if len(self.url) + len(self.parser.get_method()) + len(" HTTP/1.1 ") > MAX_REQUEST_LINE_BYTES:
            self._stop(refusals.URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value) + len(":\r\n")
        self._head_bytes += size
        self._head_lines += 1
        if size > MAX_HEADER_BYTES:
            self._stop(refusals.HEADER_TOO_LARGE)
        if self._head_bytes > MAX_HEAD_BYTES or self._head_lines > MAX_HEADER_LINES:
            self._stop(refusals.HEADERS_TOO_LARGE)
        if self._in_head:  # a trailer is no header
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        method = self.parser.get_method().decode()
        version = self.parser.get_http_version()
        head = read_head(method, version, self.headers, self.limits.max_body_bytes)
        if isinstance(head, Refusal):
            self._stop(head)
        host, has_body, expects_continue = head
        target = read_target(method, self.url, host)
        if isinstance(target, Refusal):
            self._stop(target)
        if self._head_bytes > SMALL_BYTES and not self._hold_head(self._head_bytes):
            self._stop(refusals.TOO_MANY_LARGE_REQUESTS)
        self._in_head = False
        self._since = 0.0
        self._unparsed = 0
        self._held_head = 0
        self._skipped_body = has_body and self.parser.should_upgrade()
        scope = self.scope
        scope["method"] = method
        scope["http_version"] = version
        # As it was sent, against the specification of ASGI: decoded, `%2f` would be a separator of the path.
        path, scope["query_string"] = target
        scope["path"] = self.root_path + path.decode()
        scope["raw_path"] = scope["path"].encode() if self.root_path else path
        keep_alive = self.parser.should_keep_alive() and version != "1.0" and not self._open.draining
        self.begin_request(expects_continue=expects_continue, keep_alive=keep_alive)

    def begin_request(self, *, expects_continue: bool, keep_alive: bool) -> None:
        """The head of a request is there."""
        before: RequestResponseCycle | None = self.cycle
        self.cycle = JoinedAnswer(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._ask_for_body()
        else:  # it was sent ahead
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
            if not self._hold(SENT_AHEAD_BYTES + self._head_bytes):
                self._stop(refusals.TOO_MANY_LARGE_REQUESTS)

    def _ask_for_body(self) -> None:
        if self.cycle.waiting_for_100_continue:
            self.cycle.waiting_for_100_continue = False
            self.transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        self._body_bytes += len(body)
        if self._body_bytes > self.limits.max_body_bytes:
            self._stop(refusals.body_too_large(self.limits.max_body_bytes))
        cycle = self.cycle
        if cycle.response_complete:  # it was refused by its head
            return
        if cycle.scope["method"] in BODILESS:
            self._stop(refusals.UNEXPECTED_BODY)
        was_large = len(cycle.body) > SMALL_BYTES
        cycle.body += body
        if self.pipeline:
            more = len(body)
        elif len(cycle.body) > SMALL_BYTES:
            more = len(body) if was_large else len(cycle.body)
        else:
            return
        if not self._hold(more):
            self._stop(refusals.TOO_MANY_LARGE_REQUESTS)

    def _hold(self, size: int) -> bool:
        """Whether there is space for so many bytes more, of what all connections may hold."""
        if not self._open.take(self, size):
            return False
        self._held_bytes += size
        return True

    def _hold_head(self, size: int) -> bool:
        """The same for so many bytes of a head in all."""
        more, self._held_head = size - self._held_head, size
        return self._hold(more)

    def on_message_complete(self) -> None:
        if self._skipped_body:
            return
        self._in_head = True
        self._begun = False
        self._unparsed = 0
        cycle = self.cycle
        if cycle.response_complete:
            self.read_deadline = self.loop.time() + self.limits.deadlines.idle
            return
        cycle.more_body = False
        cycle.message_event.set()
        if not self.pipeline:
            self.run_request(cycle)

    def run_request(self, cycle: RequestResponseCycle) -> None:
        """The body of a request is there, and the answer before it has been sent."""
        self._answering = True
        self._start_asgi_task(cycle, self.app)

    def on_response_complete(self) -> None:
        self._answering = False
        self.server_state.total_requests += 1
        now = self.loop.time()
        if self.transport.is_closing():
            self.read_deadline = now + self.limits.deadlines.read
            return
        following: RequestResponseCycle | None = None
        if self.pipeline:
            cycle, _ = self.pipeline.pop()
            if cycle.more_body:
                self._ask_for_body()
            else:
                self._answering = True
                following = cycle
        else:
            self._release_held()
            self.read_deadline = now + self.limits.deadlines.idle
        if self._pause:
            self.flow.pause_reading()
        if self._pause or following:  # not at once: a thousand would be a deep recursion
            self.loop.call_later(self._pause, self._go_on, following)
        else:
            self._resume_reading()
        self._since = now
        self._set_read_deadline()

    def pause_after_answer(self, seconds: float) -> None:
        """Takes no request of this connection for so long after the answer that is due; call it before that. A
        proxy's connection, which clients share, is not paused."""
        if not self._open.is_shared(self):
            self._pause = seconds

    def _go_on(self, following: RequestResponseCycle | None) -> None:
        self._pause = 0.0
        self._resume_reading()
        if following and not self.transport.is_closing():
            self.run_request(following)

    def _release_held(self) -> None:
        if self._held_bytes:
            self._open.give_back(self, self._held_bytes)
            self._held_bytes = self._held_head = 0

    # --- what is refused ---------------------------------------------------------------------------------------------

    def _stop(self, refusal: Refusal) -> NoReturn:
        """Stops the parser."""
        self._refusal = refusal
        raise _RefusedError

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
        self._release_held()
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


def protocol_of(scope: Scope) -> ServerProtocol:
    protocol: ServerProtocol = scope["state"]["protocol"]
    return protocol
