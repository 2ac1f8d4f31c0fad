"""Load, decide, append, and again when somebody else was faster."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TypeAlias, get_args
from uuid import UUID

import asyncpg
import msgspec
from prometheus_client import Counter

from command_service.appender import Appender, AppendOutcomeUnknown, AppendQueueFull, LogUnavailable
from command_service.domain import business_time, order
from command_service.domain.order import OrderCommand, PlaceOrder
from command_service.turns import Turns
from shared import metrics
from shared.aggregates.order import OrderEvent, stream_of
from shared.errors import Invalid, OrdersError, Rejected, Stale
from shared.eventstore import codec, snapshots
from shared.eventstore import log as event_log
from shared.eventstore.log import AppendRequest, AppendResult, AppendStatus, NewEvent
from shared.eventstore.snapshots import LoadedState, SnapshotPolicy
from shared.failpoints import failpoint
from shared.logs import get_logger
from shared.new_id import new_id
from shared.postgres import CONNECTION_LOST

_log = get_logger()

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@dataclass
class StaleVersion(Stale):
    """`current` is the stream's version now."""

    expected: int
    current: int
    code = "stale-version"
    title = "The order has changed since"

    @property
    def detail(self) -> str:
        now = f"the order is at version {self.current}" if self.current else "there is no such order yet"
        return f"If-Match names version {self.expected}; {now}."


@dataclass
class VersionConflict(Rejected):
    attempts: int
    code = "version-conflict"
    title = "Others kept changing the order"

    @property
    def detail(self) -> str:
        return f"The order was changed by others {self.attempts} times while this command was decided. Try again."


@dataclass
class KeyReused(Invalid):
    code = "idempotency-key-reused"
    title = "The Idempotency-Key was used for another request"

    @property
    def detail(self) -> str:
        return "This Idempotency-Key came with another request before; use a fresh key for a new request."


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything about a command that is not the command: who relates to whom, when, on which condition."""

    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None
    occurred_at: datetime | None = None
    expected_version: int | None = None
    key: str | None = None
    fingerprint: bytes | None = field(default=None, repr=False)
    command_id: UUID = field(default_factory=new_id)


_NEW = LoadedState()


class Handler:
    """Handles commands on orders. Safe for any number of concurrent calls and processes.

    Folded states are cached: an append is checked against the expected version and the log's id, so a stale entry can
    only cause a conflict, which reloads.
    """

    def __init__(
        self,
        pool: Pool,
        appender: Appender,
        policy: SnapshotPolicy,
        *,
        conflict_retries: int,
        cache_size: int,
        longest_turn: float,
    ) -> None:
        """`longest_turn` is how many seconds a command waits for those before it on the same order, and for a read."""
        self._pool = pool
        self._appender = appender
        self._policy = policy
        self._conflict_retries = conflict_retries
        self._cache_size = cache_size
        self._cache: OrderedDict[str, LoadedState] = OrderedDict()
        self._log_id: UUID | None = None  # of the log that the cached states are of
        self._longest_turn = longest_turn
        self._turns = Turns(longest_turn)
        self._keeping: dict[str, asyncio.Task[None]] = {}
        for command in get_args(OrderCommand):
            for alerting in (AppendOutcomeUnknown, LogUnavailable, AppendQueueFull):
                _counter(command.__name__, alerting.code)  # a rate begins with the second sample of a series

    async def close(self) -> None:
        """Waits for the snapshots that are being kept."""
        await asyncio.gather(*self._keeping.values())

    async def handle(self, command: OrderCommand, envelope: Envelope) -> AppendResult:
        """Raises what `decide` and the appender raise, and `StaleVersion`, `VersionConflict`, `KeyReused`."""
        name = type(command).__name__
        stream_id = stream_of(command.order_id)
        try:
            # Deciding on a state that is about to change would only end in a conflict, so commands on one stream take
            # turns within this process. Between processes the expected version decides.
            async with self._turns.take(stream_id):
                verdict = await self._handle(command, envelope, stream_id)
        except OrdersError as error:
            _counter(name, error.code).inc()
            raise
        _counter(name, verdict.outcome).inc()
        return verdict

    async def _handle(self, command: OrderCommand, envelope: Envelope, stream_id: str) -> AppendResult:
        log_id, loaded = self._log_id, self._cached(stream_id)
        if isinstance(command, PlaceOrder):
            # Usually new: assume an empty stream and let the append check that, and the key, in its one round trip.
            loaded = loaded or _NEW
        elif replay := await self._replay(envelope):
            # Looked up before deciding: what was right the first time may be against the rules now.
            return replay
        conflicts = 0
        while conflicts <= self._conflict_retries:
            remembered = loaded is not None
            if loaded is None:
                log_id, loaded = self._log_id, await self._load(stream_id)
            failpoint("command.deciding")
            try:
                append, after = _decide(command, envelope, stream_id, loaded, log_id)
            except OrdersError:
                if remembered:  # nobody is refused because of what we remember; the log may have moved on
                    loaded = None
                    continue
                if replay := await self._replay(envelope):
                    return replay  # this very request was handled while we were at it
                raise
            verdict = await self._appender.append(append)
            self._notice(verdict.log_id)
            if verdict.outcome is not AppendStatus.CONFLICT:
                return self._settle(stream_id, verdict, after)
            metrics.CONFLICTS.labels(type(command).__name__).inc()
            self._cache.pop(stream_id, None)
            loaded = None
            conflicts += 1
            # Two processes that keep colliding on one order would otherwise go on in step.
            await asyncio.sleep(random.uniform(0, 0.001 * 2**conflicts))
        raise VersionConflict(conflicts)

    def _notice(self, log_id: UUID) -> None:
        """A log that was restored has another id: what we remember may be of a past that it lost."""
        if log_id != self._log_id:
            self._cache.clear()
            self._log_id = log_id

    def _settle(self, stream_id: str, verdict: AppendResult, after: LoadedState) -> AppendResult:
        if verdict.outcome is AppendStatus.KEY_REUSED:
            raise KeyReused
        if verdict.outcome is AppendStatus.APPENDED:
            appended = verdict.version - after.version
            after = after._replace(version=verdict.version, position=verdict.position)
            if self._policy.is_due(after, appended, datetime.now(UTC)) and stream_id not in self._keeping:
                # In the background: a snapshot is never worth a client's time.
                self._keeping[stream_id] = asyncio.create_task(self._keep(stream_id, after))
                after = after.with_snapshot(datetime.now(UTC))
            self._remember(stream_id, after)
        return verdict

    async def _keep(self, stream_id: str, loaded: LoadedState) -> None:
        try:
            await snapshots.save(self._pool, stream_id, loaded)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            # Nothing is lost: the log has the events, and the next command that makes a snapshot due tries again.
            _log.warning("snapshot not kept", stream_id=stream_id, version=loaded.version, error=repr(error))
        finally:
            del self._keeping[stream_id]

    async def _replay(self, envelope: Envelope) -> AppendResult | None:
        """The first acknowledgement, where the envelope's key was seen before. Raises `KeyReused`."""
        if envelope.key is None:
            return None
        try:
            async with asyncio.timeout(self._longest_turn):
                found = await event_log.find_key(self._pool, envelope.key)
        except CONNECTION_LOST as error:
            raise LogUnavailable from error
        if found is None:
            return None
        fingerprint, verdict = found
        if fingerprint != envelope.fingerprint:
            raise KeyReused
        return verdict

    async def _load(self, stream_id: str) -> LoadedState:
        try:
            async with asyncio.timeout(self._longest_turn):  # a server that hangs is as good as one that is away
                return await snapshots.load(self._pool, stream_id)
        except CONNECTION_LOST as error:
            raise LogUnavailable from error

    def _cached(self, stream_id: str) -> LoadedState | None:
        loaded = self._cache.get(stream_id)
        if loaded is not None:
            self._cache.move_to_end(stream_id)
        return loaded

    def _remember(self, stream_id: str, loaded: LoadedState) -> None:
        self._cache[stream_id] = loaded
        self._cache.move_to_end(stream_id)
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


