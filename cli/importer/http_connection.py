"""One connection to an HTTP server, for one POST at a time: opened when it is needed, and anew after it was lost.

Requests to one address differ in nothing but their body, so httpx says once what the address means. To send each of
them through httpx takes 40 times as long (docs/decisions/0017). Answers are read by the parser that our servers read
requests with.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast

import httptools
import httpx

ANSWER_SECONDS = 30.0  # longer than the service waits for its database, so that it is the service who answers
_LONGEST_ANSWER = 1024 * 1024  # bytes, its headers included


class Answer(NamedTuple):
    status: int
    reason: str
    retry_after: str  # the header; empty where there is none
    body: bytes


class Target:
    """What is the same in every POST of JSON to one address."""

    def __init__(self, url: httpx.URL) -> None:
        request = httpx.Request("POST", url, headers={"Content-Type": "application/json"})
        if url.userinfo:
            request = next(httpx.BasicAuth(url.username, url.password).auth_flow(request))
        del request.headers["Content-Length"]
        headers = b"".join(b"%b: %b\r\n" % header for header in request.headers.raw)
        self._head = b"POST %b HTTP/1.1\r\n%b" % (url.raw_path, headers)
        self.host = url.raw_host.decode()
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self.tls = httpx.create_ssl_context() if url.scheme == "https" else None

    def request(self, body: bytes) -> bytes:
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)


class Connection:
    def __init__(self, target: Target) -> None:
        self._target = target
        self._wire: _Wire | None = None

    async def post(self, body: bytes) -> Answer:
        """Raises `OSError` where there is no answer; the request may have arrived all the same."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._wire is None or self._wire.is_closing:
                    self._wire = await self._open()
                return await self._wire.send(self._target.request(body))
        except BaseException:  # cancelled, too: an answer that is late must not be taken for that of the next request
            self.close()
            raise

    async def _open(self) -> _Wire:
        target, loop = self._target, asyncio.get_running_loop()
        return (await loop.create_connection(_Wire, target.host, target.port, ssl=target.tls))[1]

    def close(self) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None


class _Wire(asyncio.Protocol):
    """The connection as long as it lasts."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._received = 0
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        self._answer = asyncio.get_running_loop().create_future()
        self._received = 0
        self._transport.write(request)
        return self._answer

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > _LONGEST_ANSWER:
            self._fail(f"the answer is longer than {_LONGEST_ANSWER:,} bytes")
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the answer is not one in HTTP ({error})")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection was lost before the answer was complete" + (f" ({exc})" if exc else ""))

    def _fail(self, why: str) -> None:
        self._transport.abort()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(why))

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._reason = self._retry_after = self._body = b""

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = value

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # on the way to the answer
            return
        if not self._parser.should_keep_alive():
            self._transport.close()
        if self._answer is None or self._answer.done():  # nobody asked: it must not be taken for the next answer
            self._transport.abort()
            return
        reason, retry_after = self._reason.decode("latin-1"), self._retry_after.decode("latin-1")
        self._answer.set_result(Answer(status, reason, retry_after, self._body))
