"""`orders import` as a user runs it, against the real services."""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
import re
import signal
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import asyncpg
import httpx
import pytest

from cli.stack.descriptor import Process as StackProcess
from cli.stack.descriptor import Stack
from shared.settings import Settings
from tests.import_runs import HEADER, SAMPLE, all_pages, finish, orders_import, read_rejects, start_import
from tests.orders_command import shown_on_a_terminal, start_orders
from tests.roles import settings_of
from tests.running import eventually, free_ports, running_command_service


def csv_file(folder: Path, *rows: str) -> Path:
    file = folder / "orders.csv"
    file.write_text(HEADER + "".join(row + "\n" for row in rows))
    return file


def one_line(invoice: str, quantity: int = 1) -> str:
    return f"{invoice},85123A,HEART,{quantity},2010-12-01 08:26:00,2.55,17850.0,United Kingdom"


@pytest.fixture
def command_address(stack: Settings) -> str:
    return f"http://{stack.host}:{stack.command_port}"


@pytest.fixture
async def queries(query_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=query_url) as client:
        yield client


@dataclass
class Expected:
    """An order as this test, which shares nothing with the importer, reads it from the CSV."""

    customer: str
    placed_at: str
    pence: Decimal
    lines: list[tuple[str, int, Decimal]]


def expected_orders() -> dict[str, Expected]:
    invoices: dict[str, list[dict[str, str]]] = defaultdict(list)
    with gzip.open(SAMPLE, "rt", encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            invoices[record["InvoiceNo"]].append(record)
    orders = {}
    for invoice, records in invoices.items():
        lines = [(r["StockCode"], int(r["Quantity"]), Decimal(r["UnitPrice"]) * 100) for r in records]
        if invoice.startswith("C") or any(count <= 0 or price < 0 or price % 1 for _, count, price in lines):
            continue
        customer = records[0]["CustomerID"].split(".")[0] or "guest"
        placed_at = min(record["InvoiceDate"] for record in records).replace(" ", "T") + "Z"
        pence = sum((count * price for _, count, price in lines), Decimal(0))
        orders[invoice] = Expected(customer, placed_at, pence, lines)
    return orders


async def test_what_the_query_api_answers_after_an_import_is_what_the_csv_says(
    command_address: str, queries: httpx.AsyncClient, tmp_path: Path
) -> None:
    expected = expected_orders()
    run = await orders_import(tmp_path, SAMPLE, command_address)
    assert (run.exit_code, run.summary) == (0, (len(expected), 29, 0)), run.stderr

    async def all_listed() -> bool:
        return len(await all_pages(queries, "/orders")) == len(expected)

    await eventually(all_listed)
    orders = await all_pages(queries, "/orders")
    assert {order["order_id"] for order in orders} == set(expected)
    assert [order["placed_at"] for order in orders] == sorted((e.placed_at for e in expected.values()), reverse=True)
    assert sum(order["total_amount"] for order in orders) == sum(order.pence for order in expected.values())

    by_customer: dict[str, list[str]] = defaultdict(list)
    for order_id, order in expected.items():
        by_customer[order.customer].append(order_id)
    for customer, order_ids in by_customer.items():
        theirs = await all_pages(queries, f"/customers/{customer}/orders")
        assert {order["order_id"] for order in theirs} == set(order_ids)
        # Two of one customer's orders may have the same minute, so the newest is found by its time.
        assert theirs[0]["placed_at"] == max(expected[order_id].placed_at for order_id in order_ids)
        assert expected[theirs[0]["order_id"]].placed_at == theirs[0]["placed_at"]

    for order_id, order in expected.items():
        document = (await queries.get(f"/orders/{order_id}")).json()
        assert (document["customer_id"], document["currency"], document["placed_at"], document["total_amount"]) == (
            order.customer,
            "GBP",
            order.placed_at,
            order.pence,
        )
        items = [(item["product_id"], item["quantity"], item["unit_price"]) for item in document["items"]]
        assert items == order.lines


async def test_a_second_run_changes_nothing_and_says_so(
    command_url: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    first = await orders_import(tmp_path, SAMPLE, command_url)
    head = await connection.fetchrow("select position, hash from log_head")
    rejects = (tmp_path / "online_retail_sample.rejects.csv").read_bytes()

    second = await orders_import(tmp_path, SAMPLE, command_url)

    accepted, rejected, _ = first.summary
    assert (second.exit_code, second.summary) == (0, (0, rejected, accepted))
    assert "nothing changed" in second.stdout
    assert await connection.fetchrow("select position, hash from log_head") == head
    assert (tmp_path / "online_retail_sample.rejects.csv").read_bytes() == rejects


@pytest.mark.promise(
    "command-line", "An invoice whose content differs from what is in the log is rejected, not already there"
)
@pytest.mark.parametrize("expired", [False, True], ids=["soon", "after its Idempotency-Key has expired"])
async def test_a_corrected_file_is_rejected_invoice_by_invoice_with_what_differs(
    command_address: str,
    query_url: str,
    connection: asyncpg.Connection[asyncpg.Record],
    tmp_path: Path,
    *,
    expired: bool,
) -> None:
    services = command_address, "--query-url", query_url
    first = csv_file(tmp_path, one_line("1"), one_line("2"), one_line("3"), one_line("4"), one_line("4"))
    assert (await orders_import(tmp_path, first, *services)).summary == (4, 0, 0)
    if expired:
        await connection.execute("delete from idempotency_keys")
    later = one_line("3").replace("08:26", "08:27")
    corrected = csv_file(tmp_path, one_line("1"), one_line("2", quantity=2), later, one_line("4"), one_line("5"))

    run = await orders_import(tmp_path, corrected, *services)

    assert (run.exit_code, run.summary) == (0, (1, 3, 1)), run.stderr
    rejects = read_rejects(tmp_path / "orders.rejects.csv")
    assert [(one["invoice"], one["reason"]) for one in rejects] == [(n, "differs-from-the-log") for n in "234"]
    assert [one["explanation"] for one in rejects] == [
        "quantity of line 1 is 1 in the log, 2 in the file",
        "occurred_at is 2010-12-01 08:26:00+00:00 in the log, 2010-12-01 08:27:00+00:00 in the file",
        "number of lines is 2 in the log, 1 in the file",
    ]


async def test_an_order_that_was_changed_since_it_was_placed_is_already_there(
    command_address: str, query_url: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    file = csv_file(tmp_path, one_line("1"))
    assert (await orders_import(tmp_path, file, command_address)).summary == (1, 0, 0)
    await connection.execute("delete from idempotency_keys")
    async with httpx.AsyncClient(base_url=command_address) as commands:
        added = await commands.post("/orders/1/items", json={"product_id": "A", "quantity": 1, "unit_price": 1})
    assert added.is_success

    run = await orders_import(tmp_path, file, command_address, "--query-url", query_url)

    assert (run.exit_code, run.summary) == (0, (0, 0, 1)), run.stderr


async def test_without_a_query_service_an_order_that_is_there_is_not_said_to_be_the_same(
    command_url: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    """Nor is content that is known to differ."""
    file = csv_file(tmp_path, one_line("1"), one_line("2"))
    assert (await orders_import(tmp_path, file, command_url)).summary == (2, 0, 0)
    await connection.execute("delete from idempotency_keys where stream_id = 'order-1'")
    corrected = csv_file(tmp_path, one_line("1"), one_line("2", quantity=2))

    run = await orders_import(tmp_path, corrected, command_url, "--patience", "0.5")

    assert (run.exit_code, run.summary) == (1, (0, 1, 0))
    assert "not settled: 1 orders" in run.stderr
    assert "give the query service's address as --query-url" in run.stderr
    [reject] = read_rejects(tmp_path / "orders.rejects.csv")
    assert (reject["invoice"], reject["reason"]) == ("2", "differs-from-the-log")


async def test_on_a_terminal_a_bar_shows_how_many_are_placed_and_how_fast(command_url: str, tmp_path: Path) -> None:
    file = csv_file(tmp_path, *(one_line(str(invoice)) for invoice in range(50)))
    arguments = "import", str(file), "--command-url", command_url
    shown = await asyncio.to_thread(shown_on_a_terminal, *arguments, cwd=tmp_path)
    assert re.search(r"placing orders .*━━━.* 50/50 .*\d orders/s", shown)


async def test_every_invoice_is_in_the_log_or_in_the_rejects_file(
    command_url: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    rejects_file = tmp_path / "refused.csv"
    await orders_import(tmp_path, SAMPLE, command_url, "--rejects", str(rejects_file))
    in_log = {row["stream_id"].removeprefix("order-") for row in await connection.fetch("select stream_id from events")}
    refused = {row["invoice"] for row in read_rejects(rejects_file)}
    with gzip.open(SAMPLE, "rt", encoding="utf-8", newline="") as file:
        invoices = {record["InvoiceNo"] for record in csv.DictReader(file)}
    assert in_log | refused == invoices
    assert not in_log & refused


async def test_what_the_command_service_refuses_is_in_the_rejects_with_its_code_and_detail(
    command_url: str, tmp_path: Path
) -> None:
    file = csv_file(tmp_path, one_line("1"), one_line("2", quantity=1_000_001), one_line("C3"), "4,too,short")
    run = await orders_import(tmp_path, file, command_url)
    assert (run.exit_code, run.summary) == (0, (1, 3, 0))
    by_api, credit_note, unreadable = read_rejects(tmp_path / "orders.rejects.csv")
    assert (by_api["invoice"], by_api["lines"], by_api["reason"]) == ("2", "3", "invalid-request")
    assert "quantity" in by_api["explanation"]
    assert (credit_note["invoice"], credit_note["reason"]) == ("C3", "credit-note")
    assert (unreadable["lines"], unreadable["raw"]) == ("5", "4,too,short")


async def test_without_a_service_nothing_is_guessed_and_the_exit_code_says_so(tmp_path: Path) -> None:
    unused = f"http://127.0.0.1:{free_ports(1)[0]}"
    run = await orders_import(tmp_path, csv_file(tmp_path, one_line("1"), one_line("C2")), unused, "--patience", "0.3")
    assert (run.exit_code, run.summary) == (1, (0, 1, 0))
    assert "not settled: 1 orders" in run.stderr
    assert "Run the same command again" in run.stderr


async def test_an_import_waits_for_a_service_that_is_not_up_yet(settings: Settings, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{settings.command_port}"
    process = start_import(tmp_path, csv_file(tmp_path, *(one_line(str(i)) for i in range(50))), url)
    await eventually((tmp_path / "orders.rejects.csv").exists)
    async with running_command_service(settings):
        run = await finish(process)
    assert (run.exit_code, run.summary) == (0, (50, 0, 0)), run.stderr


async def test_another_server_at_the_address_is_recognised_at_once(query_url: str, tmp_path: Path) -> None:
    run = await orders_import(tmp_path, csv_file(tmp_path, one_line("1"), one_line("2")), query_url)
    assert (run.exit_code, run.summary) == (1, (0, 0, 0))
    assert "which the order command service does not" in run.stderr


async def test_an_interrupted_import_says_how_to_resume_and_the_next_run_places_the_rest(
    command_url: str, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    count = 1_000
    file = csv_file(tmp_path, *(one_line(str(invoice)) for invoice in range(count)))
    process = start_import(tmp_path, file, command_url, "--concurrency", "2")
    await eventually(lambda: connection.fetchval("select position from log_head"))
    process.send_signal(signal.SIGINT)
    interrupted = await finish(process)

    assert interrupted.exit_code == 130
    assert "orders (interrupted)" in interrupted.stderr
    assert "Run the same command again" in interrupted.stderr
    accepted, _, _ = interrupted.summary
    assert accepted < count

    resumed = await orders_import(tmp_path, file, command_url)
    placed_now, _, already_there = resumed.summary
    assert resumed.exit_code == 0
    assert placed_now + already_there == count
    assert already_there >= accepted
    assert await connection.fetchval("select position from log_head") == count


def start_command_service(settings: Settings) -> subprocess.Popen[str]:
    """A process of its own, so that it can be killed."""
    own = settings_of(settings, "orders_command")
    settings_of_service = {
        "COMMAND_PORT": str(own.command_port),
        "DATABASE_URL": own.database_url.get_secret_value(),
        "REDIS_URL": own.redis_url.get_secret_value(),
    }
    return start_orders("run", "command", output=subprocess.DEVNULL, env=settings_of_service)


async def test_an_import_outlives_a_killed_command_service_and_places_every_order_once(
    settings: Settings, connection: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    count = 1_000
    file = csv_file(tmp_path, *(one_line(str(invoice)) for invoice in range(count)))
    service = start_command_service(settings)
    try:
        process = start_import(tmp_path, file, f"http://127.0.0.1:{settings.command_port}", "--concurrency", "8")
        await eventually(lambda: connection.fetchval("select position >= 50 from log_head"))
        service.kill()
        service.wait()
        service = start_command_service(settings)
        run = await finish(process)
    finally:
        service.terminate()
        service.wait()
    accepted, _, already_there = run.summary
    assert run.exit_code == 0, run.stderr
    assert accepted + already_there == count
    assert await connection.fetchval("select position from log_head") == count


async def test_without_an_address_the_running_stack_is_found_by_its_data_directory(
    command_url: str, tmp_path: Path
) -> None:
    Stack(supervisor=StackProcess.of(os.getpid()), command_url=command_url).save(tmp_path)
    file = csv_file(tmp_path, one_line("1"))
    process = start_orders("import", str(file), "--data-dir", str(tmp_path), cwd=tmp_path)
    assert (await finish(process)).summary == (1, 0, 0)


@pytest.mark.parametrize(
    ("content", "options", "complaint"),
    [
        ("a,b,c\n1,2,3\n", [], "must be the header"),
        ("", [], "must be the header"),
        (HEADER.replace(",", "\r"), [], "must be the header"),
        ("PK\x03\x04", [], "the packed file is damaged"),
        (HEADER + one_line("1").replace("2010-12-01", "1/12/2010"), [], "say which, with --date-order dmy or mdy"),
        (HEADER, ["--command-url", "localhost:8001"], "not an http(s) address"),
        (HEADER, ["--query-url", "localhost:8002"], "not an http(s) address"),
        (HEADER, ["--rejects", "orders.csv"], "would overwrite the input"),
        (HEADER, ["--rejects", "missing/rejects.csv"], "cannot write"),
        (HEADER, ["--concurrency", "0"], "concurrency"),
    ],
)
async def test_arguments_that_make_no_sense_are_refused_before_anything_is_placed(
    content: str, options: list[str], complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(content)
    run = await orders_import(tmp_path, file, "http://127.0.0.1:1", *options)
    assert run.exit_code == 2
    assert complaint in " ".join(run.stderr.replace("│", " ").split())
    assert file.read_bytes() == content.encode()
    assert run.stdout == ""
