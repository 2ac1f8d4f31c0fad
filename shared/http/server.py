"""The HTTP server of every process."""

from __future__ import annotations

import asyncio
import resource
import socket

import uvicorn
from fastapi import FastAPI

from shared.gc_tuning import tune_gc
from shared.http.limits import ConnectionLimits
from shared.http.open_connections import OpenConnections
from shared.http.protocol import ServerProtocol
from shared.logs import get_logger
from shared.settings import Settings

# The event loop (libuv) accepts one connection a turn for each listening socket. Under overload more arrive, and wait
# unseen in the kernel's queue. So it gets the same socket several times.
_ACCEPTED_AT_ONCE = 64
_FILES_OF_CONNECTION = 2  # its socket, and a file of the reference page that is being sent
_OTHER_FILES = 256  # open at once

# A peer that is gone without a word is noticed within a minute, whether it is sent something or not.
_KEEP_ALIVE = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 30,  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 10,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 3,
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 60_000,  # milliseconds that what was sent stays unacknowledged
}

_log = get_logger()


async def serve(app: FastAPI, port: int, settings: Settings, protocol: type[ServerProtocol] = ServerProtocol) -> None:
    """Serves until SIGTERM, SIGINT or cancellation. Then goes on for `drain_seconds`, while `/readyz` says that it
    stops, and finishes what it accepted (at most `shutdown_seconds`)."""

    class Limited(protocol):  # type: ignore[misc, valid-type]  # a subclass of the protocol that is given
        limits = ConnectionLimits.of(settings)

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        http=Limited,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=settings.forwarded_allow_ips,
        root_path=settings.root_path,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
    )
    server = _Server(config, app, settings.drain_seconds)
    tune_gc()
    _allow_open_files(settings.max_connections)
    listening = config.bind_socket()
    for (level, option), value in _KEEP_ALIVE.items():
        listening.setsockopt(level, option, value)  # each accepted socket inherits it
    more = [listening.dup() for _ in range(_ACCEPTED_AT_ONCE - 1)]
    serving = asyncio.create_task(server.serve([listening, *more]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True  # uvicorn, cancelled outright, would leave its sockets and the lifespan behind
        await serving
        raise


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.stopping = True
        connections: OpenConnections | None = self.lifespan.state.get("connections")
        if connections is not None:
            connections.draining = True
        end = asyncio.get_running_loop().time() + self._drain_seconds
        while asyncio.get_running_loop().time() < end and not self.force_exit:  # a second SIGINT forces it
            await self.on_tick(0)
            await asyncio.sleep(0.1)
        await super().shutdown(sockets)


def _allow_open_files(connections: int) -> None:
    """Raises the process's limit of open files as far as it may be raised."""
    wanted = _FILES_OF_CONNECTION * connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning("too few open files allowed for MAX_CONNECTIONS", allowed=allowed, wanted=wanted)
