"""Bounds of what a client may send and how long it may take. A request that passes one is refused
(`shared.http.protocol`)."""

from __future__ import annotations

from typing import NamedTuple

from shared.settings import Settings

# Bytes.
MAX_REQUEST_LINE_BYTES = 8 * 1024
MAX_HEADER_BYTES = 8 * 1024  # name and value of one header
MAX_HEAD_BYTES = 16 * 1024  # all headers, and trailers
MAX_HEADER_LINES = 100
SENT_AHEAD_BYTES = 4 * 1024  # that a request takes, beside head and body, which waits for the answer before it
SMALL_BYTES = 4 * 1024  # heads and bodies up to this size are bounded by the number of connections alone
MAX_HELD_BYTES = 32 * 1024 * 1024  # larger ones, and requests sent ahead, that have no answer yet
MAX_HELD_BYTES_PER_CLIENT = 8 * 1024 * 1024

# Bytes per second, after the first `Deadlines.body`.
MIN_BODY_RATE = 1024


class Deadlines(NamedTuple):
    """Seconds that a connection waits for its client."""

    first_byte: float = 30.0  # of the first request
    head: float = 15.0  # from its first byte to its last
    body: float = 15.0  # and one more for each `MIN_BODY_RATE` bytes that have arrived
    read: float = 30.0  # the client reads nothing of an answer
    close: float = 2.0  # after a refusal, while the client still sends
    idle: float = 75.0  # between two requests; `KEEP_ALIVE_SECONDS`
    resolution: float = 1.0  # time between two checks for late connections


class ConnectionLimits(NamedTuple):
    """What one server accepts."""

    max_body_bytes: int = 512 * 1024
    max_connections: int = 4_000
    max_connections_per_client: int = 1_000
    trusted_proxies: str = ""  # without limits per client: each speaks for many
    deadlines: Deadlines = Deadlines()

    @staticmethod
    def of(settings: Settings) -> ConnectionLimits:
        return ConnectionLimits(
            settings.max_body_bytes,
            settings.max_connections,
            settings.max_connections_per_client,
            settings.forwarded_allow_ips,
            Deadlines(idle=settings.keep_alive_seconds),
        )
