"""What a worker does, and what keeps it from its work: as it is reported to operators."""

from __future__ import annotations

from enum import StrEnum
from time import monotonic
from typing import Any

from projector.parking import poison_of
from projector.routing import PoisonEvent
from projector.stores.store import UNAVAILABLE, Fenced, VersionMismatch
from shared.logs import get_logger
from shared.read_models.poison import Poison

STANDBY_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
LAST_POISON_RETRY_SECONDS = 30.0

_log = get_logger()


class WorkerState(StrEnum):
    STARTING = "starting"
    STANDBY = "standby"  # another projector is active
    WAITING = "waiting"  # its code is not the generation's: for a rebuild, or for the program whose code it is
    ACTIVE = "active"
    STUCK = "stuck"  # `WorkerStatus.cause` says why


class WorkerStatus:
    """Of one partition in this process."""

    def __init__(self, projection: str, partition: int, stale_seconds: float) -> None:
        self.state = WorkerState.STARTING
        self.cause = "The projector has not connected yet."  # of the state
        self.poison: Poison | None = None  # the event that it is stuck before
        self.epoch: int | None = None  # of its last lease
        self.store_reached = True  # when it was last asked
        self.may_retry = True  # after its last failure other processes need not be better off
        self._about: dict[str, Any] = {"projection": projection, "partition": partition}
        self._stale_seconds = stale_seconds
        self._heartbeat_at: float | None = None  # by the clock of `monotonic`, of the active worker
        self._failures = 0

    @property
    def working(self) -> bool:
        """Whether it is active, or another worker was lately; else `reason` says what keeps it."""
        return self.state is WorkerState.ACTIVE or (self.is_passive and self._heartbeat_age < self._stale_seconds)

    @property
    def reason(self) -> str:
        if not self.is_passive:
            return self.cause
        since = "" if self._heartbeat_at is None else f" for {self._heartbeat_age:.0f} s"
        return f"Waiting for the projector: no heartbeat{since}. {self.cause}".rstrip()

    @property
    def is_passive(self) -> bool:
        """Whether another worker has the work."""
        return self.state in (WorkerState.STANDBY, WorkerState.WAITING)

    @property
    def reports(self) -> bool:
        """Whether heartbeat and progress are its to report: it has the work, also while it is stuck."""
        return self.epoch is not None and self.state in (WorkerState.ACTIVE, WorkerState.STUCK)

    @property
    def inactive_because(self) -> str:
        """What keeps it from the work while no worker is active."""
        return self.cause if self.state in (WorkerState.WAITING, WorkerState.STUCK) else ""

    @property
    def _heartbeat_age(self) -> float:
        return float("inf") if self._heartbeat_at is None else monotonic() - self._heartbeat_at

    def received_heartbeat(self, age: float | None) -> None:
        """Of the active worker; None: there never was one, or its age is not known."""
        self._heartbeat_at = None if age is None else monotonic() - age

    def stand_by(self) -> None:
        """Another worker is active, or is about to be."""
        if not self.is_passive:
            _log.info("standing by; another projector is active", **self._about)
            self.state, self.cause, self.poison = WorkerState.STANDBY, "", None

    def activate(self, epoch: int, generation: int) -> None:
        if self.state is not WorkerState.ACTIVE:
            _log.info("projecting", **self._about, generation=generation, epoch=epoch)
        self.state, self.epoch, self.cause, self._failures = WorkerState.ACTIVE, epoch, "", 0
        self.poison, self.may_retry, self.store_reached = None, True, True

    def stop_before(self, raised: PoisonEvent, epoch: int) -> None:
        self.state, self.epoch = WorkerState.STUCK, epoch
        self.cause = f"Stopped before an event that cannot be applied: {raised}"
        self.poison = poison_of(raised)

    def fail(self, error: Exception) -> float:
        """Seconds to wait before the next try."""
        longest = LAST_RETRY_SECONDS
        self.may_retry = isinstance(error, (Fenced, *UNAVAILABLE))  # may be over soon, or is the same everywhere
        self.store_reached = not isinstance(error, UNAVAILABLE)
        if not isinstance(error, PoisonEvent):
            self.poison = None
        match error:
            case PoisonEvent():
                longest = LAST_POISON_RETRY_SECONDS
                self._log_poison(error)
            case VersionMismatch():
                # During a deploy the other program goes on with it; afterwards a rebuild makes a generation of ours.
                if self.cause != str(error):
                    _log.warning("standing by", **self._about, reason=str(error))
                self.state, self.cause, self._failures = WorkerState.WAITING, str(error), 0
                return STANDBY_SECONDS
            case Fenced():
                self.cause = "Another projector has taken over."
                _log.warning("fenced by another projector; standing by", **self._about, epoch=self.epoch)
            case _ if isinstance(error, UNAVAILABLE):
                self.cause = f"PostgreSQL or Redis is away or refuses: {type(error).__name__}: {error}"
                _log.warning("postgresql or redis unavailable; retrying", **self._about, error=repr(error))
            case _:
                self.cause = f"{type(error).__name__}: {error}"
                _log.error("partition worker failed; retrying", **self._about, exc_info=error)
        self.state = WorkerState.STUCK
        self._failures += 1
        return min(longest, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 20))

    def _log_poison(self, raised: PoisonEvent) -> None:
        event = raised.event
        _log.error(
            "stopped at poison event",
            **self._about,
            position=event.position,
            stream_id=event.stream_id,
            event_type=event.event_type,
            schema_version=event.schema_version,
            error=str(raised.__cause__),
            exc_info=raised.__cause__,
        )
