"""Customers as they are shown, one document a customer. What they say about a person stays sealed."""

from __future__ import annotations

from typing import Any

from projector.projection import Entry, OutOfOrder, Projection, RecordedEvent
from shared.aggregates.customer import (
    CUSTOMER,
    CustomerDocument,
    CustomerErased,
    CustomerEvent,
    CustomerRegistered,
    fold,
)


def route(event: RecordedEvent[Any]) -> tuple[str, ...]:
    """The customer whose event it is."""
    return (event.aggregate_id,) if event.category == CUSTOMER.category else ()


def apply(
    customer_id: str, document: CustomerDocument | None, recorded: RecordedEvent[CustomerEvent]
) -> CustomerDocument:
    """The document after the event. Raises `OutOfOrder`."""
    version = 0 if document is None else document.version
    begins = isinstance(recorded.event, CustomerRegistered | CustomerErased)
    if recorded.version != version + 1 or (document is None and not begins):
        raise OutOfOrder(customer_id, version, recorded.version)
    return fold(customer_id, document, recorded.event, recorded.version, recorded.occurred_at)


def entries(_document: CustomerDocument) -> frozenset[Entry]:
    """Listed nowhere: an index of what is sealed would find nothing."""
    return frozenset()


CUSTOMERS = Projection("customers", CustomerDocument, route, apply, entries, version=CUSTOMER.document_version)
