"""The bounded queue of requests on their way to the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from sys import getsizeof
from time import monotonic
from typing import Any
from uuid import UUID

from shared.errors import Unavailable
from shared.eventstore.append_request import AppendRequest, AppendResult, AppendStatus

# Of memory. The request that reaches it is the last of its group; none is queued behind one that reaches it.
_GROUP_BYTES = 4 * 2**20
_QUEUE_BYTES = 16 * 2**20


@dataclass
class AppendQueueFull(Unavailable):
    waiting: int
    code = "overloaded"
    title = "Too many commands are waiting"

    @property
    def detail(self) -> str:
        return f"{self.waiting} commands are waiting to be appended. Nothing was done; try again shortly."


class Pending:
    """A request on its way to the log. The command that submitted it awaits it once, for its `AppendResult`.

    Awaiting raises `LogUnavailable` or `AppendQueueFull` (nothing was done), `AppendOutcomeUnknown`, or what PostgreSQL
    refused the group with.
    """

    __slots__ = ("_result", "appended", "built_on", "bytes", "request", "since", "size")

    def __init__(self, request: AppendRequest, built_on: Sequence[Pending]) -> None:
        self.request = request
        self.built_on = built_on
        self.since = monotonic()
        size = memory = 0
        for _, _, events, _ in request.streams:
            for _, _, _, data, metadata, _ in events:
                size += len(data) + len(metadata)
                memory += getsizeof(data) + getsizeof(metadata)  # of other texts than ASCII, two or four a character
        self.size, self.bytes = size, memory  # of its events as JSON: in characters, and in bytes of memory
        self.appended: bool | None = None  # None until it is known
        self._result: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, AppendResult]:
        return self._result.__await__()

    @property
    def abandoned(self) -> bool:
        """Whether the client went away while it waited."""
        return self._result.cancelled()

    @property
    def is_unfounded(self) -> bool:
        """Whether a request that it is built on was not appended."""
        return any(other.appended is False for other in self.built_on)

    async def settled(self) -> None:
        """Returns once the result is there, for a command that waits for another one's; raises nothing."""
        await asyncio.wait([self._result])

    def finish(self, outcome: AppendResult | Exception) -> None:
        self.appended = isinstance(outcome, AppendResult) and outcome.status is AppendStatus.APPENDED
        self.built_on = ()  # else the requests of a busy stream would keep each other in memory
        if self._result.done():  # the client went away; the log has the answer
            return
        if isinstance(outcome, Exception):
            self._result.set_exception(outcome)
        else:
            self._result.set_result(outcome)


class AppendQueue:
    """Requests in the order in which they are to be appended."""

    def __init__(self, most: int, group_size: int) -> None:
        self._most = most
        self._group_size = group_size
        self._waiting: deque[Pending] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, pending: Pending) -> None:
        """Raises `AppendQueueFull`."""
        if len(self._waiting) >= self._most or self._bytes >= _QUEUE_BYTES:
            raise AppendQueueFull(len(self._waiting))
        self._waiting.append(pending)
        self._bytes += pending.bytes

    def next_group(self, log_id: UUID) -> list[Pending]:
        """The requests that have waited longest, in their order, each key once.

        A request whose key is in the group waits for the next group, as do later requests that name one of its streams.
        One that was abandoned, or is built on what was not appended, ends here, as a conflict in the log `log_id`.
        """
        group: list[Pending] = []
        later: list[Pending] = []
        keys: set[str] = set()
        held: set[str] = set()  # the streams of those in `later`
        size = 0
        for _ in range(min(len(self._waiting), 4 * self._group_size)):  # bounded, however many come with one key
            if len(group) == self._group_size or size >= _GROUP_BYTES:
                break
            pending = self._take()
            request = pending.request
            if pending.abandoned or (pending.built_on and pending.is_unfounded):
                own = request.streams[0].stream_id
                pending.finish(AppendResult(AppendStatus.CONFLICT, request.command_id, own, 0, 0, log_id))
                continue
            key = request.idempotency_key
            if key in keys or (held and not held.isdisjoint(stream.stream_id for stream in request.streams)):
                later.append(pending)
                held.update(stream.stream_id for stream in request.streams)
                continue
            if key is not None:
                keys.add(key)
            group.append(pending)
            size += pending.bytes
        self._waiting.extendleft(reversed(later))
        self._bytes += sum([pending.bytes for pending in later])
        return group

    def refuse(self, refusal: Callable[[], Exception], queued_by: float | None = None) -> None:
        """Ends every request with a refusal of its own; or only those that were queued by that time."""
        count = len(self._waiting)
        if queued_by is not None:
            count = sum(1 for _ in takewhile(lambda pending: pending.since <= queued_by, self._waiting))
        for _ in range(count):
            self._take().finish(refusal())

    def _take(self) -> Pending:
        pending = self._waiting.popleft()
        self._bytes -= pending.bytes
        return pending
