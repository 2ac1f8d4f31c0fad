"""The registry of aggregates: a new one is a module here and a line at the end of this file."""

from __future__ import annotations

import re
from typing import Any

from shared.aggregates.account import ACCOUNT
from shared.aggregates.aggregate import Aggregate, EventType, split_stream
from shared.aggregates.customer import CUSTOMER
from shared.aggregates.order import ORDER
from shared.aggregates.payment import PAYMENT
from shared.aggregates.process import PROCESS
from shared.aggregates.stock import STOCK
from shared.aggregates.transfer import TRANSFER

AGGREGATES: dict[str, Aggregate[Any, Any]] = {}  # by category
EVENT_TYPES: dict[str, EventType] = {}  # by the stored name, of all aggregates

_CATEGORY = re.compile(r"[a-z][a-z0-9_]*")


class RegistrationError(ValueError):
    """An aggregate, a decider or its commands cannot be added to what is registered."""


class DuplicateEventType(RegistrationError):
    """Two aggregates have an event type of the same name."""


def register(aggregate: Aggregate[Any, Any]) -> None:
    """Adds an aggregate. Raises `DuplicateEventType`, or `RegistrationError` for a category that is in use or
    malformed, a missing upcaster, and unless it has one of `evolve` and `evolve_at`."""
    if not _CATEGORY.fullmatch(aggregate.category):
        raise RegistrationError(f"A category is made of a-z, 0-9 and _, unlike {aggregate.category!r}.")
    if aggregate.category in AGGREGATES:
        raise RegistrationError(f"Category {aggregate.category!r} is registered already.")
    if (aggregate.evolve is None) == (aggregate.evolve_at is None):
        raise RegistrationError(f"Category {aggregate.category!r} needs one of evolve and evolve_at.")
    types = {event.__name__: EventType.of(aggregate, event) for event in aggregate.events}
    for name, event_type in types.items():
        if name in EVENT_TYPES:
            owner = EVENT_TYPES[name].aggregate.category
            raise DuplicateEventType(f"{aggregate.category!r} and {owner!r} both have an event type {name}.")
        if set(event_type.upcasters) != set(range(1, event_type.version)):
            raise RegistrationError(f"{name} needs one upcaster from each version before {event_type.version}.")
    AGGREGATES[aggregate.category] = aggregate
    EVENT_TYPES.update(types)


def parse_stream(stream_id: str) -> tuple[Aggregate[Any, Any], str] | None:
    """(aggregate, id) of a stream's name; None for a stream of no registered aggregate."""
    category, aggregate_id = split_stream(stream_id)
    aggregate = AGGREGATES.get(category)
    return None if aggregate is None else (aggregate, aggregate_id)


def aggregate_of(stream_id: str) -> Aggregate[Any, Any]:
    """Raises `RegistrationError` for a stream of no registered aggregate."""
    if (parsed := parse_stream(stream_id)) is None:
        raise RegistrationError(f"Stream {stream_id!r} is of no registered aggregate.")
    return parsed[0]


register(ORDER)
register(PAYMENT)
register(ACCOUNT)
register(CUSTOMER)
register(PROCESS)
register(TRANSFER)
register(STOCK)
