"""Online Retail CSV -> orders to place, and invoices refused with the reason. Reads one file, does no other I/O.

The columns are those of the UCI data set "Online Retail": InvoiceNo, StockCode, Description, Quantity, InvoiceDate,
UnitPrice, CustomerID, Country. One invoice is one order. An invoice is refused as a whole: without one of its lines it
would be another order.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from io import BufferedReader
from pathlib import Path

import msgspec

HEADER = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
GUEST = "guest"
GZIP_MAGIC = b"\x1f\x8b"

_BUFFER = 1 << 16  # bytes; with gzip's own 8,192, decompression takes a quarter of the time

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


@dataclass(frozen=True, slots=True)
class Invoices:
    """Every invoice of a file, in exactly one of the two lists, in the order of the file."""

    placements: list[Placement]
    rejects: list[Reject]


class _NotReadable(Exception):
    """A line cannot be read; the message says why."""


class _Price(msgspec.Struct, frozen=True, gc=False):
    text: str  # for explanations
    pence: int  # rounded down where it is finer than a penny
    is_finer: bool


class _Unreadable(msgspec.Struct, frozen=True, gc=False):
    line: int
    why: str
    raw: str


class _Wrong(msgspec.Struct, frozen=True, gc=False):
    """A readable line that no order may have."""

    line: int
    quantity: int
    price: _Price


class _Invoice(msgspec.Struct, gc=False):
    """An invoice under construction: the numbers of all its lines, the items of the valid ones."""

    lines: list[int] = []
    items: list[Item] = []
    times: set[datetime] = set()
    customers: set[str] = set()
    unreadable: list[_Unreadable] = []
    wrong: list[_Wrong] = []


def read_invoices(path: Path) -> Invoices:
    """The invoices of a CSV file, plain or gzipped (recognised by its content, not by its name).

    Raises `NotOnlineRetail`, and `OSError` when the file cannot be opened.
    """
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    try:
        with gzip.open(path) if packed else path.open("rb") as content, BufferedReader(content, _BUFFER) as lines:
            return parse(lines)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise NotOnlineRetail(f"the gzip stream is damaged: {error}") from error


def parse(lines: Iterable[bytes]) -> Invoices:
    """The invoices of a CSV given as lines. Raises `NotOnlineRetail` when the first line is another header.

    Lines are grouped over the whole file: the lines of an invoice need not be adjacent.
    """
    numbered = enumerate(lines, start=1)
    _check_header(next(numbered, (1, b""))[1])
    invoices: dict[str, _Invoice] = defaultdict(_Invoice)
    for number, line in numbered:
        if line.strip():
            _read_line(number, line, invoices)
    # Each line without an invoice number is refused alone.
    rejects = [_refuse_unreadable("", [line]) for line in invoices.pop("", _Invoice()).unreadable]
    checked = [_check(name, invoice) for name, invoice in invoices.items()]
    rejects += [one for one in checked if isinstance(one, Reject)]
    return Invoices(
        placements=[one for one in checked if isinstance(one, Placement)],
        rejects=sorted(rejects, key=lambda reject: reject.lines),
    )


def _check_header(line: bytes) -> None:
    text = line[:1_000].decode("utf-8-sig", errors="replace").strip()
    if next(csv.reader([text]), []) != HEADER:
        raise NotOnlineRetail(f"the first line must be the header {','.join(HEADER)}, but is {text[:200]!r}")


def _read_line(number: int, line: bytes, invoices: dict[str, _Invoice]) -> None:
    """Adds the line to its invoice; to the invoice "" where the line names none.

    Each line is parsed alone, because no field of this data spans lines. An unbalanced quote affects one line only.
    """
    try:
        cells = _cells(line.decode().rstrip("\r\n"))
    except (UnicodeDecodeError, csv.Error) as error:
        raw = _raw(line)
        invoice = invoices[raw.partition(",")[0].strip(' "')]
        why = "the text is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"not CSV: {error}"
        invoice.unreadable.append(_Unreadable(number, why, raw))
    else:
        invoice = invoices[cells[0].strip()]
        try:
            _add(invoice, number, cells)
        except _NotReadable as error:
            invoice.unreadable.append(_Unreadable(number, str(error), _raw(line)))
    invoice.lines.append(number)


def _raw(line: bytes) -> str:
    return line.decode(errors="backslashreplace").rstrip("\r\n")


def _add(invoice: _Invoice, number: int, cells: list[str]) -> None:
    """Adds the cells of a line to its invoice. Raises `_NotReadable`."""
    if len(cells) != len(HEADER):
        raise _NotReadable(f"{len(cells)} columns instead of {len(HEADER)}")
    invoice_number, product_id, product_name, quantity, time, price, customer_id, _country = cells
    if not invoice_number or invoice_number.isspace():
        raise _NotReadable("no invoice number")
    pieces, amount, when = _read_quantity(quantity), _read_price(price), _read_time(time)
    if pieces <= 0 or amount.pence < 0 or amount.is_finer:
        invoice.wrong.append(_Wrong(number, pieces, amount))
        return
    invoice.items.append(Item(product_id.strip(), pieces, amount.pence, product_name.strip() or None))
    invoice.times.add(when)
    invoice.customers.add(_read_customer(customer_id))


def _cells(text: str) -> list[str]:
    if '"' in text or "\r" in text:
        return next(csv.reader([text], strict=True))
    return text.split(",")  # the same, faster; most lines have no quote


# A month has tens of thousands of lines, with about a thousand distinct values in each of these columns.
@lru_cache(maxsize=10_000)
def _read_quantity(cell: str) -> int:
    text = cell.strip()
    if not QUANTITY.fullmatch(text):
        raise _NotReadable(f"Quantity {text!r} is not a whole number")
    return int(text)


@lru_cache(maxsize=10_000)
def _read_price(cell: str) -> _Price:
    text = cell.strip()
    if not PRICE.fullmatch(text):
        raise _NotReadable(f"UnitPrice {text!r} is not an amount")
    numerator, denominator = Decimal(text).as_integer_ratio()  # integers, so that no decimal context rounds
    pence, rest = divmod(numerator * 100, denominator)
    return _Price(text, pence, rest > 0)


@lru_cache(maxsize=10_000)
def _read_time(cell: str) -> datetime:
    """Local time of the shop, taken as UTC."""
    text = cell.strip()
    try:
        if TIME.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:  # the 30th of February
        pass
    raise _NotReadable(f"InvoiceDate {text!r} is not a date and time")


@lru_cache(maxsize=10_000)
def _read_customer(cell: str) -> str:
    text = cell.strip()
    return text.partition(".")[0] if text else GUEST


def _check(number: str, invoice: _Invoice) -> Placement | Reject:
    """The invoice as an order, or its first reason for refusal with every line the reason applies to."""
    if number.startswith("C"):
        return Reject(number, tuple(invoice.lines), "credit-note", "a credit note takes back an order, it places none")
    if invoice.unreadable:
        return _refuse_unreadable(number, invoice.unreadable)
    if wrong := [line for line in invoice.wrong if line.quantity <= 0]:
        return _refuse(number, wrong, "quantity-not-positive", f"quantity {_some(line.quantity for line in wrong)}")
    if wrong := [line for line in invoice.wrong if line.price.pence < 0]:
        return _refuse(number, wrong, "negative-price", _prices(wrong))
    if wrong := [line for line in invoice.wrong if line.price.is_finer]:
        return _refuse(number, wrong, "price-finer-than-penny", _prices(wrong))
    if len(invoice.customers) > 1:
        customers = f"lines of the customers {_some(sorted(invoice.customers))}"
        return Reject(number, tuple(invoice.lines), "customers-differ", customers)
    return Placement(_order(number, invoice), tuple(invoice.lines))


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


def _order(number: str, invoice: _Invoice) -> OrderRequest:
    [customer_id] = invoice.customers
    return OrderRequest(
        order_id=number,
        customer_id=customer_id,
        items=invoice.items,
        # The data has no address: the order is shipped to the address in the customer's record.
        shipping_address_id=f"customer-{customer_id}",
        occurred_at=min(invoice.times),
    )
