"""Reads the requests of a connection, within the bounds of what a client may send.

A request starts when its body is there. Until then it costs a connection and the bytes that have arrived, and no place
among the requests in progress.
"""

from __future__ import annotations

import asyncio

import httptools
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from shared.http import refusals
from shared.http.body_after_upgrade import parser_of_body
from shared.http.connection import ServerConnection
from shared.http.joined_answer import JoinedAnswer
from shared.http.limits import (
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADER_LINES,
    MAX_REQUEST_LINE_BYTES,
    SENT_AHEAD_BYTES,
    SMALL_BYTES,
)
from shared.http.refusals import Refusal
from shared.http.request_head import BODILESS, read_head, read_target

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ServerProtocol(ServerConnection):
    """Replaces uvicorn's own protocol. `protocol_of` returns that of a request."""

    def data_received(self, data: bytes) -> None:
        # The parser buffers an incomplete header however long it is, so it gets no more than a head may have.
        while data and self._discarded is None and not self.transport.is_closing():
            part, data = data[:MAX_HEAD_BYTES], data[MAX_HEAD_BYTES:]
            self._unparsed += len(part)
            self._parse(part)
            if self._unparsed > MAX_HEAD_BYTES and self._discarded is None:
                self.refuse(refusals.HEADERS_TOO_LARGE)
        if self._unparsed > SMALL_BYTES and self._discarded is None and not self._held.grow_head(self._unparsed):
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
        head_bytes = len(self.url) + self._head_bytes
        if head_bytes > SMALL_BYTES and not self._held.grow_head(head_bytes):
            self._stop(refusals.TOO_MANY_LARGE_REQUESTS)
        self._in_head = False
        self._since = 0.0
        self._unparsed = 0
        self._held.end_head()
        self._skipped_body = has_body and self.parser.should_upgrade()
        scope = self.scope
        scope["method"] = method
        scope["http_version"] = version
        # As it was sent, against the specification of ASGI: decoded, `%2f` would be a separator of the path.
        path, scope["query_string"] = target
        scope["path"] = self.root_path + path.decode()
        scope["raw_path"] = scope["path"].encode() if self.root_path else path
        keep_alive = self.parser.should_keep_alive() and version != "1.0" and not self.open_connections.draining
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
            # Its path is held twice, the second time as text.
            if not self._held.add(SENT_AHEAD_BYTES + 2 * len(self.url) + self._head_bytes):
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
        if not self._held.add(more):
            self._stop(refusals.TOO_MANY_LARGE_REQUESTS)

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

    def run_request(self, cycle: RequestResponseCycle, app: ASGI3Application | None = None) -> None:
        """The body of a request is there, and the answer before it has been sent. `app`: instead of the server's."""
        self._answering = True
        self._start_asgi_task(cycle, app or self.app)

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
            if not self.pipeline:  # only this request is held still
                self._held.release()
                self._held.add(len(cycle.body))
            if cycle.more_body:
                self._ask_for_body()
            else:
                self._answering = True
                following = cycle
        else:
            self._held.release()
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
        if self.open_connections.client_on(self) is not None:
            self._pause = seconds

    def _go_on(self, following: RequestResponseCycle | None) -> None:
        self._pause = 0.0
        self._resume_reading()
        if following and not self.transport.is_closing():
            self.run_request(following)


def protocol_of(scope: Scope) -> ServerProtocol:
    protocol: ServerProtocol = scope["state"]["protocol"]
    return protocol
