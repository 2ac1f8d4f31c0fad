"""What the import makes of the rows of an Online Retail CSV."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zipfile
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.importer import text_file
from cli.importer.online_retail import Invoices, OrderRequest, Reject, read_invoices
from cli.importer.rows import COLUMNS, DateOrder
from cli.importer.text_file import NotReadable

SAMPLE = Path(__file__).parents[1] / "data" / "online_retail_sample.csv.gz"
HEADER = ",".join(COLUMNS)


def row(
    invoice: str = "536365",
    product: str = "85123A",
    name: str = "WHITE HANGING HEART T-LIGHT HOLDER",
    quantity: str = "6",
    time: str = "2010-12-01 08:26:00",
    price: str = "2.55",
    customer: str = "17850.0",
) -> str:
    cells = io.StringIO()
    csv.writer(cells, lineterminator="").writerow(
        [invoice, product, name, quantity, time, price, customer, "United Kingdom"]
    )
    return cells.getvalue()


def read(content: bytes, date_order: DateOrder | None = None) -> Invoices:
    with NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_invoices(Path(file.name), date_order)


def csv_of(*rows: str, header: str = HEADER) -> str:
    return "".join(f"{line}\n" for line in (header, *rows))


def parsed(*rows: str, header: str = HEADER, date_order: DateOrder | None = None) -> Invoices:
    return read(csv_of(*rows, header=header).encode(), date_order)


def only_order(*rows: str, header: str = HEADER, date_order: DateOrder | None = None) -> OrderRequest:
    invoices = parsed(*rows, header=header, date_order=date_order)
    assert invoices.rejects == []
    [placement] = invoices.placements
    return placement.order


def only_reject(*rows: str) -> Reject:
    invoices = parsed(*rows)
    assert invoices.placements == []
    [reject] = invoices.rejects
    return reject


def test_an_invoice_becomes_one_order_with_prices_in_pence_and_its_time_taken_as_utc() -> None:
    order = only_order(row(), row(product="71053", name="WHITE METAL LANTERN", price="3.39"))
    assert order.order_id == "536365"
    assert order.customer_id == "17850"
    assert order.currency == "GBP"
    assert order.shipping_address_id == "customer-17850"
    assert order.occurred_at == datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
    assert [(item.product_id, item.quantity, item.unit_price) for item in order.items] == [
        ("85123A", 6, 255),
        ("71053", 6, 339),
    ]


def test_the_product_name_is_stripped_and_left_out_when_empty() -> None:
    named, unnamed = only_order(row(name="  CREAM CUPID  "), row(name="   ")).items
    assert named.product_name == "CREAM CUPID"
    assert unnamed.product_name is None


def test_a_line_without_customer_belongs_to_the_guest() -> None:
    order = only_order(row(customer=""))
    assert (order.customer_id, order.shipping_address_id) == ("guest", "customer-guest")


def test_the_earliest_time_counts_where_lines_differ() -> None:
    order = only_order(row(time="2010-12-01 08:27:00"), row(time="2010-12-01 08:26:00"))
    assert order.occurred_at == datetime(2010, 12, 1, 8, 26, tzinfo=UTC)


def test_lines_of_an_invoice_need_not_be_adjacent() -> None:
    invoices = parsed(row("1", product="A"), row("2", product="B"), row("1", product="C"))
    assert [
        (placement.order.order_id, [item.product_id for item in placement.order.items], placement.lines)
        for placement in invoices.placements
    ] == [("1", ["A", "C"], (2, 4)), ("2", ["B"], (3,))]


def test_the_same_product_on_two_lines_stays_two_lines() -> None:
    assert [item.quantity for item in only_order(row(quantity="1"), row(quantity="2")).items] == [1, 2]


def test_a_price_of_zero_and_a_product_id_with_an_inner_space_are_fine() -> None:
    [item] = only_order(row(product="BANK CHARGES", price="0.0")).items
    assert (item.product_id, item.unit_price) == ("BANK CHARGES", 0)


def test_names_may_hold_commas_quotes_and_letters_beyond_ascii() -> None:
    assert only_order(row(name='3" CAFÉ, "SMALL"')).items[0].product_name == '3" CAFÉ, "SMALL"'


@pytest.mark.parametrize(
    ("price", "pence"),
    [
        ("2.55", 255),
        ("2.5", 250),
        ("2", 200),
        ("2.550", 255),
        ("1.10", 110),
        ("4.35", 435),
        ("999999999999.99", 10**14 - 1),
    ],
)
def test_pounds_become_pence_exactly(price: str, pence: int) -> None:
    assert only_order(row(price=price)).items[0].unit_price == pence


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("C536379", quantity="-1"), "credit-note"),
        (row("C536379", quantity="1"), "credit-note"),
        (row(quantity="0"), "quantity-not-positive"),
        (row(quantity="-80995"), "quantity-not-positive"),
        (row(price="-11062.06"), "negative-price"),
        (row(price="0.001"), "price-finer-than-penny"),
        (row(price="1e-05"), "price-finer-than-penny"),
        (row(price="0.000000000000001"), "price-finer-than-penny"),
    ],
)
def test_an_invoice_is_refused_with_the_reason(bad: str, reason: str) -> None:
    assert only_reject(bad).reason == reason


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("536365,85123A,HEART,6", "4 columns instead of 8"),
        (row() + ",more", "9 columns instead of 8"),
        (row(quantity="6.0"), "Quantity '6.0' is not a whole number"),
        (row(quantity=""), "Quantity '' is not a whole number"),
        (row(quantity="٣"), "Quantity '٣' is not a whole number"),
        (row(quantity="9" * 5_000), "is not a whole number"),
        (row(price="free"), "UnitPrice 'free' is not an amount"),
        (row(price="NaN"), "UnitPrice 'NaN' is not an amount"),
        (row(price="1e9"), "UnitPrice '1e9' is not an amount"),
        (row(price="2,55"), "UnitPrice '2,55' is not an amount"),
        (row(time="2010-12-01"), "InvoiceDate '2010-12-01' is not a date and time"),
        (row(time="30/02/2010 08:26"), "InvoiceDate '30/02/2010 08:26' is not a date and time"),
        (row(time="01/12/2010 13:26 PM"), "is not a date and time"),
        (row(time="2010-02-30 08:26:00"), "InvoiceDate '2010-02-30 08:26:00' is not a date and time"),
        (row(time="2010-12-01 08:26:00+02:00"), "is not a date and time"),
        (row(invoice="  "), "no invoice number"),
        ('536365,85123A,"HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom', "not CSV"),
        ("536365,85123A,HE\rART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom", "not CSV"),
    ],
)
def test_an_unreadable_row_is_kept_as_it_was_with_what_is_wrong_with_it(bad: str, why: str) -> None:
    reject = only_reject(bad)
    assert reject.reason == "unreadable-row"
    assert why in reject.explanation
    assert reject.raw == bad
    assert reject.lines == (2,)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=40))
def test_a_row_means_the_same_in_quotes(name: str) -> None:
    plain, quoted = row(name=name), io.StringIO()
    csv.writer(quoted, lineterminator="", quoting=csv.QUOTE_ALL).writerow(next(csv.reader([plain])))
    assert parsed(quoted.getvalue()) == parsed(plain)


def test_damaged_bytes_of_a_utf8_file_refuse_their_invoice() -> None:
    damaged = row().encode().replace(b"HEART", b"C\xc9UR")
    [reject] = read(b"\n".join([HEADER.encode(), row("1", name="CAFÉ").encode(), damaged])).rejects
    assert (reject.invoice, reject.lines, reject.reason) == ("536365", (3,), "unreadable-row")
    assert "C\\xc9UR" in reject.raw


def test_an_invoice_is_refused_as_a_whole_and_names_the_lines_at_fault() -> None:
    reject = only_reject(row(), row(quantity="-1"), row(), row(quantity="-2"))
    assert (reject.invoice, reject.lines, reject.explanation) == ("536365", (3, 5), "quantity -1, -2")


def test_a_bad_row_far_below_still_refuses_its_invoice_and_no_other() -> None:
    invoices = parsed(row("1"), row("2"), row("1", price="x"))
    assert [placement.order.order_id for placement in invoices.placements] == ["2"]
    assert [(reject.invoice, reject.lines) for reject in invoices.rejects] == [("1", (4,))]


def test_an_unbalanced_quote_spoils_its_own_line_only() -> None:
    invoices = parsed('1,A,"UNCLOSED,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom', row("2"))
    assert [placement.order.order_id for placement in invoices.placements] == ["2"]
    assert [reject.invoice for reject in invoices.rejects] == ["1"]


def test_rows_without_invoice_number_are_refused_one_by_one() -> None:
    rejects = parsed(row(invoice=""), row("1", price="x"), row(invoice="")).rejects
    assert [(reject.invoice, reject.lines) for reject in rejects] == [("", (2,)), ("1", (3,)), ("", (4,))]


def test_lines_of_two_customers_in_one_invoice_are_refused_rather_than_given_to_either() -> None:
    reject = only_reject(row(customer="17850.0"), row(customer=""))
    assert (reject.reason, reject.explanation) == ("customers-differ", "lines of the customers 17850, guest")


def test_empty_lines_are_no_rows() -> None:
    assert only_order(row(), "", "  ").order_id == "536365"


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"a,b,c\n",
        b"InvoiceNo,StockCode\n",
        HEADER.replace("Country", "Price").encode(),
        HEADER.encode() + b",InvoiceNo",
        b"\x00\xff" * 100,
        b"\r" + HEADER.encode(),
    ],
)
def test_a_file_with_another_header_or_none_is_not_read(first: bytes) -> None:
    with pytest.raises(NotReadable, match="the first line must be the header InvoiceNo,StockCode"):
        read(first + b"\n" + row().encode())


# The forms in which copies of the data set are found.
SPREAD = {
    "plain": csv_of(row()),
    "second edition": csv_of(
        row(), header="Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country"
    ),
    "snake case": csv_of(
        row(), header="invoice_no,stock_code,description,quantity,invoice_date,unit_price,customer_id,country"
    ),
    "quotes": csv_of(row(), header=",".join(f'"{name}"' for name in COLUMNS)),
    "index of pandas": csv_of("0," + row(), header="," + HEADER),
    "columns of their own": csv_of(row() + ",15.3", header=HEADER + ",TotalPrice"),
    "month first": csv_of(row(time="12/1/2010 8:26"), row("2", time="12/13/2010 8:26")),
    "short year": csv_of(row(time="12/1/10 8:26"), row("2", time="12/13/10 8:26")),
    "am and pm": csv_of(row(time="12/1/2010 8:26:00 AM"), row("2", time="12/13/2010 12:26 pm")),
    "day first": csv_of(row(time="01-12-2010 08:26"), row("2", time="13-12-2010 08:26")),
    "slashes": csv_of(row(time="2010/12/01 08:26:00")),
    "no seconds": csv_of(row(time="2010-12-01 08:26")),
    "of Spark": csv_of(row(time="2010-12-01T08:26:00.000Z")),
    "of Excel in Europe": csv_of(row(time="01.12.2010 8:26", price="2.55"), header=HEADER)
    .replace(",", ";")
    .replace("2.55", "2,55"),
    "tabs": csv_of(row()).replace(",", "\t"),
    "bars": csv_of(row()).replace(",", "|"),
    "customer as a whole number": csv_of(row(customer="17850")),
}


@pytest.mark.parametrize("text", SPREAD.values(), ids=SPREAD)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_each_form_in_which_the_data_set_is_spread_means_the_same(text: str, encoding: str, line_end: str) -> None:
    text = text.replace("WHITE HANGING", "£1 CAFÉ").replace("\n", line_end)
    invoices = read(text.encode(encoding))
    assert invoices.rejects == []
    assert invoices.placements[0].order == only_order(row(name="£1 CAFÉ HEART T-LIGHT HOLDER"))


def test_missing_customers_of_r_and_of_databases_are_the_guest() -> None:
    placements = parsed(row("1", customer="NA"), row("2", customer="NULL")).placements
    assert {placement.order.customer_id for placement in placements} == {"guest"}


@pytest.mark.parametrize(("date_order", "month"), [("dmy", 12), ("mdy", 1)])
def test_the_user_says_whether_the_day_is_first_where_the_file_does_not(date_order: DateOrder, month: int) -> None:
    ambiguous = row(time="01/12/2010 08:26")
    with pytest.raises(NotReadable, match=r"InvoiceDate 01/12/2010 .* say which, with --date-order dmy or mdy"):
        parsed(ambiguous)
    assert only_order(ambiguous, date_order=date_order).occurred_at.month == month


def test_dates_in_two_orders_are_refused_rather_than_guessed() -> None:
    with pytest.raises(NotReadable, match="the day first in 13/12/2010, and the month in 12/14/2010"):
        parsed(row("1", time="13/12/2010 08:26"), row("2", time="12/14/2010 08:26"))
    with pytest.raises(NotReadable, match="InvoiceDate 12/14/2010 contradicts --date-order dmy"):
        parsed(row(time="12/14/2010 08:26"), date_order="dmy")


def test_equal_day_and_month_leave_nothing_open() -> None:
    assert only_order(row(time="12/12/2010 08:26")).occurred_at == datetime(2010, 12, 12, 8, 26, tzinfo=UTC)


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_a_packed_file_is_recognised_by_its_content() -> None:
    text = csv_of(row()).encode()
    assert read(gzip.compress(text)) == read(text)
    assert read(zipped({"data/": b"", "data/online.csv": text, "__MACOSX/._online.csv": b"x"})) == read(text)


# Named in words: an archive holds the time at which it was made, and the workers of pytest-xdist compare the names.
DAMAGED_GZIP, DAMAGED_ZIP = SAMPLE.read_bytes()[:-100], bytearray(zipped({"a.csv": csv_of(row()).encode() * 50}))
DAMAGED_ZIP[60] ^= 0xFF
# The flags of a member in the list at the end of an archive.
ENCRYPTED = b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"


UNREADABLE = {
    "damaged gzip": (DAMAGED_GZIP, "the packed file is damaged"),
    "damaged zip": (bytes(DAMAGED_ZIP), "the packed file is damaged"),
    "zip without its end": (zipped({"a.csv": b""})[:-10], "the packed file is damaged"),
    "empty zip": (zipped({}), "should hold one CSV file, but it holds nothing"),
    "two files": (zipped({"a.csv": b"", "b.csv": b""}), "should hold one CSV file, but it holds a.csv, b.csv"),
    "zip of a workbook": (zipped({"Online Retail.xlsx": b""}), "Excel workbook: save each sheet as CSV"),
    "workbook": (
        zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}),
        "Excel workbook: save each sheet as CSV",
    ),
    "encrypted zip": (zipped({"a.csv": b""}).replace(*ENCRYPTED), "encrypted"),
    "half a character": (codecs.BOM_UTF16_LE + csv_of(row()).encode("utf-16-le")[:-1], "the text is damaged"),
    "endless line": (HEADER.encode() + b"\n" + b"x" * 70_000, "line 2 is longer than 65,536 characters"),
}


@pytest.mark.parametrize(("content", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_cannot_be_read_is_an_error_and_not_half_an_import(content: bytes, why: str) -> None:
    with pytest.raises(NotReadable, match=re.escape(why)):
        read(content)


@pytest.mark.bound("import", "invoices of a file")
def test_a_file_that_unpacks_to_more_than_its_bound_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "MAX_FILE", 1_000_000)
    with pytest.raises(NotReadable, match="it is longer than 1,000,000 characters"):
        read(gzip.compress(csv_of(row("1"), *["\t" * 1_000] * 1_000).encode()))


def test_every_invoice_of_the_sample_is_an_order_or_refused() -> None:
    with gzip.open(SAMPLE, "rt", encoding="utf-8", newline="") as file:
        expected = {record["InvoiceNo"] for record in csv.DictReader(file)}
    invoices = read_invoices(SAMPLE)
    orders = [placement.order.order_id for placement in invoices.placements]
    refused = [reject.invoice for reject in invoices.rejects]
    assert sorted(orders + refused) == sorted(expected)


cells = st.fixed_dictionaries(
    {
        "invoice": st.sampled_from(["1", "2", "3", "C4", "5", ""]),
        "quantity": st.integers(-1, 20).map(str) | st.just("many"),
        "price": st.decimals(Decimal("-0.01"), 10**6, places=2).map(str) | st.sampled_from(["0.001", "dear"]),
        "time": st.sampled_from(["2010-12-01 08:26:00", "2010-12-01 08:27:00", "yesterday"]),
    }
)


@given(st.lists(cells, max_size=12))
def test_every_invoice_is_in_exactly_one_place_and_totals_equal_a_decimal_computation(
    records: list[dict[str, str]],
) -> None:
    invoices = parsed(*(row(**record) for record in records))
    orders = [placement.order for placement in invoices.placements]
    refused = [reject.invoice for reject in invoices.rejects]
    named = {record["invoice"] for record in records} - {""}
    nameless = [record for record in records if not record["invoice"]]
    assert sorted([order.order_id for order in orders] + refused) == sorted([*named, *("" for _ in nameless)])

    pounds: dict[str, Decimal] = defaultdict(Decimal)
    for record in records:
        if record["invoice"] in {order.order_id for order in orders}:
            pounds[record["invoice"]] += int(record["quantity"]) * Decimal(record["price"])
    assert {order.order_id: sum(item.quantity * item.unit_price for item in order.items) for order in orders} == {
        invoice: int(total * 100) for invoice, total in pounds.items()
    }
