"""The header and the rows of an Online Retail CSV, in the forms in which the data set is spread.

The two editions of the UCI data set (Online Retail, Online Retail II) name three columns differently. Copies separate
cells by comma, semicolon, tab or bar, add columns of their own, and write dates in several ways.
"""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from cli.importer.text_file import NotReadable

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
GUEST = "guest"

_SECOND_EDITION = {"invoice": "invoiceno", "price": "unitprice"}  # `Customer ID` is `CustomerID` without its space
_SEPARATORS = ",;\t|"
_NO_CUSTOMER = {"", "NA", "NaN", "nan", "NULL", "null"}  # as R, pandas and databases write a missing value

# ASCII digits only, and few enough that every amount in pence fits 64 bits. `1e-05` is how pandas writes 0.00001.
_QUANTITY = re.compile(r"-?[0-9]{1,15}")
_PRICE = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?([eE]-[0-9]{1,2})?")
_TIME = re.compile(
    r"(?P<date>[0-9]{1,4}(?P<dot>[-/.])[0-9]{1,2}(?P=dot)[0-9]{1,4})[ T]"
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(:(?P<second>[0-9]{2})(\.0+)?)?Z?( ?(?P<half>[AP])M)?",
    re.IGNORECASE,
)

DateOrder: TypeAlias = Literal["dmy", "mdy"]  # of a date whose year is last


class RowError(Exception):
    """A row cannot be read; the message says why."""


class Moment(NamedTuple):
    """A date and time with the day first and with the month first; None where that is no date. Equal where it is clear.

    Local time of the shop, taken as UTC.
    """

    dmy: datetime | None
    mdy: datetime | None


class Price(msgspec.Struct, frozen=True, gc=False):
    text: str  # for explanations
    pence: int  # rounded down where it is finer than a penny
    is_finer: bool


class Row(NamedTuple):
    invoice: str
    product_id: str
    product_name: str | None
    quantity: int
    moment: Moment
    price: Price
    customer_id: str


class Header:
    """The separator of the cells, and which of them are those of `COLUMNS`, in any order; others are ignored."""

    def __init__(self, line: str) -> None:
        """Raises NotReadable when columns are missing or twice there."""
        for separator in _SEPARATORS:
            names = _header_names(line, separator)
            if all(names.count(column.lower()) == 1 for column in COLUMNS):
                self.separator = separator
                self._width = len(names)
                self._invoice = names.index(COLUMNS[0].lower())
                self._pick = itemgetter(*(names.index(column.lower()) for column in COLUMNS[:-1]))
                return
        raise NotReadable(
            f"the first line must be the header {','.join(COLUMNS)} (or that of the second edition),"
            f" but is {line.strip()[:200]!r}"
        )

    def cells(self, line: str) -> list[str]:
        """Each line is parsed alone, because no field of this data spans lines: an unbalanced quote affects one line
        only. Raises csv.Error."""
        if '"' in line or "\r" in line:
            return next(csv.reader([line], delimiter=self.separator, strict=True))
        return line.split(self.separator)  # the same, faster; most lines have no quote

    def invoice_of(self, line: str) -> str:
        """That of a line that is no CSV, as far as it can be told."""
        return "".join(line.split(self.separator)[self._invoice : self._invoice + 1]).strip(' "')

    def invoice_in(self, cells: list[str]) -> str:
        return cells[self._invoice].strip() if len(cells) > self._invoice else ""

    def read(self, cells: list[str]) -> Row:
        """Raises RowError."""
        if len(cells) != self._width:
            raise RowError(f"{len(cells)} columns instead of {self._width}")
        invoice, product_id, product_name, quantity, time, price, customer_id = self._pick(cells)
        if not invoice or invoice.isspace():
            raise RowError("no invoice number")
        return Row(
            invoice,
            product_id.strip(),
            product_name.strip() or None,
            _read_quantity(quantity),
            _read_moment(time),
            # With a comma between cells, one inside a price may as well separate thousands.
            _read_price(price if self.separator == "," else price.replace(",", ".")),
            _read_customer(customer_id),
        )


def _header_names(line: str, separator: str) -> list[str]:
    """In lower case, without spaces and underscores, and as the first edition has them."""
    try:
        cells = next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [])
    except csv.Error:
        return []
    names = [re.sub("[ _]", "", cell).lower() for cell in cells]
    return [_SECOND_EDITION.get(name, name) for name in names]


# A month has tens of thousands of lines, with about a thousand distinct values in each of these columns.
@lru_cache(maxsize=10_000)
def _read_quantity(cell: str) -> int:
    text = cell.strip()
    if not _QUANTITY.fullmatch(text):
        raise RowError(f"Quantity {text!r} is not a whole number")
    return int(text)


@lru_cache(maxsize=10_000)
def _read_price(cell: str) -> Price:
    text = cell.strip()
    if not _PRICE.fullmatch(text):
        raise RowError(f"UnitPrice {text!r} is not an amount")
    numerator, denominator = Decimal(text).as_integer_ratio()  # integers, so that no decimal context rounds
    pence, rest = divmod(numerator * 100, denominator)
    return Price(text, pence, rest > 0)


@lru_cache(maxsize=10_000)
def _read_moment(cell: str) -> Moment:
    text = cell.strip()
    if found := _TIME.fullmatch(text):
        first, middle, last = found["date"].split(found["dot"])
        if len(first) == 4:
            time = _moment(first, middle, last, found)
            moment = Moment(time, time)
        else:
            day_first = _moment(last, middle, first, found)
            # With dots, the day is first everywhere.
            moment = Moment(day_first, _moment(last, first, middle, found) if found["dot"] != "." else day_first)
        if any(moment):
            return moment
    raise RowError(f"InvoiceDate {text!r} is not a date and time")


def _moment(year: str, month: str, day: str, time: re.Match[str]) -> datetime | None:
    """None where there is no such time."""
    if len(year) not in (2, 4) or len(month) > 2 or len(day) > 2:
        return None
    hour = int(time["hour"])
    if time["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if time["half"] in "Pp" else 0)
    try:
        return datetime(
            int(year) + (2000 if len(year) == 2 else 0),
            int(month),
            int(day),
            hour,
            int(time["minute"]),
            int(time["second"] or 0),
            tzinfo=UTC,
        )
    except ValueError:  # the 30th of February
        return None


@lru_cache(maxsize=10_000)
def _read_customer(cell: str) -> str:
    text = cell.strip()
    return GUEST if text in _NO_CUSTOMER else text.partition(".")[0]
