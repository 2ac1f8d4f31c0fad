"""Opens what the documents of orders say about a person, where they leave."""

from __future__ import annotations

import msgspec

from query_service.api.requests import OpenedDocument
from query_service.opened_documents import OpenedDocuments
from shared.aggregates.customer import CUSTOMER
from shared.aggregates.order.personal_texts import sealed_texts, without_unopened_address
from shared.privacy.sealed import SubjectKey, has_sealed, replace_sealed


async def open_order(documents: OpenedDocuments, document: bytes) -> OpenedDocument:
    """The order with its texts, and null for those whose key was destroyed. Raises `SubjectKeysUnavailable` and
    `Unopenable`."""
    if not has_sealed(document):
        return OpenedDocument(document)
    if (cached := documents.find(document)) is not None:
        return OpenedDocument(cached)
    keys, epoch = documents.keys, documents.keys.epoch
    customer_id, sealed = sealed_texts(document)
    subject = CUSTOMER.stream_of(customer_id)
    found: dict[str, SubjectKey | None] = {}
    texts: dict[str, str | None] = {}
    for value, key_id, field in sealed:
        if key_id not in found:
            found[key_id] = await keys.find(key_id, subject)
        key = found[key_id]
        texts[value] = None if key is None else key.open(field, value)
    opened = replace_sealed(document, texts)
    if None in found.values():
        return OpenedDocument(without_unopened_address(opened), erased=True)
    documents.put(document, opened, epoch)
    return OpenedDocument(opened)


async def open_orders(documents: OpenedDocuments, orders: bytes) -> bytes:
    """A JSON array of orders, each opened. Raises as `open_order`."""
    if not has_sealed(orders):
        return orders
    each = msgspec.json.decode(orders, type=list[msgspec.Raw])
    return b"[%b]" % b",".join([(await open_order(documents, bytes(order))).body for order in each])
