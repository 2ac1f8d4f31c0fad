"""Online Retail CSV -> orders to place, and invoices refused with the reason. Reads one file, does no other I/O.

The columns are those of the UCI data set "Online Retail": InvoiceNo, StockCode, Description, Quantity, InvoiceDate,
UnitPrice, CustomerID, Country. One invoice is one order, and an invoice is refused as a whole: an order that lacks a
line of its invoice would be an order nobody made.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import msgspec

HEADER = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
GUEST = "guest"
GZIP_MAGIC = b"\x1f\x8b"

# ASCII digits only, and few enough that every amount in pence fits 64 bits. `1e-05` is how pandas writes 0.00001.
QUANTITY = re.compile(r"-?[0-9]{1,15}")
PRICE = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?([eE]-[0-9]{1,2})?")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2})?")


class NotOnlineRetail(Exception):
    """The file as a whole cannot be read: another header, no header, or a damaged gzip stream."""


class Item(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One order line; `unit_price` in pence."""

    product_id: str
    quantity: int
    unit_price: int
    product_name: str | None = None


class Order(msgspec.Struct, frozen=True):
    """The body of `POST /orders`."""

    order_id: str
    customer_id: str
    items: list[Item]
    shipping_address_id: str
    occurred_at: datetime
    currency: str = "GBP"


@dataclass(frozen=True, slots=True)
class Reject:
    """A refused invoice: which lines of the file are at fault, why, and their text where it could not be read."""

    invoice: str
    lines: tuple[int, ...]
    reason: str
    explanation: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """An order to place and the lines of the file it comes from."""

    order: Order
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Invoices:
    """Every invoice of a file, each in exactly one of the two lists, in the order of the file."""

    placements: list[Placement]
    rejects: list[Reject]


class _Price(msgspec.Struct, frozen=True, gc=False):
    text: str  # for explanations
    pence: int  # rounded down where it is finer than a penny
    is_finer: bool


class _Row(msgspec.Struct, frozen=True, gc=False):
    line: int
    product_id: str
    product_name: str
    quantity: int
    time: datetime
    price: _Price
    customer_id: str


class _Unreadable(msgspec.Struct, frozen=True, gc=False):
    line: int
    why: str
    raw: str


def read_invoices(path: Path) -> Invoices:
    """The invoices of a CSV file, plain or gzipped (told by its content, not by its name).

    Raises `NotOnlineRetail`, and `OSError` when the file cannot be opened.
    """
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    try:
        with gzip.open(path) if packed else path.open("rb") as lines:
            return parse(lines)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise NotOnlineRetail(f"the gzip stream is damaged: {error}") from error


def parse(lines: Iterable[bytes]) -> Invoices:
    """The invoices of a CSV given as lines. Raises `NotOnlineRetail` when the first line is another header.

    Grouped over the whole file: the lines of an invoice need not stand together.
    """
    numbered = enumerate(lines, start=1)
    _check_header(next(numbered, (1, b""))[1])
    invoices: dict[str, list[_Row | _Unreadable]] = {}
    for number, line in numbered:
        if line.strip():
            invoice, row = _read_row(number, line)
            invoices.setdefault(invoice, []).append(row)
    # A row without an invoice number belongs to no other row: it is refused on its own.
    verdicts = [_judge("", [row]) for row in invoices.pop("", [])]
    verdicts += [_judge(invoice, its_rows) for invoice, its_rows in invoices.items()]
    return Invoices(
        placements=[verdict for verdict in verdicts if isinstance(verdict, Placement)],
        rejects=sorted((verdict for verdict in verdicts if isinstance(verdict, Reject)), key=lambda it: it.lines),
    )


def _check_header(line: bytes) -> None:
    text = line[:1_000].decode("utf-8-sig", errors="replace").strip()
    if next(csv.reader([text]), []) != HEADER:
        raise NotOnlineRetail(f"the first line must be the header {','.join(HEADER)}, but is {text[:200]!r}")


