"""The server's side of a connection, as far as a response that never ends by itself must know it."""

from __future__ import annotations

import asyncio

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Wire(HttpToolsProtocol):
    """Given to the server in place of its own protocol. Every request finds its own with `wire_of`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.stopping = asyncio.Event()  # set when the server is told to stop and waits for its responses
        self.app_state = {**self.app_state, "wire": self}

    def shutdown(self) -> None:
        self.stopping.set()
        super().shutdown()

    def cut(self) -> None:
        """Closes the connection at once. An orderly close would wait until the client has read what was sent."""
        self.transport.abort()


def wire_of(scope: Scope) -> Wire:
    wire: Wire = scope["state"]["wire"]
    return wire
