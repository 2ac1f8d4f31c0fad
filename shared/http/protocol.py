"""The server's side of a connection: bounds of what a client sends, and responses that do not end by themselves."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.http.limits import MAX_HEAD_BYTES, MAX_HEADER_BYTES, MAX_HEADER_LINES, MAX_REQUEST_LINE_BYTES
from shared.http.problems import MEDIA_TYPE, problem_body
from shared.metrics import HTTP_REQUESTS

_DISCARD_BYTES = 1024 * 1024
_DISCARD_SECONDS = 2.0


class Refusal(NamedTuple):
    """What the connection answers before it closes."""

    status: int
    code: str
    detail: str


class _RefusedError(Exception):
    """Stops the parser."""


_MALFORMED = Refusal(400, "malformed-request", "The request is not HTTP that can be read.")
_URI_TOO_LONG = Refusal(414, "uri-too-long", f"A request line may have at most {MAX_REQUEST_LINE_BYTES} bytes.")
_HEADER_TOO_LARGE = Refusal(431, "headers-too-large", f"One header may have at most {MAX_HEADER_BYTES} bytes.")
_HEADERS_TOO_LARGE = Refusal(
    431,
    "headers-too-large",
    f"All headers and trailers together may have at most {MAX_HEAD_BYTES} bytes and {MAX_HEADER_LINES} lines.",
)


class ServerProtocol(HttpToolsProtocol):
    """Replaces uvicorn's own protocol. `protocol_of` returns that of a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.stopping = asyncio.Event()  # set when the server is stopping and waits for its responses
        self.app_state = {**self.app_state, "protocol": self}
        self._in_head = True
        self._unparsed = 0  # bytes since the parser last reported anything that it does not buffer
        self._head_bytes = self._head_lines = 0
        self._refusal: Refusal | None = None
        self._discarded: int | None = None  # bytes since the connection was refused

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Breaks reference cycles: the cyclic collector runs seldom (`shared.gc_tuning`), and clients that connect anew
        # for each request would make the process grow. A request that is still being handled keeps what it needs.
        self.app_state = {}
        self.cycle = self.scope = None  # type: ignore[assignment]
        self.pipeline.clear()

    def shutdown(self) -> None:
        self.stopping.set()
        super().shutdown()

    def cut(self) -> None:
        """Closes the connection at once. An orderly close would wait until the client has read everything."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        # The parser buffers an incomplete header however long it is, so it gets no more than a head may have.
        while data and self._discarded is None and not self.transport.is_closing():
            part, data = data[:MAX_HEAD_BYTES], data[MAX_HEAD_BYTES:]
            self._unparsed += len(part)
            super().data_received(part)
            if self._unparsed > MAX_HEAD_BYTES and self._discarded is None:
                self.refuse(_HEADERS_TOO_LARGE)
        if data and self._discarded is not None:
            self._discard(len(data))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._head_lines = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        # The method, two spaces and the version are the rest of the line.
        if len(self.url) + len(self.parser.get_method()) + len(" HTTP/1.1 ") > MAX_REQUEST_LINE_BYTES:
            self._stop(_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value) + len(":\r\n")
        self._head_bytes += size
        self._head_lines += 1
        if size > MAX_HEADER_BYTES:
            self._stop(_HEADER_TOO_LARGE)
        if self._head_bytes > MAX_HEAD_BYTES or self._head_lines > MAX_HEADER_LINES:
            self._stop(_HEADERS_TOO_LARGE)
        if self._in_head:  # a trailer is no header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._unparsed = 0
        self.start_request()

    def start_request(self) -> None:
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._unparsed = 0
        super().on_message_complete()

    def _stop(self, refusal: Refusal) -> None:
        """Stops the parser, which then calls `send_400_response`."""
        self._refusal = refusal
        raise _RefusedError

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text
        self.refuse(self._refusal or _MALFORMED)

    def refuse(self, refusal: Refusal) -> None:
        """Answers and closes the connection; only closes it where another answer is due first."""
        if self._discarded is not None or self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or self._in_head or cycle.response_started:
                self.cut()
                return
            cycle.disconnected = True  # whatever its endpoint answers is dropped
            cycle.message_event.set()
        self._unset_keepalive_if_required()
        self.transport.write(_answer(refusal))
        HTTP_REQUESTS.labels("other", "unmatched", refusal.status).inc()
        # Closing with unread bytes resets the connection, and the client would lose the answer.
        self._discarded = 0
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(_DISCARD_SECONDS, self.transport.abort)

    def _discard(self, size: int) -> None:
        assert self._discarded is not None
        self._discarded += size
        if self._discarded > _DISCARD_BYTES:
            self.transport.abort()


def _answer(refusal: Refusal) -> bytes:
    title = HTTPStatus(refusal.status).phrase
    body = msgspec.json.encode(problem_body(refusal.status, refusal.code, title, refusal.detail, "/"))
    return (
        f"HTTP/1.1 {refusal.status} {title}\r\ncontent-type: {MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode() + body


def protocol_of(scope: Scope) -> ServerProtocol:
    protocol: ServerProtocol = scope["state"]["protocol"]
    return protocol
