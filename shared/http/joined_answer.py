"""An answer whose head and beginning of its body leave in one write, which is one system call."""

from __future__ import annotations

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

_COPIED_BYTES = 4 * 1024  # of a body; to copy more costs more than a second write
_LEFT_TO_UVICORN = {b"connection", b"transfer-encoding"}


class JoinedAnswer(RequestResponseCycle):
    """Keeps back the head of an answer whose length is known until the first of its body follows."""

    _head: bytes | None = None

    async def receive(self) -> ASGIReceiveEvent:
        """As in uvicorn, but that it does not resume reading: the protocol knows what else it is paused for, and an
        answer begins once its whole body is there."""
        if not (self.disconnected or self.response_complete):
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: ASGISendEvent) -> None:
        """Raises `RuntimeError` for a header that HTTP does not allow."""
        if self._head is not None and message["type"] == "http.response.body":
            head, self._head = self._head, None
            body = message.get("body", b"")
            if len(body) > _COPIED_BYTES:
                self.transport.write(head)
            else:
                self.expected_content_length += len(head)
                message = {**message, "body": head + body}
        elif message["type"] == "http.response.start" and not self.response_started and self.scope["method"] != "HEAD":
            self._head = self._begin(message)
            if self._head is not None:
                return
        await super().send(message)

    def _begin(self, message: HTTPResponseStartEvent) -> bytes | None:
        """The head; None where the length is not among its headers, or they need more than to be written."""
        headers = [*self.default_headers, *message.get("headers", ())]
        named = dict(headers)
        length = named.get(b"content-length")
        if length is None or not _LEFT_TO_UVICORN.isdisjoint(named):
            return None
        names, values = zip(*headers, strict=True)
        if HEADER_RE.search(b"".join(names)) or HEADER_VALUE_RE.search(b"".join(values)):
            raise RuntimeError("invalid HTTP header")
        self.response_started = True
        self.waiting_for_100_continue = False
        self.chunked_encoding = False
        self.expected_content_length = int(length)
        lines = [b"%b: %b\r\n" % header for header in headers]
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        return b"".join((STATUS_LINE[message["status"]], *lines, end))
