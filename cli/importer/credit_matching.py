"""Finds the purchases that a credit note takes back. Pure.

A line of a credit note is matched to earlier purchases of the same customer and product, the most recent first. No
more pieces come back than were bought, and no more money than they cost: purchases at a lower price are passed over. A
line that is not matched in whole is not matched at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

from cli.importer.online_retail import CreditLine, CreditNote


class PurchasedLine(msgspec.Struct, frozen=True, gc=False):
    line_id: str
    product_id: str
    quantity: int
    unit_price: int


class ReturnedLine(msgspec.Struct, frozen=True, gc=False):
    line_id: str
    quantity: int
    restocked: int
    written_off: int


class Return(msgspec.Struct, frozen=True, gc=False):
    return_id: str
    lines: tuple[ReturnedLine, ...]

    @property
    def is_received(self) -> bool:
        return all(line.restocked + line.written_off == line.quantity for line in self.lines)


class Payment(msgspec.Struct):
    payment_reference: str
    amount_captured: int
    amount_refunded: int


class Refund(msgspec.Struct, frozen=True, gc=False):
    refund_id: str


class Purchase(msgspec.Struct):
    """An order of the customer, as the query service shows it."""

    order_id: str
    status: str
    shipping_address_id: str
    placed_at: datetime
    amount_due: int
    items: list[PurchasedLine]
    payments: list[Payment]
    refunds: list[Refund]
    returns: list[Return]

    def has_return(self, note: str) -> bool:
        """Whether a credit note was booked on the order, at least in part."""
        return any(one.return_id == note for one in self.returns)

    def left_for(self, note: str, line_id: str, quantity: int) -> int:
        """Pieces of a line that the credit note can take back: those that it took back before, if it did, else those
        that no return takes back."""
        own = next((one for one in self.returns if one.return_id == note), None)
        if own is not None:
            return _pieces([own], line_id)
        return quantity - _pieces(self.returns, line_id)


@dataclass
class Booking:
    """What a credit note takes back of one purchase: pieces by line, and pence."""

    purchase: Purchase
    pieces: Counter[str] = field(default_factory=Counter)
    amount: int = 0

    def is_complete(self, note: str) -> bool:
        """Whether the return and the refund of the credit note are on the order."""
        received = any(one.return_id == note and one.is_received for one in self.purchase.returns)
        return received and (not self.amount or any(one.refund_id == note for one in self.purchase.refunds))

    def as_return(self, note: str) -> Return:
        """Once it is booked."""
        lines = [ReturnedLine(line_id, count, count, 0) for line_id, count in self.pieces.items()]
        return Return(note, tuple(lines))


class Unmatched(NamedTuple):
    line: CreditLine
    available: int  # pieces


@dataclass(frozen=True)
class Matched:
    bookings: list[Booking]
    unmatched: list[Unmatched]


def match(note: CreditNote, purchases: Iterable[Purchase]) -> Matched:
    """Of the purchases, those that the note was booked on before come first: a repeated import continues it."""
    earlier = [one for one in purchases if one.placed_at <= note.at and one.status != "CANCELLED"]
    earlier.sort(key=lambda one: (one.has_return(note.number), one.placed_at, one.order_id), reverse=True)
    bookings = {one.order_id: Booking(one) for one in earlier}
    unmatched = []
    for line in note.lines:
        missing, found = line.quantity, []
        for booking, line_id, left in _candidates(note, line, [*bookings.values()]):
            pieces = min(missing, left)
            missing -= pieces
            found.append((booking, line_id, pieces))
            if not missing:
                break
        if missing:
            unmatched.append(Unmatched(line, line.quantity - missing))
            continue
        for booking, line_id, pieces in found:
            booking.pieces[line_id] += pieces
            booking.amount += pieces * line.unit_price
    return Matched([booking for booking in bookings.values() if booking.pieces], unmatched)


def _candidates(note: CreditNote, line: CreditLine, bookings: Sequence[Booking]) -> Iterator[tuple[Booking, str, int]]:
    """(booking, line, pieces that are left)."""
    for booking in bookings:
        for item in booking.purchase.items:
            if item.product_id == line.product_id and item.unit_price >= line.unit_price:
                left = booking.purchase.left_for(note.number, item.line_id, item.quantity)
                left -= booking.pieces[item.line_id]
                if left > 0:
                    yield booking, item.line_id, left


def _pieces(returns: Iterable[Return], line_id: str) -> int:
    return sum(line.quantity for one in returns for line in one.lines if line.line_id == line_id)
