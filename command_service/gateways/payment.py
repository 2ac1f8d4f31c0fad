"""What a payment gateway is asked for, and what it answers. Amounts are integers in minor units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

# --- effects -------------------------------------------------------------------------------------------------------


class Authorise(msgspec.Struct, frozen=True):
    """Reserves the amount. The effect's id is the payment's reference from then on."""

    amount: int
    currency: str


class Capture(msgspec.Struct, frozen=True):
    payment_reference: str
    amount: int


class Void(msgspec.Struct, frozen=True):
    """Gives up what is left of an authorisation."""

    payment_reference: str


class Refund(msgspec.Struct, frozen=True):
    payment_reference: str
    amount: int


# --- outcomes ------------------------------------------------------------------------------------------------------


class Authorised(msgspec.Struct, frozen=True):
    in_review: bool = False  # the provider suspects a fraud: a person has to decide


class Captured(msgspec.Struct, frozen=True):
    pass


class Voided(msgspec.Struct, frozen=True):
    pass


class Refunded(msgspec.Struct, frozen=True):
    pass


class Declined(msgspec.Struct, frozen=True):
    """Of any effect."""

    reason: str


PaymentEffect = Authorise | Capture | Void | Refund
PaymentOutcome = Authorised | Captured | Voided | Refunded | Declined

# What may answer each effect.
ANSWERS: Mapping[type[Any], tuple[type[Any], ...]] = {
    Authorise: (Authorised, Declined),
    Capture: (Captured, Declined),
    Void: (Voided, Declined),
    Refund: (Refunded, Declined),
}
