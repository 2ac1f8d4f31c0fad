"""Ids of lines, and what each line is charged: its price, its charges and its share of the order's discounts. Pure."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from shared.aggregates.order.events import Charge, ChargeKind, LineQuantity, OrderLine


class AnyCharge(Protocol):
    """Of an event or a document."""

    @property
    def charge_id(self) -> str: ...
    @property
    def kind(self) -> ChargeKind: ...
    @property
    def amount(self) -> int: ...
    @property
    def line_id(self) -> str | None: ...


class ChargedAmounts(NamedTuple):
    """They sum to the order's total. Discounts and charges of one line are part of the lines, and 0 themselves."""

    lines: Mapping[str, int]  # by id
    charges: Mapping[str, int]  # by id


def next_id(number: int, taken: Container[str]) -> str:
    """The number, or the first one after it that is not taken."""
    while str(number) in taken:
        number += 1
    return str(number)


def with_id(line: OrderLine, taken: Collection[str]) -> OrderLine:
    """The line, which comes after lines with these ids: without an id of its own, it gets a number."""
    return line if line.line_id is not None else replace(line, line_id=next_id(len(taken) + 1, taken))


def line_ids(lines: Sequence[OrderLine]) -> list[str]:
    """The ids of an order's lines: the given one, or the number of the line. A number that is the id of another line is
    passed over."""
    taken = {line.line_id for line in lines if line.line_id is not None}
    if not taken:
        return [str(number) for number in range(1, len(lines) + 1)]
    found = []
    for number, line in enumerate(lines, 1):
        line_id = line.line_id or next_id(number, taken)
        taken.add(line_id)
        found.append(line_id)
    return found


def lines_by_id(lines: Sequence[OrderLine]) -> dict[str, OrderLine]:
    """The lines, in their order, each with its id."""
    ids = line_ids(lines)
    return {
        line_id: line if line.line_id is not None else replace(line, line_id=line_id)
        for line_id, line in zip(ids, lines, strict=True)
    }


def total_of(lines: Iterable[OrderLine], charges: Sequence[Charge] = ()) -> int:
    total = sum([line.quantity * line.unit_price for line in lines])
    return total + sum([charge.amount for charge in charges]) if charges else total


def allocate(amount: int, weights: Sequence[int]) -> list[int]:
    """Splits the amount by the weights, to the minor unit: by the largest remainder, the earlier of equal ones first.
    None of the three is negative, and a share is at most its weight where the amount is at most their sum."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    shares, remainders = [], []
    for index, weight in enumerate(weights):
        share, remainder = divmod(amount * weight, whole)
        shares.append(share)
        remainders.append((-remainder, index))
    for _, index in sorted(remainders)[: amount - sum(shares)]:
        shares[index] += 1
    return shares


def charged_amounts(lines: Mapping[str, int], charges: Sequence[AnyCharge]) -> ChargedAmounts:
    """Distributes the discounts of the order over its lines, and what exceeds these over its other charges. `lines` has
    quantity times price by id."""
    own = dict(lines)
    of_order: list[AnyCharge] = []
    discount = 0
    for charge in charges:
        if charge.line_id is not None:
            own[charge.line_id] += charge.amount
        elif charge.kind is ChargeKind.DISCOUNT:
            discount -= charge.amount
        else:
            of_order.append(charge)
    for_lines = min(discount, sum(own.values()))
    shares = allocate(for_lines, [*own.values()])
    rests = allocate(discount - for_lines, [charge.amount for charge in of_order])
    left = {charge.charge_id: charge.amount - rest for charge, rest in zip(of_order, rests, strict=True)}
    return ChargedAmounts(
        {line_id: amount - share for (line_id, amount), share in zip(own.items(), shares, strict=True)},
        {charge.charge_id: left.get(charge.charge_id, 0) for charge in charges},
    )


def amount_of_pieces(charged: int, quantity: int, before: int, pieces: int) -> int:
    """What so many more pieces of a line cost, of which the amounts of some `before` were taken: all pieces together
    cost exactly what the line is charged."""
    return charged * (before + pieces) // quantity - charged * before // quantity


def quantities(lines: Iterable[LineQuantity]) -> dict[str, int]:
    """Pieces by line."""
    found: dict[str, int] = {}
    for line in lines:
        found[line.line_id] = found.get(line.line_id, 0) + line.quantity
    return found
