"""orders replay ORDER_ID: the timeline of one order, or of a stream of another aggregate."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import msgspec
import pytest

from cli.history.timeline import PAGE
from cli.replay import replay as replay_command
from cli.stack.descriptor import Process, Stack
from cli.stack.embedded_server import free_port
from shared.aggregates import AGGREGATES, EVENT_TYPES, register
from shared.aggregates.aggregate import Aggregate
from shared.aggregates.order import OrderItemAdded, OrderItemRemoved, OrderLine, ShippingAddressChanged
from tests.orders import LAMP, MUG, cancelled, paid, placed, shipped
from tests.orders_command import shown_on_a_terminal, start_orders
from tests.recording import Recorder, put_in_log
from tests.replay.conftest import Replay
from tests.roles import PASSWORDS, url_of

EPOCH = datetime(2026, 1, 31, 14, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PAID = (
    "payment_reference pay-1, amount 2,599, amount_captured 2,599, amount_voided 0, amount_refunded 0,"
    " captured_at 2026-01-31T14:31:00Z"
)
SHIPPED = (
    "shipment_id 1, tracking_number track-1, carrier Royal Mail, lines line_id 2, quantity 1,"
    " shipped_at 2026-01-31T14:31:00Z"
)


async def test_shows_a_row_for_each_event_with_what_it_changed(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("another", placed())
    await recorder.record("42", placed(MUG, LAMP), occurred_at=EPOCH)
    await recorder.record("42", OrderItemAdded(OrderLine("MUG", 1_000, 450)), occurred_at=EPOCH + MINUTE)
    await recorder.record("42", OrderItemRemoved("MUG"), occurred_at=EPOCH + MINUTE)
    await recorder.record("42", ShippingAddressChanged("office"), paid(2_599), shipped(), occurred_at=EPOCH + MINUTE)

    timeline = await replay("42")

    assert (timeline.returncode, timeline.stderr) == (0, "")
    assert _cells(timeline.stdout) == [
        ["1", "2", "2026-01-31T14:30:00Z", "OrderPlaced", "customer_id: alice"],
        ["status: PENDING"],
        ["currency: GBP"],
        ["currency_exponent: 2"],
        ["total_amount: 3,499"],
        ["item_count: 2"],
        ["items: + line_id 1, product_id MUG, product_name Mug, quantity 2, unit_price 450, line_total 900"],
        ["items: + line_id 2, product_id LAMP, product_name Lamp, quantity 1, unit_price 2,599, line_total 2,599"],
        ["shipping_address_id: home"],
        ["payment_status: unpaid"],
        ["fulfilment_status: unfulfilled"],
        ["on_hold: no"],
        ["amount_payable: 3,499"],
        ["amount_authorised: 0"],
        ["amount_paid: 0"],
        ["amount_refunded: 0"],
        ["amount_due: 3,499"],
        ["refund_due: 0"],
        ["2", "3", "2026-01-31T14:31:00Z", "OrderItemAdded", "total_amount: 3,499 → 453,499"],
        ["item_count: 2 → 3"],
        ["items: + line_id 3, product_id MUG, quantity 1,000, unit_price 450, line_total 450,000"],
        ["amount_payable: 3,499 → 453,499"],
        ["amount_due: 3,499 → 453,499"],
        ["3", "4", "2026-01-31T14:31:00Z", "OrderItemRemoved", "total_amount: 453,499 → 2,599"],
        ["item_count: 3 → 1"],
        ["items: - line_id 1, product_id MUG, product_name Mug, quantity 2, unit_price 450, line_total 900"],
        ["items: - line_id 3, product_id MUG, quantity 1,000, unit_price 450, line_total 450,000"],
        ["amount_payable: 453,499 → 2,599"],
        ["amount_due: 453,499 → 2,599"],
        ["4", "5", "2026-01-31T14:31:00Z", "ShippingAddressChanged", "shipping_address_id: home → office"],
        ["5", "6", "2026-01-31T14:31:00Z", "PaymentConfirmed", "status: PENDING → CONFIRMED"],
        ["payment_status: unpaid → paid"],
        ["amount_paid: 0 → 2,599"],
        ["amount_due: 2,599 → 0"],
        [f"payments: + {PAID}"],
        ["6", "7", "2026-01-31T14:31:00Z", "OrderShipped", "status: CONFIRMED → SHIPPED"],
        ["tracking_number: nothing → track-1"],
        ["fulfilment_status: unfulfilled → shipped"],
        [f"shipments: + {SHIPPED}"],
    ]


def _cells(table: str) -> list[list[str]]:
    """The cells below title and headings, without the time of recording, which is the log's own."""
    rows = [re.split(" {2,}", line.strip()) for line in table.splitlines()[2:]]
    return [[cell for number, cell in enumerate(row) if number != 3] for row in rows]


