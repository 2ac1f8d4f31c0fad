"""Brings triggers to processes: events of the log, outcomes of effects, timers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Container, Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg
from uuid_utils.compat import uuid7

from command_service.decision import CommandMetadata
from command_service.gateways.gateway import Gateway
from command_service.processes.advance import (
    DEFINITIONS,
    AdvanceProcess,
    Answer,
    Failed,
    SubjectChanged,
    TimerDue,
    Trigger,
    current_definition,
)
from command_service.processes.agenda import Cause, PendingEffect, PendingTimer
from shared.aggregates.process import process_id_of, split_process_id
from shared.errors import OutcomeUnknown, Rejected, Unavailable
from shared.eventstore.log import StoredEvent
from shared.failpoints import failpoint
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST

_log = get_logger()

# An attempt that raised one of these may succeed later. `Rejected` is a conflict.
TRANSIENT = (Unavailable, OutcomeUnknown, Rejected, asyncpg.PostgresError, *CONNECTION_LOST)

Handle = Callable[[AdvanceProcess, CommandMetadata], Awaitable[Any]]


class ProcessWorker:
    """Stateless: what is to be done is in the log. Whatever two workers do at once takes effect once."""

    def __init__(self, handle: Handle, gateways: Mapping[type[Any], Gateway], kinds: Collection[str]) -> None:
        """`gateways`: by type of effect. Processes of these kinds are begun; those of other kinds that run go on."""
        self._handle = handle
        self._gateways = gateways
        self._kinds = frozenset(kinds)

    def gateway_of(self, pending: PendingEffect) -> Gateway | None:
        """None where there is none, or the process is of a version that is not registered."""
        kind, _ = split_process_id(pending.process_id)
        definition = DEFINITIONS.get(kind, {}).get(pending.code_version)
        effect = definition and definition.message_types.get(pending.requested.effect)
        return self._gateways.get(effect) if effect else None

    def concerned(self, stored: StoredEvent, running: Container[str]) -> list[str]:
        """The ids of the processes that an event is brought to. `running` are those that have not ended, according to
        the log up to the event or further."""
        ids = {kind: process_id_of(kind, subject_id) for kind, subject_id in self._subjects(stored)}
        goes_on = {kind for kind, process_id in ids.items() if process_id in running}
        begins = {kind for kind in ids if stored.event_type in current_definition(kind).begin_types} & self._kinds
        if not goes_on <= self._kinds:  # another form of fulfilment has begun with the order, and ends with it
            begins = set()
        return [process_id for kind, process_id in ids.items() if kind in goes_on | begins]

    def _subjects(self, stored: StoredEvent) -> Iterator[tuple[str, str]]:
        for kind in DEFINITIONS:
            if (subject_id := current_definition(kind).subject.id_of(stored.stream_id)) is not None:
                yield kind, subject_id

    async def receive(self, process_id: str, stored: StoredEvent) -> None:
        """Brings an event of the log to a process. Raises what `_advance` raises."""
        kind, subject_id = split_process_id(process_id)
        await self._advance(kind, subject_id, SubjectChanged(stored.position, stored.event_type), Cause.of(stored))

    async def carry_out(self, pending: PendingEffect, *, first: bool) -> None:
        """Has an effect carried out and records its outcome. `first`: it was certainly not sent before.

        Raises what the gateway raises, and what `_advance` raises.
        """
        kind, _ = split_process_id(pending.process_id)
        requested = pending.requested
        definition = DEFINITIONS[kind][pending.code_version]
        effect = definition.message(requested.effect, requested.data)
        gateway = self._gateways[type(effect)]
        outcome = None if first else await gateway.outcome_of(requested.effect_id)
        if outcome is None:
            outcome = await gateway.carry_out(requested.effect_id, effect)
        failpoint("effect.carried_out", requested.effect)
        await self.record(pending, outcome)

    async def record(self, pending: PendingEffect, outcome: Any) -> None:
        """Records what came of an effect, unless it has its answer. Raises what `_advance` raises."""
        kind, subject_id = split_process_id(pending.process_id)
        await self._advance(kind, subject_id, Answer(pending.name, outcome), pending.cause)

    async def fire(self, pending: PendingTimer) -> None:
        """Raises what `_advance` raises."""
        kind, subject_id = split_process_id(pending.process_id)
        await self._advance(kind, subject_id, TimerDue(pending.timer), pending.cause)

    async def _advance(self, kind: str, subject_id: str, trigger: Trigger, cause: Cause) -> None:
        """Raises what is in `TRANSIENT`: try again. After any other error the process is stuck, and the others go
        on."""
        correlation_id = cause.correlation_id or str(uuid4())
        metadata = CommandMetadata(correlation_id, cause.event_id)
        failpoint("process.advancing", type(trigger).__name__)
        try:
            await self._handle(AdvanceProcess(kind, subject_id, trigger), metadata)
            failpoint("process.advanced", type(trigger).__name__)
        except TRANSIENT:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of one process
            _log.exception("process failed", kind=kind, subject_id=subject_id, trigger=type(trigger).__name__)
            await self._fail(kind, subject_id, Failed(f"{trigger}: {error!r}"), metadata)

    async def give_up(self, pending: PendingEffect, error: Exception) -> None:
        """An effect gets no answer: its process is stuck. Raises what `_advance` raises."""
        failed = Failed(f"{pending.name} has no answer: {error!r}", pending.name)
        metadata = CommandMetadata(pending.cause.correlation_id or str(uuid4()), pending.cause.event_id)
        await self._fail(*split_process_id(pending.process_id), failed, metadata)

    async def _fail(self, kind: str, subject_id: str, failed: Failed, metadata: CommandMetadata) -> None:
        await self._handle(AdvanceProcess(kind, subject_id, failed), replace(metadata, command_id=uuid7()))