@cache
def _counter(command: str, outcome: str) -> Counter:
    return metrics.COMMANDS.labels(command, outcome)


def _decide(
    command: OrderCommand, envelope: Envelope, stream_id: str, loaded: LoadedState, log_id: UUID | None
) -> tuple[AppendRequest, LoadedState]:
    """What to append, and the state after it. A command that changes nothing is appended as well, without events: its
    expected version is then checked and its key kept like any other's."""
    if envelope.expected_version is not None and envelope.expected_version != loaded.version:
        raise StaleVersion(envelope.expected_version, loaded.version)
    decided = order.decide(command, loaded.state)
    # Where nothing happens, nothing happens too early: a repeated command may carry its first time.
    previous = loaded.last_occurred_at if decided else None
    at = business_time.occurred_at(envelope.occurred_at, datetime.now(UTC), previous)
    append = AppendRequest(
        stream_id,
        loaded.version,
        envelope.command_id,
        _new_events(decided, command, envelope, at),
        envelope.key,
        envelope.fingerprint,
        log_id,
    )
    state = loaded.state
    for event in decided:
        state = order.evolve(state, event)
    return append, loaded._replace(state=state, last_occurred_at=at if decided else loaded.last_occurred_at)


def _new_events(decided: list[OrderEvent], command: OrderCommand, envelope: Envelope, at: datetime) -> list[NewEvent]:
    command_id = str(envelope.command_id)
    fields = {
        "command_id": command_id,
        "command": type(command).__name__,
        "correlation_id": envelope.correlation_id,
        "causation_id": envelope.causation_id or command_id,
    }
    if envelope.traceparent is not None:
        fields["traceparent"] = envelope.traceparent
    metadata = msgspec.json.encode(fields).decode()
    return [NewEvent(new_id(), *codec.encode(event), metadata, at) for event in decided]