def _read_row(number: int, line: bytes) -> tuple[str, _Row | _Unreadable]:
    """The invoice number (empty if there is none) and the row.

    Each line is parsed on its own: no field of this data spans lines, and so an unbalanced quote spoils one line and
    does not swallow the invoices below it.
    """
    try:
        raw = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raw = line.decode(errors="backslashreplace").rstrip("\r\n")
        return raw.partition(",")[0].strip(' "'), _Unreadable(number, "the text is not UTF-8", raw)
    try:
        cells = list(map(str.strip, _cells(raw)))
    except csv.Error as error:
        return raw.partition(",")[0].strip(' "'), _Unreadable(number, f"not CSV: {error}", raw)
    if len(cells) != len(HEADER):
        return cells[0], _Unreadable(number, f"{len(cells)} columns instead of {len(HEADER)}", raw)

    invoice, product_id, product_name, quantity, time, price, customer_id, _country = cells
    if not invoice:
        return "", _Unreadable(number, "no invoice number", raw)
    if (pieces := _read_quantity(quantity)) is None:
        return invoice, _Unreadable(number, f"Quantity {quantity!r} is not a whole number", raw)
    if (amount := _read_price(price)) is None:
        return invoice, _Unreadable(number, f"UnitPrice {price!r} is not an amount", raw)
    if (when := _read_time(time)) is None:
        return invoice, _Unreadable(number, f"InvoiceDate {time!r} is not a date and time", raw)
    customer_id = customer_id.partition(".")[0] if customer_id else GUEST
    return invoice, _Row(number, product_id, product_name, pieces, when, amount, customer_id)


def _cells(text: str) -> list[str]:
    if '"' in text or "\r" in text:
        return next(csv.reader([text], strict=True))
    return text.split(",")  # the same, for a fraction of the time; most lines are like this


# What repeats is read once: a month has tens of thousands of lines, and of each of these a thousand values.
@lru_cache(maxsize=10_000)
def _read_quantity(text: str) -> int | None:
    return int(text) if QUANTITY.fullmatch(text) else None


@lru_cache(maxsize=10_000)
def _read_price(text: str) -> _Price | None:
    if not PRICE.fullmatch(text):
        return None
    numerator, denominator = Decimal(text).as_integer_ratio()  # integers, so that no decimal context rounds
    pence, rest = divmod(numerator * 100, denominator)
    return _Price(text, pence, rest > 0)


@lru_cache(maxsize=10_000)
def _read_time(text: str) -> datetime | None:
    """Local time of the shop, taken as UTC."""
    if not TIME.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:  # the 30th of February
        return None


def _judge(invoice: str, rows: list[_Row | _Unreadable]) -> Placement | Reject:
    """The invoice as an order, or the first reason to refuse it, with every line that reason applies to."""
    readable = [row for row in rows if isinstance(row, _Row)]
    unreadable = [row for row in rows if isinstance(row, _Unreadable)]
    if invoice.startswith("C"):
        return _refuse(invoice, rows, "credit-note", "a credit note takes back an order, it places none")
    if unreadable:
        why = "; ".join(f"line {row.line}: {row.why}" for row in unreadable)
        raw = "\n".join(row.raw for row in unreadable)
        return Reject(invoice, tuple(row.line for row in unreadable), "unreadable-row", why, raw)
    if wrong := [row for row in readable if row.quantity <= 0]:
        return _refuse(invoice, wrong, "quantity-not-positive", f"quantity {_some(row.quantity for row in wrong)}")
    if wrong := [row for row in readable if row.price.pence < 0]:
        return _refuse(invoice, wrong, "negative-price", f"unit price {_some(row.price.text for row in wrong)}")
    if wrong := [row for row in readable if row.price.is_finer]:
        return _refuse(invoice, wrong, "price-finer-than-penny", f"unit price {_some(row.price.text for row in wrong)}")
    customers = sorted({row.customer_id for row in readable})
    if len(customers) > 1:
        return _refuse(invoice, rows, "customers-differ", f"lines of the customers {_some(customers)}")
    return Placement(_order(invoice, customers[0], readable), tuple(row.line for row in rows))


def _refuse(invoice: str, rows: Iterable[_Row | _Unreadable], reason: str, explanation: str) -> Reject:
    return Reject(invoice, tuple(row.line for row in rows), reason, explanation)


def _some(values: Iterable[object]) -> str:
    """At most five distinct values, in order: an explanation is to be read."""
    distinct = list(dict.fromkeys(str(value) for value in values))
    return ", ".join(distinct[:5]) + (", …" if len(distinct) > 5 else "")


def _order(invoice: str, customer_id: str, rows: list[_Row]) -> Order:
    return Order(
        order_id=invoice,
        customer_id=customer_id,
        items=[Item(row.product_id, row.quantity, row.price.pence, row.product_name or None) for row in rows],
        # The data names no address. Every order goes to what the customer's record says, and the id says so.
        shipping_address_id=f"customer-{customer_id}",
        occurred_at=min(row.time for row in rows),
    )
