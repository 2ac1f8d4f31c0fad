"""Stored (type, schema version, JSON text) to event object and back, with the chain of upcasters in between.

Reading is tolerant: unknown fields are ignored, missing optional ones take their default. What cannot be understood
at all (an unknown type, a version from the future, a payload that does not fit) stops the reader with `Corrupt`.
History is never rewritten: an upcaster changes what is read, not what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from shared.aggregates.order import OrderEvent
from shared.errors import Corrupt

Event = OrderEvent
Payload = dict[str, Any]  # the JSON object of an older version, on its way through the upcasters

# The version of the shape that is written today; 1 unless listed.
CURRENT_VERSIONS: dict[str, int] = {"OrderPlaced": 2}


def _order_placed_1_to_2(payload: Payload) -> Payload:
    """Version 1 carried no currency: the shop then sold in pounds only."""
    return {"currency": "GBP", **payload}


# (event type, from version) -> the payload one version later
UPCASTERS: dict[tuple[str, int], Callable[[Payload], Payload]] = {
    ("OrderPlaced", 1): _order_placed_1_to_2,
}


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
        known = CURRENT_VERSIONS.get(self.event_type, 1)
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
_types: dict[str, type[Event]] = {event.__name__: event for event in get_args(Event)}
_decoders = {name: msgspec.json.Decoder(event) for name, event in _types.items()}


def encode(event: Event) -> tuple[str, int, str]:
    """(type, schema version, JSON text) as it is stored."""
    name = type(event).__name__
    return name, CURRENT_VERSIONS.get(name, 1), _encoder.encode(event).decode()


def decode(event_type: str, schema_version: int, data: str | bytes) -> Event:
    """The event as today's type. Raises `UnknownEventType`, `UnknownSchemaVersion` or `UnreadablePayload`."""
    decoder = _decoders.get(event_type)
    if decoder is None:
        raise UnknownEventType(event_type)
    try:
        if schema_version == CURRENT_VERSIONS.get(event_type, 1):
            return decoder.decode(data)
        return msgspec.convert(
            _upcast(event_type, schema_version, msgspec.json.decode(data, type=dict)),
            _types[event_type],
        )
    except msgspec.DecodeError as error:
        raise UnreadablePayload(event_type, schema_version, str(error)) from error


def _upcast(event_type: str, schema_version: int, payload: Payload) -> Payload:
    for version in range(schema_version, CURRENT_VERSIONS.get(event_type, 1)):
        if (upcaster := UPCASTERS.get((event_type, version))) is None:
            raise UnknownSchemaVersion(event_type, schema_version)
        payload = upcaster(payload)
    if schema_version > CURRENT_VERSIONS.get(event_type, 1):
        raise UnknownSchemaVersion(event_type, schema_version)
    return payload
