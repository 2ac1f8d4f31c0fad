"""Online Retail CSV -> orders to place, credit notes, and invoices refused with the reason. Reads one file, does no
other I/O.

One invoice is one order. An invoice is refused as a whole: without one of its lines it would be another order.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from cli.importer.rows import GUEST, DateOrder, Header, Moment, Price, Row, RowError
from cli.importer.text_file import NotReadable, TextFile, is_decoded


class Item(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One order line; `unit_price` in pence."""

    product_id: str
    quantity: int
    unit_price: int
    product_name: str | None = None


class OrderRequest(msgspec.Struct, frozen=True):
    """The body of `POST /orders`."""

    order_id: str
    customer_id: str
    items: list[Item]
    shipping_address_id: str
    occurred_at: datetime
    currency: str = "GBP"


@dataclass(frozen=True, slots=True)
class Reject:
    """A refused invoice: the lines of the file at fault, the reason, and their text where it cannot be read."""

    invoice: str
    lines: tuple[int, ...]
    reason: str
    explanation: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """An order to place, and its lines in the file."""

    order: OrderRequest
    lines: tuple[int, ...]


class CreditLine(msgspec.Struct, frozen=True, gc=False):
    """So many pieces that came back, and what was given back for each, in pence. `line` is that of the file."""

    line: int
    product_id: str
    quantity: int
    unit_price: int


class CreditNote(msgspec.Struct, frozen=True):
    number: str
    customer_id: str
    at: datetime
    lines: tuple[CreditLine, ...]


@dataclass(frozen=True, slots=True)
class Invoices:
    """Every invoice of a file, in exactly one of the three lists, in the order of the file."""

    placements: list[Placement]
    credit_notes: list[CreditNote]
    rejects: list[Reject]


class _Unreadable(msgspec.Struct, frozen=True, gc=False):
    line: int
    why: str
    raw: str


class _Wrong(msgspec.Struct, frozen=True, gc=False):
    """A readable line that no order may have."""

    line: int
    quantity: int
    price: Price
    has_wrong_sign: bool  # of the quantity, or it is 0


class _Invoice(msgspec.Struct, gc=False):
    """An invoice under construction: the numbers of all its lines, the items of the valid ones."""

    lines: list[int] = []
    items: list[Item] = []
    credits: list[CreditLine] = []  # instead of items, of a credit note
    moments: set[Moment] = set()
    customers: set[str] = set()
    unreadable: list[_Unreadable] = []
    wrong: list[_Wrong] = []


def read_invoices(path: Path, date_order: DateOrder | None = None, *, returns: bool = False) -> Invoices:
    """The invoices of a file; `date_order` is asked for only where the file leaves it open. Credit notes are refused,
    unless they are to become `returns`.

    Lines are grouped over the whole file: the lines of an invoice need not be adjacent. Raises NotReadable, and OSError
    when the file cannot be opened.
    """
    file = TextFile(path)
    invoices = _group(file.lines())
    if file.encoding == "utf-8" and file.has_undecodable and not file.has_beyond_ascii:
        file.encoding = "cp1252"  # as Excel writes CSV; one bad line of a file that is UTF-8 elsewhere is damaged
        invoices = _group(file.lines())
    # Each line without an invoice number is refused alone.
    rejects = [_refuse_unreadable("", [line]) for line in invoices.pop("", _Invoice()).unreadable]
    order = _date_order(invoices.values(), date_order)
    checked = [_check(name, invoice, order, returns=returns) for name, invoice in invoices.items()]
    rejects += [one for one in checked if isinstance(one, Reject)]
    return Invoices(
        placements=[one for one in checked if isinstance(one, Placement)],
        credit_notes=[one for one in checked if isinstance(one, CreditNote)],
        rejects=sorted(rejects, key=lambda reject: reject.lines),
    )


def _group(lines: Iterable[str]) -> dict[str, _Invoice]:
    """By number; those without one under ""."""
    numbered = enumerate(lines, start=1)
    header = Header(next(numbered, (1, ""))[1])
    invoices: dict[str, _Invoice] = defaultdict(_Invoice)
    for number, line in numbered:
        if line.strip():
            _add_line(header, number, line.removesuffix("\r"), invoices)
    return invoices


def _add_line(header: Header, number: int, line: str, invoices: dict[str, _Invoice]) -> None:
    text = line if is_decoded(line) else _escaped(line)
    problem = "" if text is line else "it holds bytes that are no text"
    try:
        cells = header.cells(text)
    except csv.Error as error:
        invoice, problem = invoices[header.invoice_of(text)], f"not CSV: {error}"
    else:
        invoice = invoices[header.invoice_in(cells)]
        if not problem:
            try:
                _add_row(invoice, number, header.read(cells))
            except RowError as error:
                problem = str(error)
    if problem:
        invoice.unreadable.append(_Unreadable(number, problem, text))
    invoice.lines.append(number)


