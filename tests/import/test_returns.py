"""`orders import --returns` as a user runs it: credit notes become returns and refunds of the orders before them."""

from __future__ import annotations

import csv
import gzip
import signal
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import httpx
import pytest

from shared.settings import Settings
from tests.import_runs import HEADER, SAMPLE, all_pages, finish, orders_import, read_rejects, start_import
from tests.independent_folds import assert_read_models_equal_the_log
from tests.running import clients_of, eventually

CSV = list[dict[str, str]]


def net_revenue_of(records: CSV) -> tuple[Counter[str], Counter[str], set[str]]:
    """(pence by month, refused lines by credit note, credit notes of which a line is booked), as the CSV alone says;
    shares nothing with the importer.

    Each line of a credit note is given back by the customer's latest purchases of the product before it, of which
    pieces are left, at the same price or more; else not at all.
    """
    invoices: dict[str, CSV] = defaultdict(list)
    for record in records:
        invoices[record["InvoiceNo"]].append(record)
    net: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    booked: set[str] = set()
    bought: dict[tuple[str, str], list[list[Any]]] = defaultdict(list)
    given_back = []
    for number, lines in invoices.items():
        at = min(line["InvoiceDate"] for line in lines)
        values = [(line["StockCode"], int(line["Quantity"]), Decimal(line["UnitPrice"]) * 100) for line in lines]
        customer = lines[0]["CustomerID"].partition(".")[0]
        if number.startswith("C"):
            given_back.append((at, number, customer, values))
        elif all(count > 0 and price >= 0 and price == int(price) for _, count, price in values):
            net[at[:7]] += sum(count * int(price) for _, count, price in values)
            for product, count, price in values:
                bought[customer, product].append([at, number, int(price), count])
    for at, number, customer, values in sorted(given_back, key=lambda one: one[0]):
        for product, count, price in values:
            lots = [lot for lot in bought[customer, product] if lot[0] <= at and lot[2] >= price and customer]
            if sum(lot[3] for lot in lots) < -count:
                refused[number] += 1
                continue
            booked.add(number)
            net[at[:7]] += count * int(price)
            for lot in sorted(lots, key=lambda lot: lot[:2], reverse=True):
                taken = min(lot[3], -count)
                lot[3] -= taken
                count += taken  # noqa: PLW2901
    return net, refused, booked


async def net_revenue_in(queries: httpx.AsyncClient) -> Counter[str]:
    """What was bought, by the month of the order, less what was refunded, by the month of the refund."""
    net: Counter[str] = Counter()
    for summary in await all_pages(queries, "/orders"):
        order = (await queries.get(f"/orders/{summary['order_id']}")).json()
        net[order["placed_at"][:7]] += order["total_amount"]
        for refund in order["refunds"]:
            net[refund["refunded_at"][:7]] -= refund["amount"]
    return net


def records_of(file: Path) -> CSV:
    packed = file.suffix == ".gz"
    with gzip.open(file, "rt", newline="") if packed else file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def random_rows(random: Random) -> Iterator[str]:
    """Invoices and credit notes of a few customers and products over three months, side by side."""
    for number in range(100):
        is_credit = random.random() < 0.5
        day = f"{random.choice(['2010-12', '2011-01', '2011-02'])}-{random.randint(1, 28):02}"
        customer = random.choice(["17850.0", "13047.0", "12583.0", "12431.0", ""])
        for _ in range(random.randint(1, 3)):
            quantity = -random.randint(1, 4) if is_credit else random.randint(1, 9)
            price = random.choice(["1.50", "2.00", "2.00"])
            name, product = ("C" * is_credit) + str(number), random.choice(["MUG", "PEN", "LAMP"])
            yield f"{name},{product},,{quantity},{day} 10:00:00,{price},{customer},France"


def row(invoice: str, product: str, quantity: int, day: int, price: str = "2.00", customer: str = "17850") -> str:
    return f"{invoice},{product},,{quantity},2010-12-{day:02} 10:00:00,{price},{customer},France"


