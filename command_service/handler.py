"""Handles commands: load, decide, append, and again after a conflict.

Commands on one stream are decided one after the other, each on the state after the one before, which may still be on
its way to the log: so several of them share a group commit (decision 29).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from prometheus_client import Counter

from command_service.append_queue import AppendQueueFull, Pending
from command_service.decision import CommandMetadata, Decision, decide, streams_of
from command_service.domain import DECIDERS
from command_service.domain.decider import Decider, MoreStreams
from command_service.group_commit import AppendOutcomeUnknown, GroupCommit, LogUnavailable
from command_service.keyed_locks import KeyedLocks
from command_service.snapshot_saver import SnapshotSaver
from command_service.state_cache import LatestState, StateCache
from shared import metrics
from shared.aggregates import aggregate_of
from shared.errors import Invalid, OrdersError, Rejected
from shared.eventstore.append_request import AppendRequest, AppendResult, AppendStatus
from shared.eventstore.snapshots import LoadedState, SnapshotPolicy, Snapshots
from shared.eventstore.store import EventStore
from shared.failpoints import failpoint
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST

MAX_AHEAD = 128  # commands that are decided on each other before all of them are in the log
_ABSENT = LoadedState()
_NEW = LatestState(_ABSENT)  # what is assumed of a stream that a command usually begins

_log = get_logger()


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


class _Job(NamedTuple):
    """A command that is being handled. `streams` begins with its own."""

    decider: Decider[Any, Any, Any]
    command: Any
    metadata: CommandMetadata
    streams: Sequence[str]
    may_begin: bool  # its stream, which then usually has no event yet
    absent: Sequence[str] = ()  # further streams, which are expected to have no event

    @classmethod
    def of(cls, command: Any, metadata: CommandMetadata) -> _Job:
        decider = DECIDERS[type(command)]
        begins, absent = type(command) in decider.begins, decider.usually_absent(command)
        return cls(decider, command, metadata, streams_of(decider, command), begins, absent)

    def over(self, more: MoreStreams) -> _Job:
        """Decided on these streams as well."""
        given = {*self.streams, *self.absent}
        assert not given.issuperset((*more.streams, *more.usually_absent)), (
            f"{type(self.command).__name__} asks for streams that it was given"
        )
        absent = (*self.absent, *[name for name in more.usually_absent if name not in given])
        return self._replace(absent=absent).having(more.streams)

    def having(self, streams: Iterable[str]) -> _Job:
        """Decided on these streams, some of which were expected to be absent."""
        named = dict.fromkeys((*self.streams, *streams))
        return self._replace(streams=tuple(named), absent=tuple([name for name in self.absent if name not in named]))


class _Submitted(NamedTuple):
    pending: Pending
    built_on: Sequence[Pending]
    states: Mapping[str, LatestState]  # of each stream that gets events, after them

    @property
    def is_sound(self) -> bool:
        """Whether all that it was built on was appended."""
        return all(pending.appended for pending in self.built_on)


class Handler:
    """Handles the commands of all registered deciders. Safe for any number of concurrent calls and processes."""

    def __init__(
        self,
        store: EventStore,
        snapshots: Snapshots,
        group_commit: GroupCommit,
        policy: SnapshotPolicy,
        *,
        conflict_retries: int,
        cache_bytes: int,
        lock_timeout: float,
    ) -> None:
        """`lock_timeout` is how many seconds a command waits for those before it on the same stream, and for a read."""
        self._store = store
        self._snapshots = snapshots
        self._group_commit = group_commit
        self._conflict_retries = conflict_retries
        self._cache = StateCache(cache_bytes)
        self._snapshot_saver = SnapshotSaver(snapshots, policy, self._cache)
        self._log_id: UUID | None = None  # of the log that the cached states are of
        self._lock_timeout = lock_timeout
        self._locks = KeyedLocks(lock_timeout)
        for command in DECIDERS:
            for alerting in (AppendOutcomeUnknown, LogUnavailable, AppendQueueFull):
                _counter(command.__name__, alerting.code)  # a rate begins with the second sample of a series

    async def close(self) -> None:
        """Waits for the snapshots that are being saved."""
        await self._snapshot_saver.close()

    async def handle(self, command: Any, metadata: CommandMetadata) -> AppendResult:
        """Raises what `decide` and the group commit raise, and `LockTimeout`, `VersionConflict`, `KeyReused`."""
        name = type(command).__name__
        try:
            result = await self._handle(_Job.of(command, metadata))
        except OrdersError as error:
            _counter(name, error.code).inc()
            raise
        _counter(name, result.status).inc()
        return result

    async def _handle(self, job: _Job) -> AppendResult:
        conflicts = 0
        while conflicts <= self._conflict_retries:
            job = self._with_known(job)
            try:
                async with self._locks.hold(*job.streams):
                    if conflicts:  # two processes that keep colliding on one stream would otherwise go on in step
                        await asyncio.sleep(random.uniform(0, 0.001 * 2**conflicts))
                    if job.metadata.expected_log_id not in (None, self._log_id):
                        self._check_log_id(await self._read_log_id())
                    submitted = await self._submit(job)
            except MoreStreams as more:
                job = job.over(more)
                continue
            if isinstance(submitted, AppendResult):
                return submitted
            result = await self._result(job, submitted)
            if result.status is AppendStatus.KEY_REUSED:
                raise KeyReused
            if result.status is not AppendStatus.CONFLICT:
                return result
            # Else it was decided on what was not appended, and is decided again. That is not counted: it happens at
            # most once for each command before it.
            if submitted.is_sound:
                metrics.CONFLICTS.labels(type(job.command).__name__).inc()
                conflicts += 1
            job = await self._with_existing(job._replace(may_begin=False))
        raise VersionConflict(conflicts)

    def _with_known(self, job: _Job) -> _Job:
        """Decided on the states that are cached of streams that it expects to be absent."""
        known = [name for name in job.absent if self._cache.get(name) is not None] if job.absent else []
        return job.having(known) if known else job

    async def _with_existing(self, job: _Job) -> _Job:
        """Decided on the streams that have an event, of those that it expects to be absent."""
        if not job.absent:
            return job
        try:
            async with asyncio.timeout(self._lock_timeout):
                return job.having(await self._store.existing(job.absent))
        except CONNECTION_LOST as error:
            raise LogUnavailable from error

    async def _submit(self, job: _Job) -> _Submitted | AppendResult:
        """Decides the command and queues what it appends, while the locks of its streams are held. The first
        acknowledgement where the command was carried out before and would be refused now."""
        latest = self._latest(job)
        for known in latest.values():
            if known.ahead >= MAX_AHEAD and known.unsettled is not None:
                await known.unsettled.settled()
        while True:
            log_id = self._log_id
            states = dict.fromkeys((*job.streams, *job.absent), _ABSENT)
            for name in job.streams:
                states[name] = latest[name].loaded if name in latest else await self._load(name)
            failpoint("command.deciding")
            try:
                decision = decide(job.decider, job.command, job.metadata, states, log_id)
            except OrdersError:
                if not latest:
                    if replay := await self._replay(job.metadata):
                        return replay  # this very request was handled before
                    raise
            else:
                return self._submit_decision(decision, latest)
            # No command is refused on a state that is cached or on its way: it is decided again on the log.
            for pending in _unsettled(latest):
                await pending.settled()
            latest = {}

    def _latest(self, job: _Job) -> dict[str, LatestState]:
        """What is known of the streams without reading the log."""
        latest = {name: known for name in job.streams if (known := self._cache.get(name)) is not None}
        if job.may_begin and job.streams[0] not in latest:
            latest[job.streams[0]] = _NEW  # the append checks that, and the key, in its one round trip
        return latest

    def _submit_decision(self, decision: Decision, latest: Mapping[str, LatestState]) -> _Submitted:
        request, after = decision
        built_on = _unsettled(latest)
        pending = self._group_commit.submit(request, built_on)
        ahead = 1 + max([known.ahead for known in latest.values()]) if built_on else 1
        states = {}
        for name, loaded in after.items():
            states[name] = state = LatestState(loaded, pending, ahead)
            self._cache.put(name, state, pending.size)
        return _Submitted(pending, built_on, states)

    async def _result(self, job: _Job, submitted: _Submitted) -> AppendResult:
        pending, _, states = submitted
        try:
            result = await pending
        except Exception:  # whatever it is, these states are not known to be in the log
            self._drop(states)
            raise
        if result.status is AppendStatus.APPENDED:
            self._check_log_id(result.log_id)
            self._commit(pending.request, result, states)
        elif submitted.is_sound:
            self._check_log_id(result.log_id)
            # States that others decided on its events are invalid; after a conflict, all that it was decided on are.
            self._drop(job.streams if result.status is AppendStatus.CONFLICT else states)
        return result

    def _drop(self, streams: Iterable[str]) -> None:
        for name in streams:
            self._cache.drop(name)

    def _check_log_id(self, log_id: UUID) -> None:
        """A log that was restored has another id: the cached states may be of a past that it lost."""
        if log_id != self._log_id:
            self._cache.clear()
            self._log_id = log_id

    def _commit(self, request: AppendRequest, result: AppendResult, states: Mapping[str, LatestState]) -> None:
        # Of the last event: those of a request are consecutive, in the order of its streams.
        position, now = result.position, datetime.now(UTC)
        for stream_id, _, events, _ in reversed(request.streams):
            if events:
                state = states[stream_id]
                state.pending = None
                self._snapshot_saver.save_if_due(stream_id, state, len(events), position, now)
                position -= len(events)

    async def _replay(self, metadata: CommandMetadata) -> AppendResult | None:
        """The first acknowledgement, where the idempotency key was used before. Raises `KeyReused`."""
        if metadata.idempotency_key is None:
            return None
        try:
            async with asyncio.timeout(self._lock_timeout):
                found = await self._store.find_key(metadata.idempotency_key)
        except CONNECTION_LOST as error:
            raise LogUnavailable from error
        if found is None:
            return None
        fingerprint, result = found
        if fingerprint != metadata.fingerprint:
            raise KeyReused
        return result

    async def _read_log_id(self) -> UUID:
        try:
            async with asyncio.timeout(self._lock_timeout):
                return (await self._store.read_head()).log_id
        except CONNECTION_LOST as error:
            raise LogUnavailable from error

    async def _load(self, stream_id: str) -> LoadedState:
        try:
            async with asyncio.timeout(self._lock_timeout):  # a server that hangs counts as one that is away
                return await self._snapshots.load(aggregate_of(stream_id), stream_id)
        except CONNECTION_LOST as error:
            raise LogUnavailable from error


def _unsettled(latest: Mapping[str, LatestState]) -> list[Pending]:
    return [known.unsettled for known in latest.values() if known.unsettled is not None]


@cache
def _counter(command: str, outcome: str) -> Counter:
    return metrics.COMMANDS.labels(command, outcome)
