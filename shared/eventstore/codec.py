"""Stored (type, schema version, JSON text) to event object and back, for the events of all registered aggregates.

Reading is tolerant: unknown fields are ignored, missing optional ones take their default. An older version goes through
its upcasters: they change what is read, not what is stored. What cannot be read at all (an unknown type, a version from
the future, a payload that does not fit) raises `Corrupt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from shared.aggregates import EVENT_TYPES
from shared.aggregates.aggregate import EventType, Payload
from shared.errors import Corrupt


@dataclass
class UnknownEventType(Corrupt):
    event_type: str
    code = "unknown-event-type"
    title = "The log holds an event type that this program does not know"

    @property
    def detail(self) -> str:
        return f"Event type {self.event_type!r} is unknown here; a newer program wrote it. Deploy that version first."


@dataclass
class UnknownSchemaVersion(Corrupt):
    event_type: str
    schema_version: int
    code = "unknown-schema-version"
    title = "The log holds an event version that this program does not know"

    @property
    def detail(self) -> str:
        known = EVENT_TYPES[self.event_type].version
        return f"{self.event_type} version {self.schema_version} is unknown here, which reads versions 1 to {known}."


@dataclass
class UnreadablePayload(Corrupt):
    event_type: str
    schema_version: int
    reason: str
    code = "unreadable-payload"
    title = "A stored event does not have the shape of its type"

    @property
    def detail(self) -> str:
        return f"{self.event_type} version {self.schema_version}: {self.reason}"


_encoder = msgspec.json.Encoder()


def encode(event: Any) -> tuple[str, int, str]:
    """(type, schema version, JSON text) as it is stored."""
    name = type(event).__name__
    return name, EVENT_TYPES[name].version, _encoder.encode(event).decode()


def decode(event_type: str, schema_version: int, data: str | bytes) -> Any:
    """The event as today's type. Raises `UnknownEventType`, `UnknownSchemaVersion` or `UnreadablePayload`."""
    known = EVENT_TYPES.get(event_type)
    if known is None:
        raise UnknownEventType(event_type)
    try:
        if schema_version == known.version:
            return known.decode(data)
        return msgspec.convert(_upcast(known, schema_version, msgspec.json.decode(data, type=dict)), known.event)
    except msgspec.DecodeError as error:
        raise UnreadablePayload(event_type, schema_version, str(error)) from error


def upcast(event_type: str, schema_version: int, data: str) -> tuple[int, str]:
    """(schema version, JSON text) in today's shape; as stored where this program cannot read it."""
    known = EVENT_TYPES.get(event_type)
    if known is None or schema_version == known.version:
        return schema_version, data
    try:
        payload = _upcast(known, schema_version, msgspec.json.decode(data, type=dict))
    except (UnknownSchemaVersion, msgspec.DecodeError, LookupError, TypeError, ValueError):
        return schema_version, data
    return known.version, _encoder.encode(payload).decode()


def _upcast(known: EventType, schema_version: int, payload: Payload) -> Payload:
    if not 0 < schema_version < known.version:
        raise UnknownSchemaVersion(known.event.__name__, schema_version)
    for version in range(schema_version, known.version):
        payload = known.upcasters[version](payload)
    return payload
