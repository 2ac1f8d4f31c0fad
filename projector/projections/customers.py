"""Customers as they are shown, one document a customer. What they say about a person stays sealed."""

from __future__ import annotations

from projector.projection import Entry, OutOfOrder, Projection, RecordedEvent, check_next, own_stream
from shared.aggregates.customer import (
    CUSTOMER,
    CustomerDocument,
    CustomerErased,
    CustomerEvent,
    CustomerRegistered,
    fold,
)


def apply(
    customer_id: str, document: CustomerDocument | None, recorded: RecordedEvent[CustomerEvent]
) -> CustomerDocument:
    """The document after the event. Raises `OutOfOrder`."""
    check_next(customer_id, document, recorded)
    if document is None and not isinstance(recorded.event, CustomerRegistered | CustomerErased):
        raise OutOfOrder(customer_id, 0, recorded.version)
    return fold(customer_id, document, recorded.event, recorded.version, recorded.occurred_at)


def entries(_document: CustomerDocument) -> frozenset[Entry]:
    """Listed nowhere: an index of what is sealed would find nothing."""
    return frozenset()


CUSTOMERS = Projection(
    "customers", CustomerDocument, own_stream(CUSTOMER.category), apply, entries, version=CUSTOMER.document_version
)