def csv_file(folder: Path, rows: Iterable[str], name: str = "orders.csv") -> Path:
    file = folder / name
    file.write_text(HEADER + "".join(line + "\n" for line in rows))
    return file


@pytest.mark.promise("command-line", "Net revenue by month, with credit notes, is what the CSV alone says")
@pytest.mark.parametrize("made_up", [False, True], ids=["sample", "random"])
async def test_net_revenue_by_month_is_that_of_the_csv(
    stack: Settings, database_url: str, redis_url: str, tmp_path: Path, *, made_up: bool
) -> None:
    file = csv_file(tmp_path, random_rows(Random(19))) if made_up else SAMPLE
    expected, refused, booked = net_revenue_of(records_of(file))
    assert len(booked) > (15 if made_up else 2)
    arguments = command_url(stack), "--query-url", query_url(stack), "--returns"
    run = await orders_import(tmp_path, file, *arguments)
    assert run.exit_code == 0, run.stderr
    assert f"credit notes booked {len(booked)}, booked before 0" in run.stdout
    rejects = read_rejects(tmp_path / ("orders.rejects.csv" if made_up else "online_retail_sample.rejects.csv"))
    notes = Counter({one["invoice"]: len(one["lines"].split()) for one in rejects if one["invoice"].startswith("C")})
    assert notes == refused
    await assert_read_models_equal_the_log(database_url, redis_url)
    async with clients_of(stack) as (_, queries):
        assert await net_revenue_in(queries) == expected

    again = await orders_import(tmp_path, file, *arguments)

    assert (again.exit_code, again.summary[0]) == (0, 0), again.stderr
    assert f"credit notes booked 0, booked before {len(booked)}" in again.stdout
    assert "nothing changed" in again.stdout


@pytest.mark.promise("command-line", "A line of a credit note that takes back more than was bought is a reject")
async def test_a_credit_note_is_a_return_and_a_refund_of_the_latest_purchases(stack: Settings, tmp_path: Path) -> None:
    """Also of those that another file brought."""
    december = csv_file(tmp_path, [row("1", "MUG", 4, 1), row("2", "MUG", 4, 2, "3.00"), row("2", "PEN", 1, 2)])
    services = command_url(stack), "--query-url", query_url(stack)
    assert (await orders_import(tmp_path, december, *services)).summary == (2, 0, 0)
    back = [
        row("C3", "MUG", -6, 5),
        row("C3", "PEN", -2, 5),
        row("C4", "PEN", -1, 6, "1.50"),
        row("C5", "PEN", -1, 7),
        row("C6", "MUG", -1, 7, customer=""),
        row("C7", "MUG", 1, 7),
    ]

    run = await orders_import(tmp_path, csv_file(tmp_path, back, "credits.csv"), *services, "--returns")

    assert (run.exit_code, run.summary) == (0, (0, 4, 0)), run.stderr
    rejects = read_rejects(tmp_path / "credits.rejects.csv")
    assert [(one["invoice"], one["lines"], one["reason"]) for one in rejects] == [
        ("C3", "3", "credit-without-purchase"),
        ("C5", "5", "credit-without-purchase"),
        ("C6", "6", "credit-note-of-a-guest"),
        ("C7", "7", "quantity-not-negative"),
    ]
    assert "line 3 takes back 2 of PEN for 200 pence each, 1 of them can come back" in rejects[0]["explanation"]
    async with clients_of(stack) as (_, queries):

        async def refunded(order_id: str) -> dict[str, int]:
            order = (await queries.get(f"/orders/{order_id}")).json()
            return {one["refund_id"]: one["amount"] for one in order["refunds"]}

        await eventually(lambda: refunded("1"))
        await eventually(lambda: refunded("2"))
        first, second = [(await queries.get(f"/orders/{order_id}")).json() for order_id in "12"]
    assert refunds_of(first) == {"C3": (400, "2010-12-05T10:00:00Z")}
    assert refunds_of(second) == {"C3": (800, "2010-12-05T10:00:00Z"), "C4": (150, "2010-12-06T10:00:00Z")}
    assert [line["restocked"] for one in second["returns"] for line in one["lines"]] == [4, 1]
    assert (first["status"], first["fulfilment_status"], first["amount_paid"]) == ("SHIPPED", "partly_returned", 800)
    assert first["refund_due"] == 0
    assert second["refund_due"] == 400 + 50, "what was not given back of what the pieces cost"


