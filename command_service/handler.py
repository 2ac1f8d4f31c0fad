"""Handles commands: load, decide, append, and again after a conflict."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import msgspec
from prometheus_client import Counter

from command_service.domain import DECIDERS, business_time
from command_service.domain.decider import Decider
from command_service.group_commit import AppendOutcomeUnknown, AppendQueueFull, GroupCommit, LogUnavailable
from command_service.keyed_locks import KeyedLocks
from shared import metrics
from shared.aggregates.aggregate import Aggregate
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
    """`current` is the version now."""

    expected: int
    current: int
    code = "stale-version"
    title = "If-Match names another version"

    @property
    def detail(self) -> str:
        now = f"the current version is {self.current}" if self.current else "there is nothing at this address yet"
        return f"If-Match names version {self.expected}; {now}."


@dataclass
class VersionConflict(Rejected):
    attempts: int
    code = "version-conflict"
    title = "Other commands kept changing the same data"

    @property
    def detail(self) -> str:
        return f"Other commands changed the same data {self.attempts} times while this one was decided. Try again."


@dataclass
class KeyReused(Invalid):
    code = "idempotency-key-reused"
    title = "The Idempotency-Key was used for another request"

    @property
    def detail(self) -> str:
        return "This Idempotency-Key came with another request before; use a fresh key for a new request."


@dataclass(frozen=True, slots=True)
class CommandMetadata:
    """Everything about a command that is not the command: its ids, its time, its condition, its key."""

    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None
    occurred_at: datetime | None = None
    expected_version: int | None = None
    idempotency_key: str | None = None
    fingerprint: bytes | None = field(default=None, repr=False)  # of the request, for its idempotency key
    command_id: UUID = field(default_factory=new_id)


_NEW = LoadedState()


class Handler:
    """Handles the commands of all registered deciders. Safe for any number of concurrent calls and processes.

    Folded states are cached: an append is checked against the expected version and the log's id, so a stale entry can
    only cause a conflict, which reloads.
    """

    def __init__(
        self,
        pool: Pool,
        group_commit: GroupCommit,
        policy: SnapshotPolicy,
        *,
        conflict_retries: int,
        cache_size: int,
        lock_timeout: float,
    ) -> None:
        """`lock_timeout` is how many seconds a command waits for those before it on the same stream, and for a read."""
        self._pool = pool
        self._group_commit = group_commit
        self._policy = policy
        self._conflict_retries = conflict_retries
        self._cache_size = cache_size
        self._cache: OrderedDict[str, LoadedState] = OrderedDict()
        self._log_id: UUID | None = None  # of the log that the cached states are of
        self._lock_timeout = lock_timeout
        self._locks = KeyedLocks(lock_timeout)
        self._saving: dict[str, asyncio.Task[None]] = {}
        for command in DECIDERS:
            for alerting in (AppendOutcomeUnknown, LogUnavailable, AppendQueueFull):
                _counter(command.__name__, alerting.code)  # a rate begins with the second sample of a series

    async def close(self) -> None:
        """Waits for the snapshots that are being saved."""
        await asyncio.gather(*self._saving.values())

    async def handle(self, command: Any, metadata: CommandMetadata) -> AppendResult:
        """Raises what `decide` and the group commit raise, and `StaleVersion`, `VersionConflict`, `KeyReused`."""
        name = type(command).__name__
        decider = DECIDERS[type(command)]
        try:
            # Deciding on a state that is about to change would only end in a conflict, so commands on one stream are
            # serialised within this process. Between processes the expected version decides.
            async with self._locks.hold(decider.stream_of(command)):
                result = await self._handle(decider, command, metadata)
        except OrdersError as error:
            _counter(name, error.code).inc()
            raise
        _counter(name, result.status).inc()
        return result

    async def _handle(self, decider: Decider[Any, Any, Any], command: Any, metadata: CommandMetadata) -> AppendResult:
        stream_id = decider.stream_of(command)
        log_id, loaded = self._log_id, self._cached(stream_id)
        if type(command) in decider.begins:
            # Usually new: assume an empty stream and let the append check that, and the key, in its one round trip.
            loaded = loaded or _NEW
        elif replay := await self._replay(metadata):
            # Looked up before deciding: what was right the first time may be against the rules now.
            return replay
        conflicts = 0
        while conflicts <= self._conflict_retries:
            cached = loaded is not None
            if loaded is None:
                log_id, loaded = self._log_id, await self._load(decider.aggregate, stream_id)
            failpoint("command.deciding")
            try:
                append, after = _decide(decider, command, metadata, stream_id, loaded, log_id)
            except OrdersError:
                if cached:  # no refusal is decided on a cached state; the log may have moved on
                    loaded = None
                    continue
                if replay := await self._replay(metadata):
                    return replay  # this very request was handled meanwhile
                raise
            result = await self._group_commit.append(append)
            self._check_log_id(result.log_id)
            if result.status is not AppendStatus.CONFLICT:
                return self._finish(decider.aggregate, stream_id, result, after)
            metrics.CONFLICTS.labels(type(command).__name__).inc()
            self._cache.pop(stream_id, None)
            loaded = None
            conflicts += 1
            # Two processes that keep colliding on one stream would otherwise go on in step.
            await asyncio.sleep(random.uniform(0, 0.001 * 2**conflicts))
        raise VersionConflict(conflicts)

    def _check_log_id(self, log_id: UUID) -> None:
        """A log that was restored has another id: the cached states may be of a past that it lost."""
        if log_id != self._log_id:
            self._cache.clear()
            self._log_id = log_id

    def _finish(
        self, aggregate: Aggregate[Any, Any], stream_id: str, result: AppendResult, after: LoadedState
    ) -> AppendResult:
        if result.status is AppendStatus.KEY_REUSED:
            raise KeyReused
        if result.status is AppendStatus.APPENDED:
            appended = result.version - after.version
            after = after._replace(version=result.version, position=result.position)
            if self._policy.is_due(after, appended, datetime.now(UTC)) and stream_id not in self._saving:
                # In the background: no client waits for a snapshot.
                self._saving[stream_id] = asyncio.create_task(self._save_snapshot(aggregate, stream_id, after))
                after = after.with_snapshot(datetime.now(UTC))
            self._add_to_cache(stream_id, after)
        return result

    async def _save_snapshot(self, aggregate: Aggregate[Any, Any], stream_id: str, loaded: LoadedState) -> None:
        try:
            await snapshots.save(self._pool, aggregate, stream_id, loaded)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            # Nothing is lost: the log has the events, and the next command that makes a snapshot due tries again.
            _log.warning("snapshot not saved", stream_id=stream_id, version=loaded.version, error=repr(error))
        finally:
            del self._saving[stream_id]

    async def _replay(self, metadata: CommandMetadata) -> AppendResult | None:
        """The first acknowledgement, where the idempotency key was used before. Raises `KeyReused`."""
        if metadata.idempotency_key is None:
            return None
        try:
            async with asyncio.timeout(self._lock_timeout):
                found = await event_log.find_key(self._pool, metadata.idempotency_key)
        except CONNECTION_LOST as error:
            raise LogUnavailable from error
        if found is None:
            return None
        fingerprint, result = found
        if fingerprint != metadata.fingerprint:
            raise KeyReused
        return result

    async def _load(self, aggregate: Aggregate[Any, Any], stream_id: str) -> LoadedState:
        try:
            async with asyncio.timeout(self._lock_timeout):  # a server that hangs counts as one that is away
                return await snapshots.load(self._pool, aggregate, stream_id)
        except CONNECTION_LOST as error:
            raise LogUnavailable from error

    def _cached(self, stream_id: str) -> LoadedState | None:
        loaded = self._cache.get(stream_id)
        if loaded is not None:
            self._cache.move_to_end(stream_id)
        return loaded

    def _add_to_cache(self, stream_id: str, loaded: LoadedState) -> None:
        self._cache[stream_id] = loaded
        self._cache.move_to_end(stream_id)
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


@cache
def _counter(command: str, outcome: str) -> Counter:
    return metrics.COMMANDS.labels(command, outcome)


def _decide(
    decider: Decider[Any, Any, Any],
    command: Any,
    metadata: CommandMetadata,
    stream_id: str,
    loaded: LoadedState,
    log_id: UUID | None,
) -> tuple[AppendRequest, LoadedState]:
    """What to append, and the state after it. A command that changes nothing is appended as well, without events: its
    expected version is then checked and its key recorded like any other's."""
    if metadata.expected_version is not None and metadata.expected_version != loaded.version:
        raise StaleVersion(metadata.expected_version, loaded.version)
    decided = decider.decide(command, loaded.state)
    # A command without events is never too early: a repeated command may carry its first time.
    previous = loaded.last_occurred_at if decided else None
    at = business_time.occurred_at(metadata.occurred_at, datetime.now(UTC), previous)
    append = AppendRequest.of_stream(
        stream_id,
        loaded.version,
        metadata.command_id,
        _new_events(decided, command, metadata, at),
        metadata.idempotency_key,
        metadata.fingerprint,
        log_id,
    )
    state = loaded.state
    for event in decided:
        state = decider.aggregate.evolve(state, event)
    return append, loaded._replace(state=state, last_occurred_at=at if decided else loaded.last_occurred_at)


def _new_events(decided: Sequence[Any], command: Any, metadata: CommandMetadata, at: datetime) -> list[NewEvent]:
    command_id = str(metadata.command_id)
    fields = {
        "command_id": command_id,
        "command": type(command).__name__,
        "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id or command_id,
    }
    if metadata.traceparent is not None:
        fields["traceparent"] = metadata.traceparent
    encoded = msgspec.json.encode(fields).decode()
    return [NewEvent(new_id(), *codec.encode(event), encoded, at) for event in decided]
