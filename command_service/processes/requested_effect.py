"""Finds the request of an effect in the log, by the id of the effect."""

from __future__ import annotations

from typing import Any, NamedTuple

from command_service.processes.advance import DEFINITIONS
from command_service.processes.agenda import Cause, PendingEffect
from shared.aggregates.process import PROCESS, EffectRequested, ProcessStarted, split_process_id
from shared.eventstore import codec
from shared.eventstore.store import EventStore


class RequestedEffect(NamedTuple):
    """It may have its answer by now."""

    pending: PendingEffect
    effect_type: type[Any]


async def find_requested(store: EventStore, effect_id: str) -> RequestedEffect | None:
    """None where no process requested it."""
    process_id = effect_id.rpartition("-")[0]
    kind, _ = split_process_id(process_id)
    if kind not in DEFINITIONS:
        return None
    version = 0
    async for stored in store.read_stream(PROCESS.stream_of(process_id)):
        match codec.decode(stored.event_type, stored.schema_version, stored.data):
            case ProcessStarted(code_version=code_version):
                version = code_version
            case EffectRequested() as requested if requested.effect_id == effect_id:
                pending = PendingEffect(process_id, version, requested, Cause.of(stored))
                return RequestedEffect(pending, DEFINITIONS[kind][version].message_types[requested.effect])
            case _:
                pass
    return None
