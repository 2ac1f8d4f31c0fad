"""Admission control: limits the commands in progress, so that admitted ones are answered in time.

When more commands arrive than this process can carry out, they queue in sockets and in the event loop, which have no
bound of ours, and soon every command is carried out for a client that has gone. Refusing a command costs a small part
of carrying it out, and leaves the processor to the others.

A burst is no overload; a queue that never empties is. So the least delay of an interval counts, as in CoDel (Nichols
and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012; RFC 8289). By Little's law, as many commands may be in
progress as are answered within the accepted delay. The limit then rises in small steps and falls by a fraction, as a
TCP window does (Chiu and Jain, 1989).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache, partial
from math import inf
from time import monotonic
from typing import cast

import msgspec
from prometheus_client import Counter
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from command_service.append_queue import AppendQueueFull
from shared import metrics
from shared.http.middleware import CORRELATION_HEADER, correlation_id
from shared.http.problems import MEDIA_TYPE, problem_body
from shared.http.protocol import ServerProtocol
from shared.logs import get_logger

_STANDING = 20  # the limit is lowered when the delay lasts so many times its length
_STEP = 4  # and is then adjusted every so many times its length
_UP = 1.1
_DOWN = 0.8
_LEAST = 32  # commands; fewer do not make a group
_NO_COMMANDS = {"GET", "HEAD", "OPTIONS"}  # health, metrics, documentation

_log = get_logger()


class Limit:
    """How many commands may be in progress. Pure: it is given delays and times."""

    def __init__(self, delay: float, most: int) -> None:
        """`delay` is how many seconds the event loop may be late all the time; 0 sets no limit. `most` commands may be
        in progress while it is not."""
        self.delay = delay
        self._most = most if delay else inf
        self._admitted = 0
        self._refused = 0
        self._observed = 0
        self._least = inf
        self._since = 0.0
        self.commands: float = self._most
        self.in_progress = 0  # commands; other requests that are being answered take no place of theirs
        self.in_progress_of: dict[str, int] = {}  # of each client that has some
        self.in_append: Callable[[], int] = int  # of those in progress; they need no work of this process until then

    @property
    def is_lowered(self) -> bool:
        return self.commands < self._most

    def admits(self, client: str) -> bool:
        """Whether one more command of this client is admitted."""
        if self.refuses(client):
            return False
        self._admitted += 1
        return True

    def refuses(self, client: str) -> bool:
        """Whether a command of this client is refused; `admits` has to follow where it is not and arrives."""
        in_append = self.in_append()
        own = self.in_progress_of.get(client, 0)
        refused = self.in_progress - in_append >= self.commands
        if refused:  # but a client gets up to an equal part
            refused = (own + 1) * (len(self.in_progress_of) + (own == 0)) > self.commands
        refused = refused or own - in_append >= self._most / 2  # the others get the other half
        if refused:
            self._refused += 1
        return refused

    def begin(self, client: str) -> None:
        """A command that was admitted begins; `end` has to follow."""
        self.in_progress += 1
        self.in_progress_of[client] = self.in_progress_of.get(client, 0) + 1

    def end(self, client: str) -> None:
        self.in_progress -= 1
        if self.in_progress_of[client] == 1:
            del self.in_progress_of[client]
        else:
            self.in_progress_of[client] -= 1

    def observe(self, delay: float, now: float) -> None:
        """The event loop was late by `delay` seconds."""
        self._observed += 1
        self._least = min(self._least, delay)
        seconds = now - self._since
        if self._observed > 1 and seconds >= self.delay * (_STEP if self.is_lowered else _STANDING):  # one is a burst
            self._adjust(seconds)
            self._since, self._observed, self._least, self._admitted, self._refused = now, 0, inf, 0, 0

    def _adjust(self, seconds: float) -> None:
        if self._least > self.delay:
            answered_in_time = self.commands if self.is_lowered else self._admitted / seconds * self.delay
            self.commands = max(_LEAST, answered_in_time * _DOWN)
        elif self._refused:
            self.commands = min(self._most, self.commands * _UP)
        else:
            self.commands = self._most


async def watch(limit: Limit) -> None:
    """Measures how late the event loop is and passes it to the limit, until cancelled."""
    tick = limit.delay / 4
    while limit.delay:
        due = monotonic() + tick
        await asyncio.sleep(tick)
        was_lowered, now = limit.is_lowered, monotonic()
        limit.observe(now - due, now)
        metrics.ADMISSION_LIMIT.set(limit.commands)
        if limit.is_lowered and not was_lowered:
            _log.warning("overload began", limit=round(limit.commands))
        elif was_lowered and not limit.is_lowered:
            _log.info("overload ended")


def protocol(limit: Limit) -> type[ServerProtocol]:
    """The server's protocol, which refuses commands beyond the limit."""

    class Limited(_Admission):
        _limit = limit

    return Limited