def _escaped(line: str) -> str:
    return line.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _add_row(invoice: _Invoice, number: int, row: Row) -> None:
    invoice.moments.add(row.moment)
    is_credit = _is_credit_note(row.invoice.strip())
    quantity = -row.quantity if is_credit else row.quantity
    if quantity <= 0 or row.price.pence < 0 or row.price.is_finer:
        invoice.wrong.append(_Wrong(number, row.quantity, row.price, quantity <= 0))
        return
    if is_credit:
        invoice.credits.append(CreditLine(number, row.product_id, quantity, row.price.pence))
    else:
        invoice.items.append(Item(row.product_id, quantity, row.price.pence, row.product_name))
    invoice.customers.add(row.customer_id)


def _is_credit_note(number: str) -> bool:
    return number.startswith(("C", "c"))


def _date_order(invoices: Iterable[_Invoice], given: DateOrder | None) -> DateOrder:
    """The order of day and month in which every date of the file is one. Raises NotReadable unless there is just one,
    or it was given."""
    moments = set[Moment]().union(*(invoice.moments for invoice in invoices))
    day_first = sorted(f"{one.dmy:%d/%m/%Y}" for one in moments if one.mdy is None)
    month_first = sorted(f"{one.mdy:%m/%d/%Y}" for one in moments if one.dmy is None)
    if day_first and month_first:
        raise NotReadable(f"InvoiceDate has the day first in {day_first[0]}, and the month in {month_first[0]}")
    if given is not None and (others := month_first if given == "dmy" else day_first):
        raise NotReadable(f"InvoiceDate {others[0]} contradicts --date-order {given}")
    if given is not None or day_first or month_first:
        return given or ("dmy" if day_first else "mdy")
    if unclear := sorted(f"{one.dmy:%d/%m/%Y}" for one in moments if one.dmy != one.mdy):
        raise NotReadable(
            f"the day or the month may come first in InvoiceDate {unclear[0]} and all others:"
            " say which, with --date-order dmy or mdy"
        )
    return "dmy"  # the year comes first, or day and month are equal


def _check(number: str, invoice: _Invoice, date_order: DateOrder, *, returns: bool) -> Placement | CreditNote | Reject:
    """The invoice as an order or a credit note, or its first reason for refusal with every line the reason applies
    to."""
    is_credit = _is_credit_note(number)
    if is_credit and not returns:
        return _refuse_all(number, invoice, "credit-note", "a credit note takes back an order, it places none")
    if invoice.unreadable:
        return _refuse_unreadable(number, invoice.unreadable)
    if wrong := [line for line in invoice.wrong if line.has_wrong_sign]:
        reason = "quantity-not-negative" if is_credit else "quantity-not-positive"
        return _refuse(number, wrong, reason, f"quantity {_some(line.quantity for line in wrong)}")
    if wrong := [line for line in invoice.wrong if line.price.pence < 0]:
        return _refuse(number, wrong, "negative-price", _prices(wrong))
    if wrong := [line for line in invoice.wrong if line.price.is_finer]:
        return _refuse(number, wrong, "price-finer-than-penny", _prices(wrong))
    if len(invoice.customers) > 1:
        customers = f"lines of the customers {_some(sorted(invoice.customers))}"
        return _refuse_all(number, invoice, "customers-differ", customers)
    if not is_credit:
        return Placement(_order(number, invoice, date_order), tuple(invoice.lines))
    [customer_id] = invoice.customers
    if customer_id == GUEST:
        return _refuse_all(number, invoice, "credit-note-of-a-guest", "the file does not say whose order it takes back")
    return CreditNote(number, customer_id, _time_of(invoice, date_order), tuple(invoice.credits))


def _refuse_all(number: str, invoice: _Invoice, reason: str, explanation: str) -> Reject:
    return Reject(number, tuple(invoice.lines), reason, explanation)


def _refuse_unreadable(number: str, lines: list[_Unreadable]) -> Reject:
    why = "; ".join(f"line {line.line}: {line.why}" for line in lines)
    raw = "\n".join(line.raw for line in lines)
    return Reject(number, tuple(line.line for line in lines), "unreadable-row", why, raw)


def _refuse(number: str, wrong: list[_Wrong], reason: str, explanation: str) -> Reject:
    return Reject(number, tuple(line.line for line in wrong), reason, explanation)


def _prices(lines: list[_Wrong]) -> str:
    return f"unit price {_some(line.price.text for line in lines)}"


def _some(values: Iterable[object]) -> str:
    """At most five distinct values, in order, so that the explanation stays short."""
    distinct = list(dict.fromkeys(str(value) for value in values))
    return ", ".join(distinct[:5]) + (", …" if len(distinct) > 5 else "")


def _order(number: str, invoice: _Invoice, date_order: DateOrder) -> OrderRequest:
    [customer_id] = invoice.customers
    return OrderRequest(
        order_id=number,
        customer_id=customer_id,
        items=invoice.items,
        shipping_address_id=address_of(customer_id),
        occurred_at=_time_of(invoice, date_order),
    )


def address_of(customer_id: str) -> str:
    """The data has no address: the order is shipped to the address in the customer's record."""
    return f"customer-{customer_id}"


def _time_of(invoice: _Invoice, date_order: DateOrder) -> datetime:
    earliest: datetime = min(getattr(moment, date_order) for moment in invoice.moments)
    return earliest