async def test_a_terminal_of_80_columns_shows_every_event_whole(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed(OrderLine("MUG", 1, 450, "A VERY LONG NAME OF A VERY ORDINARY MUG " * 3)))
    await recorder.record("42", ShippingAddressChanged("office"), paid(450), shipped())
    url = url_of(replay.database_url, "orders_auditor")
    arguments = "replay", "42", "--database-url", url
    shown = await asyncio.to_thread(shown_on_a_terminal, *arguments, cwd=replay.directory, env={"COLUMNS": "80"})
    shown = re.sub("\x1b\\[[0-9;]*m", "", shown)  # headings are bold
    assert max(map(len, shown.splitlines())) <= 80
    for whole in ("ShippingAddressChanged", "PaymentConfirmed", "OrderShipped", "status: CONFIRMED → SHIPPED"):
        assert whole in shown
    assert re.search(r"recorded \d{4}-\d\d-\d\dT[\d:.]+Z", shown)


async def test_as_json_each_event_comes_with_the_order_as_it_was_then(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed(MUG), occurred_at=EPOCH)
    await recorder.record("42", paid(900), occurred_at=EPOCH + MINUTE)

    document = json.loads((await replay("42", "--json")).stdout)

    assert document["order_id"] == "42"
    assert [(event["version"], event["event_type"], event["occurred_at"]) for event in document["events"]] == [
        (1, "OrderPlaced", "2026-01-31T14:30:00Z"),
        (2, "PaymentConfirmed", "2026-01-31T14:31:00Z"),
    ]
    assert [event["order"]["status"] for event in document["events"]] == ["PENDING", "CONFIRMED"]
    assert document["events"][0]["order"]["items"][0]["product_id"] == "MUG"


@pytest.mark.promise("command-line", "`orders replay` shows a stream of any length, a part of it in memory at a time")
@pytest.mark.bound("replay", "events of one table; of JSON")
async def test_a_long_life_is_shown_in_several_tables(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed(MUG), *[ShippingAddressChanged(f"address-{nr}") for nr in range(2 * PAGE)])

    table, document = await replay("42"), json.loads((await replay("42", "--json")).stdout)

    assert table.stdout.count("Order 42") == 1
    assert table.stdout.count("what it changed") == 3
    shown = re.findall(r"→ (address-[0-9]+)", table.stdout)
    assert shown == [f"address-{nr}" for nr in range(2 * PAGE)]
    assert [event["version"] for event in document["events"]] == list(range(1, 2 * PAGE + 2))


@pytest.mark.subprocess
async def test_a_reader_that_has_seen_enough_closes_the_pipe(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed(), *[ShippingAddressChanged("elsewhere")] * (5 * PAGE))
    env = {"DATABASE_URL": replay.database_url}
    process = start_orders("replay", "42", "--json", cwd=replay.directory, env=env)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) != ""
    process.stdout.close()
    assert process.stderr is not None
    assert await asyncio.to_thread(process.stderr.read) == ""
    assert await asyncio.to_thread(process.wait, 20) != 0
    process.stderr.close()


async def test_equal_lines_are_added_and_removed_one_by_one(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed(MUG, MUG, LAMP), OrderItemAdded(MUG), OrderItemRemoved("MUG"))
    timeline = (await replay("42")).stdout
    assert len(re.findall(r"items: \+ line_id \d, product_id MUG", timeline)) == 3
    assert len(re.findall(r"items: - line_id \d, product_id MUG", timeline)) == 3
    assert timeline.count("LAMP") == 1


async def test_ends_where_the_times_say(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed(), occurred_at=EPOCH)
    await recorder.record("42", paid(), occurred_at=EPOCH + MINUTE)
    recorded_at = await recorder.connection.fetchval("select recorded_at from events where version = 2")
    await recorder.record("42", cancelled(3_499), occurred_at=EPOCH + MINUTE)
    at_once = EPOCH.isoformat(), (EPOCH + MINUTE).isoformat(), recorded_at.isoformat()

    timelines = await asyncio.gather(
        replay("42", "--as-of", at_once[0]),
        replay("42", "--as-of", at_once[1]),
        replay("42", "--known-at", at_once[2]),
        replay("42", "--as-of", at_once[0], "--known-at", at_once[2]),
    )

    events = ["OrderPlaced", "PaymentConfirmed", "OrderCancelled"]
    assert [[event in timeline.stdout for event in events] for timeline in timelines] == [
        [True, False, False],
        [True, True, True],
        [True, True, False],
        [True, False, False],
    ]
    assert "Order 42 as of 2026-01-31T14:30:00Z" in timelines[0].stdout


async def test_an_order_that_does_not_exist_is_reported(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed(), occurred_at=EPOCH)
    never, not_yet, not_known = await asyncio.gather(
        replay.refused(1, "43"),
        replay.refused(1, "42", "--as-of", "2026-01-31T14:29:59Z"),
        replay.refused(1, "42", "--known-at", "2026-01-31T14:30:00Z"),
    )
    nouns = " and no ".join(aggregate.noun for aggregate in AGGREGATES.values())
    assert never == f"orders: there is no {nouns} '43', and no stream of that name\n"
    assert not_yet == "orders: there was no order '42' as of 2026-01-31T14:29:59Z\n"
    assert not_known == "orders: there was no order '42' known at 2026-01-31T14:30:00Z\n"


