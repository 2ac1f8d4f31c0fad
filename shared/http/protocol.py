"""The server's side of a connection, for responses that do not end by themselves."""

from __future__ import annotations

import asyncio

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class ServerProtocol(HttpToolsProtocol):
    """Replaces uvicorn's own protocol. `protocol_of` returns that of a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.stopping = asyncio.Event()  # set when the server is stopping and waits for its responses
        self.app_state = {**self.app_state, "protocol": self}

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


def protocol_of(scope: Scope) -> ServerProtocol:
    protocol: ServerProtocol = scope["state"]["protocol"]
    return protocol