class _Answered:
    """A request that is answered already; its body is read and dropped."""

    response_complete = True
    message_event = asyncio.Event()


_ANSWERED = cast(RequestResponseCycle, _Answered())


class _Admission(ServerProtocol):
    """Refuses a command as soon as its headers are there, and counts it as soon as its body is.

    Below ASGI, because at twice the load every second request is refused: a task, a scope and two messages for each
    would cost three times as much as the refusal.
    """

    _limit: Limit

    def begin_request(self, *, expects_continue: bool, keep_alive: bool) -> None:
        before: RequestResponseCycle | None = self.cycle
        is_first = before is None or before.response_complete  # one that was sent ahead waits for those before it
        if is_first and self.scope["method"] not in _NO_COMMANDS and self._limit.refuses(self._client(self.scope)):
            self.cycle = _ANSWERED
            # A client that waits for 100 Continue need not send its body any more; that it does not would go unnoticed.
            self._refuse(self.scope, keep_alive=keep_alive and not expects_continue)
        else:
            super().begin_request(expects_continue=expects_continue, keep_alive=keep_alive)

    def run_request(self, cycle: RequestResponseCycle, app: ASGI3Application | None = None) -> None:
        if cycle.scope["method"] in _NO_COMMANDS:
            super().run_request(cycle, app)
            return
        client = self._client(cycle.scope)
        if self._limit.admits(client):
            self._limit.begin(client)
            super().run_request(cycle, partial(self._count, client))
        else:
            cycle.response_complete = True
            self._refuse(cycle.scope, keep_alive=cycle.keep_alive)

    async def _count(self, client: str, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """The application; the command is in progress until it ends, also where the client has gone."""
        try:
            await self.app(scope, receive, send)
        finally:
            self._limit.end(client)

    def _client(self, scope: HTTPScope) -> str:
        return self.open_connections.client_of(self, scope["headers"])

    def _refuse(self, scope: HTTPScope, *, keep_alive: bool) -> None:
        body = _BODY % (self.root_path.encode(), msgspec.json.encode(scope["path"]))
        correlation = correlation_id(scope["headers"]).encode()
        connection = b"" if keep_alive else b"connection: close\r\n"
        self.transport.write(_HEAD % (len(body), correlation, connection + self.fixed_headers) + body)
        if not keep_alive:
            self.transport.close()
        answered, refused = _counters(scope["method"])
        answered.inc()
        refused.inc()
        self.on_response_complete()


_BODY = msgspec.json.encode(
    problem_body(
        503,
        AppendQueueFull.code,
        AppendQueueFull.title,
        "More commands arrive than can be answered in time. Nothing was done; try again shortly.",
        instance="%b",
        root_path="%b",
    )
).replace(b'"%b"', b"%b")
_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: " + MEDIA_TYPE.encode() + b"\r\nretry-after: 1\r\n"
    b"content-length: %d\r\n" + CORRELATION_HEADER + b": %b\r\n%b\r\n"
)


@cache
def _counters(method: str) -> tuple[Counter, Counter]:
    return metrics.HTTP_REQUESTS.labels(method, "unmatched", 503), metrics.ADMISSION_REFUSED
