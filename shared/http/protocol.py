"""The server's side of a connection, as far as a response that never ends by itself must know it."""

from __future__ import annotations

import asyncio

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class ServerProtocol(HttpToolsProtocol):
    """Given to the server in place of its own protocol. Every request finds its own with `protocol_of`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.stopping = asyncio.Event()  # set when the server is told to stop and waits for its responses
        self.app_state = {**self.app_state, "protocol": self}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # What refers to each other is only let go of when the cyclic collector comes by, and it comes seldom
        # (`shared.gc_tuning`): those who connect anew for each request would make the process grow. A request that is
        # still being handled keeps what it needs.
        self.app_state = {}
        self.cycle = self.scope = None  # type: ignore[assignment]
        self.pipeline.clear()

    def shutdown(self) -> None:
        self.stopping.set()
        super().shutdown()

    def cut(self) -> None:
        """Closes the connection at once. An orderly close would wait until the client has read what was sent."""
        self.transport.abort()


def protocol_of(scope: Scope) -> ServerProtocol:
    protocol: ServerProtocol = scope["state"]["protocol"]
    return protocol
