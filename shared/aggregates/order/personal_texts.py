"""The texts of an order that say something about a person: its address, its note and the reasons. Pure.

They are sealed with the key of the order's customer where they enter, and opened where the document leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from shared.aggregates.address import Address, change_texts
from shared.privacy.sealed import key_id_of

NOTE, REASON = "order.note", "order.reason"  # names of fields that values are sealed as


class _Reason(msgspec.Struct):
    reason: str | None


class _Texts(msgspec.Struct):
    """The part of the document that has them."""

    customer_id: str
    shipping_address: Address | None
    note: str | None
    hold_reason: str | None
    refunds: tuple[_Reason, ...]
    returns: tuple[_Reason, ...]
    cancellation: _Reason | None


class SealedText(NamedTuple):
    value: str
    key_id: str
    field: str  # that it was sealed as


_decode = msgspec.json.Decoder(_Texts).decode


def sealed_texts(document: bytes) -> tuple[str, list[SealedText]]:
    """The customer's id, and the texts in the JSON of an `OrderDocument`, without those that were stored plain."""
    texts = _decode(document)
    found: list[SealedText] = []

    def collect(field: str, text: str) -> str:
        if (key_id := key_id_of(text)) is not None:
            found.append(SealedText(text, key_id, field))
        return text

    if texts.shipping_address is not None:
        change_texts(texts.shipping_address, collect)
    if texts.note is not None:
        collect(NOTE, texts.note)
    for reason in _reasons(texts):
        collect(REASON, reason)
    return texts.customer_id, found


def _reasons(texts: _Texts) -> Iterator[str]:
    if texts.hold_reason is not None:
        yield texts.hold_reason
    for entry in (*texts.refunds, *texts.returns, texts.cancellation):
        if entry is not None and entry.reason is not None:
            yield entry.reason


def without_unopened_address(document: bytes) -> bytes:
    """Without an address whose texts are null, because they do not open any more."""
    fields = msgspec.json.decode(document)
    if fields["shipping_address"] is not None and fields["shipping_address"]["name"] is None:
        fields["shipping_address"] = None
    return msgspec.json.encode(fields)
