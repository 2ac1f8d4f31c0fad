"""Orders as test data: requests, append requests, and logs filled with them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import asyncpg
import msgspec
import uvloop
from uuid_utils.compat import uuid7

from bench.http_connection import json_request
from shared.aggregates.order import (
    ORDER,
    OrderEvent,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    PaymentConfirmed,
    ShippingAddressChanged,
)
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, NewEvent

# The body of `POST /orders` with two lines.
BODY = msgspec.json.encode(
    {
        "customer_id": "17850",
        "currency": "GBP",
        "items": [
            {
                "product_id": "85123A",
                "product_name": "WHITE HANGING HEART T-LIGHT HOLDER",
                "quantity": 6,
                "unit_price": 255,
            },
            {"product_id": "71053", "product_name": "WHITE METAL LANTERN", "quantity": 6, "unit_price": 339},
        ],
        "shipping_address_id": "address-1",
    }
)
METADATA = '{"correlation_id":"0f8fad5b-d9cb-469f-a165-70867728950e"}'
EVENTS_OF_AN_ORDER = 4
GROUP = 250  # orders in one append, so the four events of an order lie within a thousand positions

_LINES = (
    OrderLine("85123A", 6, 255, "WHITE HANGING HEART T-LIGHT HOLDER"),
    OrderLine("71053", 6, 339, "WHITE METAL LANTERN"),
)
_TOTAL = sum(line.quantity * line.unit_price for line in _LINES)


_addresses = itertools.count(1)


def address_changes(numbers: Iterable[int], addresses: int) -> list[bytes]:
    """Requests that give each order that many addresses, in order. No earlier call used these addresses, so each
    request appends an event."""
    numbers = list(numbers)
    return [
        json_request(
            "PUT",
            f"/orders/{order_id(number)}/shipping-address",
            b'{"shipping_address_id":"address-%d"}' % address,
        )
        for address in itertools.islice(_addresses, addresses)
        for number in numbers
    ]


def new_time() -> datetime:
    return datetime.now(UTC)


def order_id(number: int) -> str:
    return f"order{number:08d}"


def customer_id(number: int) -> str:
    return f"customer{number % 5_000}"


def order_placed(number: int) -> NewEvent:
    return new_event(OrderPlaced(customer_id(number), "GBP", _LINES, "address-1"))


def new_event(event: OrderEvent) -> NewEvent:
    return NewEvent(uuid7(), *codec.encode(event), METADATA, new_time())


def place_order(number: int) -> AppendRequest:
    """The append that begins an order."""
    return _begin(number, [order_placed(number)])


def fill(database_url: str, events: int, first_order: int = 0, apart: int = 0) -> int:
    """Appends that many events: orders that are placed, readdressed, paid and shipped. Returns the next order's number.

    The four events of an order lie within a thousand positions, or about `apart` positions from each other.
    """
    end = first_order + events // EVENTS_OF_AN_ORDER
    uvloop.run(_fill(database_url, first_order, end, behind=apart // EVENTS_OF_AN_ORDER))
    return end


async def _fill(database_url: str, first: int, end: int, behind: int) -> None:
    connection = await asyncpg.connect(database_url)
    appending: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    appending.set_result(None)
    try:
        for begin in range(first, end + behind, GROUP):
            for part, start in ((_first_half, begin), (_second_half, begin - behind)):
                group = [part(number) for number in range(max(start, first), min(start + GROUP, end))]
                if not group:
                    continue
                await appending  # PostgreSQL worked on the previous group meanwhile
                appending = asyncio.ensure_future(event_log.append_group(connection, group))
                await asyncio.sleep(0)  # lets the task send it
        await appending
    finally:
        await connection.close()


def _first_half(number: int) -> AppendRequest:
    readdressed = new_event(ShippingAddressChanged(f"address-{number % 7}"))
    return _begin(number, [order_placed(number), readdressed])


def _begin(number: int, events: list[NewEvent]) -> AppendRequest:
    return AppendRequest.of_stream(ORDER.stream_of(order_id(number)), 0, uuid7(), events, owner=customer_id(number))


def _second_half(number: int) -> AppendRequest:
    events = [new_event(PaymentConfirmed(f"pay-{number}", _TOTAL)), new_event(OrderShipped(f"track-{number}"))]
    return AppendRequest.of_stream(ORDER.stream_of(order_id(number)), 2, uuid7(), events)


def place(database_url: str, numbers: Sequence[int]) -> None:
    """Appends orders of one event each."""

    async def work() -> None:
        connection = await asyncpg.connect(database_url)
        for begin in range(0, len(numbers), 1_000):
            await event_log.append_group(connection, [place_order(number) for number in numbers[begin : begin + 1_000]])
        await connection.close()

    uvloop.run(work())