async def test_arguments_that_make_no_sense_end_with_2(replay: Replay) -> None:
    messages = await asyncio.gather(
        replay.refused(2, "42", "--as-of", "yesterday"),
        replay.refused(2, "42", "--known-at", "2026-01-31T14:30:00"),
        replay.refused(2, "42", "--as-of", "2999-01-01T00:00:00Z"),
        replay.refused(2),
        replay.refused(2, "42", "--projection", "a:b"),
        replay.refused(2, "42", "--from", "1"),
    )
    for text, expected in zip(
        messages,
        [
            "--as-of: 'yesterday' is not an RFC 3339 time",
            "--known-at: '2026-01-31T14:30:00' is not an RFC 3339 time",
            "--as-of: 2999-01-01T00:00:00Z is in the future",
            "give either an ORDER_ID or --projection",
            "give either an ORDER_ID or --projection",
            "--from goes with --projection",
        ],
        strict=True,
    ):
        assert text.startswith(f"orders: {expected}")


async def test_control_characters_from_the_log_are_escaped(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed(OrderLine("MUG", 1, 1, "\x1b[2J[red]Käse\x07")))
    timeline = (await replay("42")).stdout
    assert r"'\x1b[2J[red]K\xe4se\x07'" in timeline
    assert "\x1b" not in timeline


async def test_an_event_that_cannot_be_read_stops_it_and_is_named(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed())
    await recorder.record_raw("42", "OrderPlaced", 4, "{}")
    message = await replay.refused(1, "42")
    assert message == (
        "orders: stopped at position 2: unknown-schema-version: "
        "OrderPlaced version 4 is unknown here, which reads versions 1 to 3.\n"
    )


async def test_a_missing_or_unreachable_database_is_reported(replay: Replay) -> None:
    unused = f"postgresql://orders@127.0.0.1:{free_port()}/orders"
    none, away = await asyncio.gather(
        replay.refused(1, "42", DATABASE_URL=""), replay.refused(1, "42", "--database-url", unused)
    )
    assert none.startswith("orders: no database: set DATABASE_URL, or start a stack")
    assert away.startswith("orders: cannot connect: ")


async def test_it_finds_the_running_stack_and_reads_as_its_auditor(replay: Replay, recorder: Recorder) -> None:
    """The process of the test takes the place of `orders up`: it runs, and its descriptor names the database."""
    await recorder.record("42", placed())
    password = PASSWORDS["orders_auditor"]
    (replay.directory / ".orders").mkdir()
    Stack(
        supervisor=Process.of(os.getpid()), database_url=replay.database_url, role_passwords={"auditor": password}
    ).save(replay.directory / ".orders")

    timeline = await replay("42", DATABASE_URL="")

    assert "OrderPlaced" in timeline.stdout, timeline.stderr


class CounterStarted(msgspec.Struct, frozen=True):
    title: str


class CounterMoved(msgspec.Struct, frozen=True):
    by: int


@dataclass(frozen=True)
class Counter:
    title: str
    steps: tuple[int, ...] = ()


def evolve(state: Counter | None, event: CounterStarted | CounterMoved) -> Counter:
    if isinstance(event, CounterStarted):
        return Counter(event.title)
    assert state is not None
    return replace(state, steps=(*state.steps, event.by))


COUNTER: Aggregate[Counter, CounterStarted | CounterMoved] = Aggregate(
    "counter", Counter, (CounterStarted, CounterMoved), evolve
)


@pytest.fixture
def registered() -> Iterator[None]:
    with patch.dict(AGGREGATES), patch.dict(EVENT_TYPES):
        register(COUNTER)
        yield


@pytest.mark.usefixtures("registered")
async def test_a_stream_of_any_registered_aggregate_is_shown_by_its_name(
    database_url: str, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    await put_in_log(recorder.connection, "counter-7", CounterStarted("visits"), CounterMoved(3), CounterMoved(4))

    await asyncio.to_thread(replay_command, "counter-7", database_url=database_url)

    shown = capsys.readouterr().out
    assert "Counter 7" in shown
    assert [row[3:] for row in _cells(shown)] == [
        ["CounterStarted", "title: visits"],
        ["CounterMoved", "steps: + 3"],
        ["CounterMoved", "steps: + 4"],
    ]


@pytest.mark.usefixtures("registered")
async def test_an_order_whose_id_looks_like_a_stream_comes_before_that_stream(
    database_url: str, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    await put_in_log(recorder.connection, "counter-7", CounterStarted("visits"))
    await recorder.record("counter-7", placed())
    await asyncio.to_thread(replay_command, "counter-7", database_url=database_url)
    assert "Order counter-7" in capsys.readouterr().out
