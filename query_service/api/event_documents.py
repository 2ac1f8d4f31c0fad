"""Events of the log as live updates show them: JSON in today's shape, and its schemas in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias
from uuid import UUID

import msgspec

from query_service.api.history import as_stored
from query_service.api.models import EventDocument, event_example
from shared.aggregates import parse_stream
from shared.aggregates.aggregate import Aggregate
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent
from shared.eventstore.token import ConsistencyToken

AnyAggregate: TypeAlias = Aggregate[Any, Any]

ANY_EVENT = "RecordedEvent"
_METADATA = "EventMetadata"
_SCHEMAS = "#/components/schemas"
_TOKEN = "9f0c2a3b4d5e6f708192a3b4c5d6e7f8-1234"  # noqa: S105 - an example of a position in the log


def event_json(log_id: UUID, event: StoredEvent) -> bytes:
    """The event as in the history, upcast, with its stream, the aggregate's id and the token that shows it."""
    version, data = codec.upcast(event.event_type, event.schema_version, event.data)
    document = msgspec.structs.asdict(as_stored(event._replace(schema_version=version, data=data)))
    document["stream_id"] = event.stream_id
    if (parsed := parse_stream(event.stream_id)) is not None:
        aggregate, aggregate_id = parsed
        document[aggregate.id_field] = aggregate_id
    document["consistency_token"] = ConsistencyToken(log_id, event.position).encode()
    return msgspec.json.encode(document)


def example_of(aggregate: AnyAggregate) -> dict[str, Any]:
    return {
        **event_example(aggregate),
        "stream_id": aggregate.stream_of(aggregate.example_id),
        aggregate.id_field: aggregate.example_id,
        "consistency_token": _TOKEN,
    }


def reference_to(aggregate: AnyAggregate | None) -> dict[str, str]:
    """The schema of an event of the aggregate; None: of any."""
    name = ANY_EVENT if aggregate is None else _events_name(aggregate)
    return {"$ref": f"{_SCHEMAS}/{name}"}


def event_schemas(aggregates: Iterable[AnyAggregate]) -> dict[str, Any]:
    """The schemas of all event types, and of the choice between those of an aggregate and between all."""
    aggregates = [*aggregates]
    payloads = [event for aggregate in aggregates for event in aggregate.events]
    references, schemas = msgspec.json.schema_components(payloads, ref_template=f"{_SCHEMAS}/{{name}}")
    payload_of = dict(zip(payloads, references, strict=True))
    described = EventDocument.model_json_schema()["properties"]
    for aggregate in aggregates:
        for event in aggregate.events:
            schemas[_document_name(event)] = _document_schema(described, aggregate, event, payload_of[event])
        schemas[_events_name(aggregate)] = _one_of(aggregate.events)
    schemas[ANY_EVENT] = _one_of(payloads)
    schemas[_METADATA] = {**EventDocument.model_json_schema()["properties"]["metadata"], "title": _METADATA}
    return schemas


def _document_schema(
    described: dict[str, Any], aggregate: AnyAggregate, event: type[Any], payload: dict[str, Any]
) -> dict[str, Any]:
    properties = {
        **described,
        "event_type": {"const": event.__name__, "type": "string"},
        "schema_version": {"const": aggregate.versions.get(event, 1), "type": "integer"},
        "data": payload,
        "metadata": {"$ref": f"{_SCHEMAS}/{_METADATA}"},
        "hash": {**described["hash"], "description": "of the stored event, as its history shows it"},
        "stream_id": {"type": "string"},
        aggregate.id_field: {"type": "string"},
        "consistency_token": {"type": "string", "description": "with which every query shows the event"},
    }
    return {"type": "object", "title": _document_name(event), "required": [*properties], "properties": properties}


def _one_of(events: Iterable[type[Any]]) -> dict[str, Any]:
    mapping = {event.__name__: f"{_SCHEMAS}/{_document_name(event)}" for event in events}
    return {
        "description": "Told apart by `event_type`. A type that is not listed was written by a newer program; it is"
        " shown as it was stored.",
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "event_type", "mapping": mapping},
    }


def _document_name(event: type[Any]) -> str:
    return f"{event.__name__}Event"


def _events_name(aggregate: AnyAggregate) -> str:
    return "".join(part.capitalize() for part in aggregate.category.split("_")) + "Event"
