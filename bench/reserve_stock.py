"""Row 16: orders of three tracked products of 10,000, one of them hot in every order, against orders of any three.

A closed loop of 32 clients, one command process. The baselines are orders of three products of 10,000, and of three
products that are not tracked. Most products are ordered once before, so the command service has their stock cached.
"""

from __future__ import annotations

import random
import sys

import asyncpg
import msgspec
import uvloop
from uuid_utils.compat import uuid7

from bench import group_sizes, orders
from bench.http_connection import json_request
from bench.interleave import interleave
from bench.load import Flow, Plan, Report, run
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers, Services
from shared.aggregates.stock import STOCK, StockReceived
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, NewEvent

CONNECTIONS = 32
PRODUCTS = 10_000
LINES = 3
ORDERS = 10_000  # different requests
PIECES = 10**9  # of each product: none is refused
HOT = PRODUCTS  # its number
FIRST_ORDER_SECONDS = 3.0


def measure(servers: Servers, scale: Scale) -> list[Result]:
    database = servers.database()
    uvloop.run(_receive(database))
    short = scale.short if scale.rounds > 1 else scale
    draw = random.Random(16)
    uniform = [_place([_product(number) for number in draw.sample(range(PRODUCTS), LINES)]) for _ in range(ORDERS)]
    hot = [
        _place([_product(HOT), *[_product(number) for number in draw.sample(range(PRODUCTS), LINES - 1)]])
        for _ in range(ORDERS)
    ]
    untracked = [
        _place([f"untracked-{number}" for number in draw.sample(range(PRODUCTS), LINES)]) for _ in range(ORDERS)
    ]
    with servers.services(database, commands=1) as services:
        run(Plan(flows=[_flow(services, uniform)], warm_up=0.0, seconds=FIRST_ORDER_SECONDS))
        with_hot, of_any, without = interleave(
            short.rounds,
            lambda: _load(services, hot, short),
            lambda: _load(services, uniform, short),
            lambda: _load(services, untracked, short),
        )
        grouped = group_sizes.of_service(services.port("command")).summary()

    def result(label: str, ours: list[Report], against: str, theirs: list[Report], goal: Goal | None) -> Result:
        return Result(
            row=16,
            label=label,
            measure=f"`POST /orders`, {LINES} tracked products of {PRODUCTS:,}, {label}",
            unit="requests/s",
            ours=[report.per_second() for report in ours],
            against=against,
            theirs=[report.per_second() for report in theirs],
            goal=goal,
            n=sum(report.flows[0].answers for report in ours),
            client_cpu=max(report.client_cpu for report in (*ours, *theirs)),
            notes=[ours[-1].cpu_summary(), f"all sides together: {grouped}"],
        )

    return [
        result("one hot", with_hot, f"any {LINES} of {PRODUCTS:,}", of_any, Goal("at least", 0.5)),
        result("one hot, and no stock", with_hot, f"{LINES} products without stock", without, None),
        result("any three, and no stock", of_any, f"{LINES} products without stock", without, None),
    ]


def _product(number: int) -> str:
    return f"product-{number}"


def _place(products: list[str]) -> bytes:
    items = [{"product_id": product_id, "quantity": 1, "unit_price": 255} for product_id in products]
    body = {"customer_id": "17850", "currency": "GBP", "items": items, "shipping_address_id": "address-1"}
    return json_request("POST", "/orders", msgspec.json.encode(body))


async def _receive(database_url: str) -> None:
    """Of each product, and of the hot one."""
    connection = await asyncpg.connect(database_url)
    for begin in range(0, PRODUCTS + 1, 1_000):
        numbers = range(begin, min(begin + 1_000, PRODUCTS + 1))
        await event_log.append_group(connection, [_received(_product(number)) for number in numbers])
    await connection.close()


def _received(product_id: str) -> AppendRequest:
    event = NewEvent(uuid7(), *codec.encode(StockReceived(PIECES)), orders.METADATA, orders.new_time())
    return AppendRequest.of_stream(STOCK.stream_of(product_id), 0, uuid7(), [event])


def _flow(services: Services, requests: list[bytes]) -> Flow:
    return Flow(name="place", requests=requests, ports=services.ports("command"), connections=CONNECTIONS)


def _load(services: Services, requests: list[bytes], scale: Scale) -> Report:
    plan = Plan(flows=[_flow(services, requests)], warm_up=scale.warm_up, seconds=scale.seconds, pids=services.pids)
    return run(plan)


if __name__ == "__main__":
    sys.exit(run_row(measure))
