"""The payment reference: it belongs to the order whose payment was the first to carry it. Pure.

Its events are decided by the commands on orders, in the same append.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from shared.aggregates.aggregate import Aggregate

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class PaymentReferenceAssigned(msgspec.Struct, frozen=True, gc=False):
    payment_reference: str
    order_id: str


@dataclass(frozen=True, slots=True)
class Payment:
    payment_reference: str
    order_id: str


def evolve(_state: Payment | None, event: PaymentReferenceAssigned) -> Payment:
    return Payment(event.payment_reference, event.order_id)


PAYMENT: Aggregate[Payment, PaymentReferenceAssigned] = Aggregate(
    category="payment",
    state=Payment,
    events=(PaymentReferenceAssigned,),
    evolve=evolve,
    max_id_length=128,  # a fulfilment's is the id of an effect
    example=PaymentReferenceAssigned("pay-1", "tour"),
    example_id="pay-1",
)


def payment_stream(payment_reference: str) -> str:
    """The stream of a reference. One that is no id (it may have spaces and any letters) is named by its hash."""
    if _ID.fullmatch(payment_reference):
        return PAYMENT.stream_of(payment_reference)
    return PAYMENT.stream_of(f"sha256:{sha256(payment_reference.encode()).hexdigest()}")