async def test_what_several_payments_paid_is_given_back_from_each(stack: Settings, tmp_path: Path) -> None:
    december = csv_file(tmp_path, [row("1", "MUG", 4, 1)])
    services = command_url(stack), "--query-url", query_url(stack)
    assert (await orders_import(tmp_path, december, *services)).summary == (1, 0, 0)
    async with clients_of(stack) as (commands, queries):
        for reference in ("first", "second"):
            body = {"payment_reference": reference, "amount": 400, "occurred_at": "2010-12-01T10:00:00Z"}
            assert (await commands.post("/orders/1/payments", json=body)).is_success
        back = csv_file(tmp_path, [row("C2", "MUG", -2, 5), row("C3", "MUG", -2, 6)], "credits.csv")

        run = await orders_import(tmp_path, back, *services, "--returns")

        assert (run.exit_code, run.summary) == (0, (0, 0, 0)), run.stderr

        async def refunded() -> bool:
            payments = (await queries.get("/orders/1")).json()["payments"]
            return [one["amount_refunded"] for one in payments] == [400, 400]

        await eventually(refunded)


async def test_an_interrupted_import_of_returns_is_continued_by_the_next(
    stack: Settings, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    customers = range(12)
    sold = [row(str(number), "MUG", 5, 1, customer=str(number)) for number in customers]
    back = [
        row(f"C{number}-{note}", "MUG", -2, 2 + note, customer=str(number)) for number in customers for note in range(3)
    ]
    file = csv_file(tmp_path, [*sold, *back])
    options = command_url(stack), "--query-url", query_url(stack), "--returns", "--concurrency", "2"
    process = start_import(tmp_path, file, *options)
    await eventually(
        lambda: connection.fetchval("select count(*) from events where event_type = 'PaymentRefunded'"), 60
    )
    process.send_signal(signal.SIGINT)
    interrupted = await finish(process)
    assert interrupted.exit_code == 130
    assert "credit notes (interrupted)" in interrupted.stderr

    resumed = await orders_import(tmp_path, file, *options)

    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.summary == (0, len(customers), len(customers)), "of three notes, the third asks for too much"
    counts = await connection.fetch("select event_type, count(*) from events group by 1")
    assert {name: count for name, count in counts if "Return" in name or "Refund" in name} == {
        "ReturnRequested": 24,
        "ReturnReceived": 24,
        "PaymentRefunded": 24,
    }


async def test_without_a_query_service_credit_notes_are_not_settled(command_url: str, tmp_path: Path) -> None:
    file = csv_file(tmp_path, [row("1", "MUG", 5, 1), row("C2", "MUG", -1, 2)])
    run = await orders_import(tmp_path, file, command_url, "--returns", "--patience", "0.5")
    assert (run.exit_code, run.summary) == (1, (1, 0, 0))
    assert "not settled: 0 orders, 1 credit notes" in run.stderr
    assert "give the query service's address as --query-url" in run.stderr


def refunds_of(order: dict[str, Any]) -> dict[str, tuple[int, str]]:
    return {one["refund_id"]: (one["amount"], one["refunded_at"]) for one in order["refunds"]}


def command_url(stack: Settings) -> str:
    return f"http://{stack.host}:{stack.command_port}"


def query_url(stack: Settings) -> str:
    return f"http://{stack.host}:{stack.query_port}"
