"""Which purchases a credit note takes back: pure, no service."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli.importer.credit_matching import Matched, Payment, Purchase, PurchasedLine, Return, ReturnedLine, match
from cli.importer.online_retail import CreditLine, CreditNote


def on(day: int) -> datetime:
    return datetime(2010, 12, day, tzinfo=UTC)


def bought(order_id: str, day: int, *lines: tuple[str, int, int], status: str = "PENDING") -> Purchase:
    """Lines are (product, pieces, price)."""
    items = [PurchasedLine(str(number), *line) for number, line in enumerate(lines, 1)]
    return Purchase(order_id, status, "customer-1", on(day), 0, items, [Payment("pay", 0, 0)], [], [])


def credit(day: int, *lines: tuple[str, int, int], number: str = "C1") -> CreditNote:
    return CreditNote(number, "1", on(day), tuple([CreditLine(nr, *line) for nr, line in enumerate(lines, 2)]))


def booked(matched: Matched) -> dict[str, tuple[dict[str, int], int]]:
    """(pieces by line, pence) by order."""
    return {one.purchase.order_id: (dict(one.pieces), one.amount) for one in matched.bookings}


def unmatched(matched: Matched) -> list[tuple[int, int]]:
    """(line of the file, pieces that are there)."""
    return [(one.line.line, one.available) for one in matched.unmatched]


MUG = ("MUG", 5, 200)


def test_the_most_recent_purchase_comes_first() -> None:
    purchases = [bought("old", 1, MUG), bought("new", 2, MUG), bought("later", 9, MUG)]
    assert booked(match(credit(5, ("MUG", 3, 200)), purchases)) == {"new": ({"1": 3}, 600)}


def test_a_line_takes_back_pieces_of_several_purchases() -> None:
    purchases = [bought("old", 1, MUG), bought("new", 2, ("LAMP", 1, 900), MUG)]
    found = match(credit(5, ("MUG", 7, 200)), purchases)
    assert booked(found) == {"new": ({"2": 5}, 1_000), "old": ({"1": 2}, 400)}


@pytest.mark.parametrize(
    ("purchases", "available"),
    [
        ([], 0),
        ([bought("1", 1, MUG)], 5),
        ([bought("1", 9, ("MUG", 6, 200))], 0),
        ([bought("1", 1, ("LAMP", 6, 200))], 0),
        ([bought("1", 1, ("MUG", 6, 199))], 0),
        ([bought("1", 1, ("MUG", 6, 200), status="CANCELLED")], 0),
    ],
    ids=["nothing", "fewer", "later", "another product", "for less", "cancelled"],
)
def test_no_more_comes_back_than_was_bought(purchases: list[Purchase], available: int) -> None:
    found = match(credit(5, ("MUG", 6, 200)), purchases)
    assert (booked(found), unmatched(found)) == ({}, [(2, available)])


def test_a_line_without_purchases_leaves_the_others_of_its_note() -> None:
    found = match(credit(5, ("MUG", 6, 200), ("MUG", 4, 150), ("MUG", 2, 200)), [bought("1", 1, MUG)])
    assert booked(found) == {"1": ({"1": 4}, 600)}
    assert unmatched(found) == [(2, 5), (4, 1)]


def test_what_came_back_before_does_not_come_back_again() -> None:
    purchase = bought("1", 1, MUG)
    purchase.returns.append(Return("C0", (ReturnedLine("1", 3, 0, 0),)))
    assert unmatched(match(credit(5, ("MUG", 3, 200)), [purchase])) == [(2, 2)]


def test_a_note_that_was_booked_is_matched_to_the_same_again_whatever_was_bought_since() -> None:
    purchases = [bought("old", 1, MUG), bought("new", 2, MUG)]
    note = credit(5, ("MUG", 7, 200))
    first = match(note, purchases)
    for booking in first.bookings:
        booking.purchase.returns.append(booking.as_return(note.number))
    again = match(note, [*purchases, bought("imported since", 3, MUG)])
    assert booked(again) == booked(first)
    assert [unmatched(match(credit(6, ("MUG", count, 200), number="C2"), purchases)) for count in (3, 4)] == [
        [],
        [(2, 3)],
    ]


def test_a_note_that_was_booked_in_part_is_completed() -> None:
    purchases = [bought("old", 1, MUG), bought("new", 2, MUG)]
    note = credit(5, ("MUG", 7, 200))
    first, second = match(note, purchases).bookings
    first.purchase.returns.append(first.as_return(note.number))
    assert [booking.is_complete(note.number) for booking in match(note, purchases).bookings] == [False, False]
    assert booked(match(note, purchases)) == {"new": ({"1": 5}, 1_000), "old": ({"1": 2}, 400)}
    assert second.purchase.order_id == "old"
