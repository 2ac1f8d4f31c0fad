"""What would revenue have been with 5 % off every order over 100 pounds?

    orders replay --projection docs.examples.discount:revenue_by_month

Revenue counts when it is paid, and is taken back when a paid order is cancelled. Amounts are in pence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cli.history.what_if import PastEvent
from shared.aggregates.order import OrderCancelled, OrderPlaced, PaymentCaptured, PaymentConfirmed, PaymentReceived

OVER = 100_00
PERCENT_OFF = 5


@dataclass
class Month:
    revenue: int = 0
    with_discount: int = 0

    def add(self, amount: int, sign: int) -> None:
        off = amount * PERCENT_OFF // 100 if amount > OVER else 0
        self.revenue += sign * amount
        self.with_discount += sign * (amount - off)


@dataclass
class Revenue:
    months: dict[str, Month] = field(default_factory=dict)
    # Left out, and kept because a payment does not repeat its order's currency.
    not_in_pounds: set[str] = field(default_factory=set)

    def month_of(self, past: PastEvent) -> Month:
        return self.months.setdefault(past.occurred_at.strftime("%Y-%m"), Month())


def revenue_by_month(state: Revenue | None, past: PastEvent) -> Revenue:
    state = state or Revenue()
    match past.event:
        case OrderPlaced(currency=currency) if currency != "GBP":
            state.not_in_pounds.add(past.stream_id)
        case PaymentConfirmed(amount=amount) | PaymentReceived(amount=amount) | PaymentCaptured(amount=amount) if (
            past.stream_id not in state.not_in_pounds
        ):
            state.month_of(past).add(amount, +1)
        case OrderCancelled(refund_amount=amount) if past.stream_id not in state.not_in_pounds:
            state.month_of(past).add(amount, -1)
        case _:
            pass
    return state
