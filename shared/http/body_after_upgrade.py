"""A parser that goes on in the body of a request whose head was parsed already.

The parser of a request with `Upgrade` takes the body for another protocol, and ends before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from shared.http.protocol import ServerProtocol

_FRAMING = (b"content-length", b"transfer-encoding")


class _AfterHead:
    """The callbacks of a parser that is given a head again: they are passed on from its end."""

    def __init__(self, protocol: ServerProtocol) -> None:
        self._protocol = protocol
        self._in_head = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self._in_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._in_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._in_head:
            self._in_head = False
        else:
            self._protocol.on_headers_complete()


def parser_of_body(protocol: ServerProtocol) -> httptools.HttpRequestParser:
    """A parser that goes on in the body of the protocol's request."""
    parser = httptools.HttpRequestParser(_AfterHead(protocol))
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
    framing = [b"%b: %b\r\n" % header for header in protocol.headers if header[0] in _FRAMING]
    parser.feed_data(b"%b / HTTP/1.1\r\n%b\r\n" % (protocol.scope["method"].encode(), b"".join(framing)))
    return parser
