"""Admits fewer commands while a read model is an emergency behind, so that it can catch up.

Projectors report their progress to PostgreSQL (`shared.read_models.progress`); one task here reads it once a second, so
commands neither wait for that nor depend on Redis. While PostgreSQL cannot be reached, the last known lag counts. The
age of an event is at least the time since this process first saw it: where nothing else is known, that counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

import asyncpg

from shared.aio import cancel
from shared.errors import Unavailable
from shared.logs import get_logger
from shared.metrics import THROTTLED, THROTTLED_SHARE
from shared.postgres import CONNECTION_LOST
from shared.read_models.lag import EMERGENCY_SECONDS, HeadHistory
from shared.read_models.progress import ReadModelLag

LEAST_SHARE = 0.05  # admitted at any lag: a command that is repeated is admitted in the end
_POLL_SECONDS = 1.0

_log = get_logger()


@dataclass
class Throttled(Unavailable):
    """`share` of the commands are admitted now."""

    projection: str
    lag_ms: int
    share: float
    code = "throttled"
    title = "Commands are throttled while a read model catches up"

    def __post_init__(self) -> None:
        self.retry_after = 1 / self.share  # the smaller the share, the later a client should repeat

    @property
    def detail(self) -> str:
        return (
            f"The read model {self.projection} is {self.lag_ms / 1_000:.0f} s behind, so {self.share:.0%} of the"
            " commands are admitted. Nothing was done; try again."
        )


class Throttle:
    def __init__(self, read_lag: Callable[[], Awaitable[list[ReadModelLag]]]) -> None:
        """`read_lag` returns the read models that are behind. Until `start`, all commands are admitted."""
        self.active = False
        self._read_lag = read_lag
        self._heads = HeadHistory()
        self._worst, self._seconds = "", 0.0  # the read model that is furthest behind, and by how much at least
        self._share = 1.0
        self._credit = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._poll(), name="throttle")

    async def stop(self) -> None:
        await cancel(self._task)

    def admit(self) -> None:
        """Admits the command or raises `Throttled`. Admitted ones are spread evenly, not drawn at random.

        To be called while `active` only.
        """
        self._credit += self._share
        if self._credit < 1.0:
            THROTTLED.inc()
            raise Throttled(self._worst, round(self._seconds * 1_000), round(self._share, 3))
        self._credit -= 1.0

    def set(self, behind: list[ReadModelLag]) -> None:
        """Sets the read models that are behind now."""
        now = monotonic()
        for one in behind:
            self._heads.add(one.head, now)
        lags = [(max(one.seconds or 0.0, self._heads.least_age(one.position, now)), one.projection) for one in behind]
        self._seconds, self._worst = max(lags, default=(0.0, ""))
        self._share = share_of(self._seconds)
        THROTTLED_SHARE.set(1.0 - self._share)
        if self.active != (self._share < 1.0):
            self.active = not self.active
            log = _log.error if self.active else _log.info
            log(
                "throttling began" if self.active else "throttling ended", projection=self._worst, seconds=self._seconds
            )

    async def _poll(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    self.set(await self._read_lag())
            except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
                _log.warning("read model lag unknown", error=repr(error))
            await asyncio.sleep(_POLL_SECONDS)


def share_of(lag_seconds: float) -> float:
    """The share of commands that is admitted at a lag: all up to an emergency, half of them at twice that."""
    if lag_seconds <= EMERGENCY_SECONDS:
        return 1.0
    return max(LEAST_SHARE, EMERGENCY_SECONDS / lag_seconds)
