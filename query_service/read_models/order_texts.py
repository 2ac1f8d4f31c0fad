"""Opens what the documents of orders say about a person, where they leave."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from query_service.api.requests import OpenedDocument
from query_service.opened_documents import OpenedDocuments
from shared.aggregates.customer import CUSTOMER
from shared.aggregates.order.personal_texts import SealedText, sealed_texts, without_unopened_address
from shared.privacy.sealed import SubjectKey, has_sealed, replace_sealed


async def open_order(documents: OpenedDocuments, document: bytes) -> OpenedDocument:
    """The order with its texts, and null for those whose key was destroyed. Raises `SubjectKeysUnavailable` and
    `Unopenable`."""
    return _known(documents, document) or (await _open(documents, [document]))[document]


async def open_orders(documents: OpenedDocuments, orders: bytes) -> bytes:
    """A JSON array of orders, each opened; one round trip for their keys. Raises as `open_order`."""
    if not has_sealed(orders):
        return orders
    each = [bytes(order) for order in msgspec.json.decode(orders, type=list[msgspec.Raw])]
    opened = {order: known for order in each if (known := _known(documents, order)) is not None}
    opened |= await _open(documents, [order for order in each if order not in opened])
    return b"[%b]" % b",".join([opened[order].body for order in each])


def _known(documents: OpenedDocuments, document: bytes) -> OpenedDocument | None:
    """The order, if there is nothing to open, or it was opened before."""
    if not has_sealed(document):
        return OpenedDocument(document)
    cached = documents.find(document)
    return None if cached is None else OpenedDocument(cached)


async def _open(documents: OpenedDocuments, orders: Sequence[bytes]) -> dict[bytes, OpenedDocument]:
    epoch = documents.keys.epoch
    sealed = {order: sealed_texts(order) for order in orders}
    keys = await documents.keys.find_all({one.key_id for _, texts in sealed.values() for one in texts})
    opened = {}
    for order, (customer_id, texts) in sealed.items():
        subject = CUSTOMER.stream_of(customer_id)
        found = {one.value: _text_of(one, subject, keys[one.key_id]) for one in texts}
        body, erased = replace_sealed(order, found), None in found.values()
        if erased:
            body = without_unopened_address(body)
        else:
            documents.put(order, body, epoch)
        opened[order] = OpenedDocument(body, erased)
    return opened


def _text_of(sealed: SealedText, subject: str, key: SubjectKey | None) -> str | None:
    return None if key is None or key.subject != subject else key.open(sealed.field, sealed.value)
