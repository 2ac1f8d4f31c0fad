"""The payment service of the sandbox: its rules."""

from __future__ import annotations

import sqlite3
from typing import Any

from command_service.gateways.payment import (
    Authorise,
    Authorised,
    Capture,
    Captured,
    Declined,
    Refund,
    Refunded,
    Void,
    Voided,
)
from command_service.gateways.sandbox.behaviour import AMOUNTS, Behaviour
from command_service.gateways.sandbox.errors import EffectRefused


class PaymentService:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def behaviour_of(self, effect: Any) -> Behaviour | None:
        """Raises `EffectRefused`."""
        amount = effect.amount if isinstance(effect, Authorise) else self._payment(effect.payment_reference)[0]
        return AMOUNTS.get(amount % 10_000)

    def carry_out(self, effect_id: str, effect: Any) -> Any:
        """Raises `EffectRefused`."""
        behaviour = self.behaviour_of(effect)
        if isinstance(effect, Authorise):
            return self._authorise(effect_id, effect.amount, behaviour)
        amount, captured, refunded, voided = self._payment(effect.payment_reference)
        match effect:
            case Capture(reference, given):
                if voided or not 0 < given <= amount - captured:
                    raise EffectRefused(f"{given} cannot be captured of {amount}, {captured} captured")
                if behaviour is Behaviour.CAPTURE_DECLINED:
                    return Declined("the authorisation has expired")
                self._database.execute(
                    "update payments set captured = captured + ? where reference = ?", (given, reference)
                )
                return Captured()
            case Void(reference):
                if voided or captured == amount:
                    raise EffectRefused("nothing of it is authorised any more")
                self._database.execute("update payments set voided = 1 where reference = ?", (reference,))
                return Voided()
            case Refund(reference, given):
                if not 0 < given <= captured - refunded:
                    raise EffectRefused(f"{given} cannot be refunded of {captured}, {refunded} refunded")
                self._database.execute(
                    "update payments set refunded = refunded + ? where reference = ?", (given, reference)
                )
                return Refunded()
            case _:
                raise TypeError(effect)

    def _authorise(self, effect_id: str, amount: int, behaviour: Behaviour | None) -> Any:
        if amount <= 0:
            raise EffectRefused(f"{amount} cannot be authorised")
        if behaviour is Behaviour.DECLINED:
            return Declined("insufficient funds")
        self._database.execute("insert into payments (reference, amount) values (?, ?)", (effect_id, amount))
        return Authorised(in_review=behaviour is Behaviour.IN_REVIEW)

    def _payment(self, reference: str) -> tuple[int, int, int, int]:
        found: tuple[int, int, int, int] | None = self._database.execute(
            "select amount, captured, refunded, voided from payments where reference = ?", (reference,)
        ).fetchone()
        if found is None:
            raise EffectRefused(f"there is no payment {reference[:100]!r}")
        return found
