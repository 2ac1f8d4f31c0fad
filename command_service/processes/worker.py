"""Brings triggers to processes: events of the log, outcomes of effects, timers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from uuid import uuid4

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
from shared.aggregates.process import split_process_id
from shared.errors import OutcomeUnknown, Rejected, Unavailable
from shared.eventstore.log import StoredEvent
from shared.logs import get_logger

_log = get_logger()

Handle = Callable[[AdvanceProcess, CommandMetadata], Awaitable[Any]]


class ProcessWorker:
    """Stateless: what is to be done is in the log. Whatever two workers do at once takes effect once."""

    def __init__(self, handle: Handle, gateways: Mapping[type[Any], Gateway], kinds: Collection[str]) -> None:
        """`gateways`: by type of effect. Processes of these kinds are begun and go on."""
        self._handle = handle
        self._gateways = gateways
        self._kinds = kinds

    async def receive(self, stored: StoredEvent) -> None:
        """Brings an event of the log to the processes of its aggregate. Raises what `_advance` raises."""
        for kind in self._kinds:
            subject_id = current_definition(kind).subject.id_of(stored.stream_id)
            if subject_id is not None:
                trigger = SubjectChanged(stored.position, stored.event_type)
                await self._advance(kind, subject_id, trigger, Cause.of(stored))

    async def carry_out(self, pending: PendingEffect, *, first: bool) -> None:
        """Has an effect carried out and records its outcome. `first`: it was certainly not sent before.

        Raises what the gateway raises, and what `_advance` raises.
        """
        kind, subject_id = split_process_id(pending.process_id)
        requested = pending.requested
        definition = DEFINITIONS[kind][pending.code_version]
        effect = definition.message(requested.effect, requested.data)
        gateway = self._gateways[type(effect)]
        outcome = None if first else await gateway.outcome_of(requested.effect_id)
        if outcome is None:
            outcome = await gateway.carry_out(requested.effect_id, effect)
        await self._advance(kind, subject_id, Answer(requested.effect_id, outcome), pending.cause)

    async def fire(self, pending: PendingTimer) -> None:
        """Raises what `_advance` raises."""
        kind, subject_id = split_process_id(pending.process_id)
        await self._advance(kind, subject_id, TimerDue(pending.timer), pending.cause)

    async def _advance(self, kind: str, subject_id: str, trigger: Trigger, cause: Cause) -> None:
        """Raises `Unavailable`, `OutcomeUnknown` or `Rejected` (a conflict): try again. After any other error the
        process is stuck, and the others go on."""
        correlation_id = cause.correlation_id or str(uuid4())
        metadata = CommandMetadata(correlation_id, cause.event_id)
        try:
            await self._handle(AdvanceProcess(kind, subject_id, trigger), metadata)
        except (Unavailable, OutcomeUnknown, Rejected):
            raise
        except Exception as error:  # noqa: BLE001 - a defect of one process
            _log.exception("process failed", kind=kind, subject_id=subject_id, trigger=type(trigger).__name__)
            failed = AdvanceProcess(kind, subject_id, Failed(f"{type(trigger).__name__}: {error!r}"))
            await self._handle(failed, CommandMetadata(correlation_id, cause.event_id))
