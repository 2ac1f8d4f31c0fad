"""Orders fulfilled end to end a second, against orders placed alone: `python -m bench.fulfilment`. No row of the table.

A command service, the sandbox and a process runner, each a process of its own; orders are placed over HTTP. Then the
runner stands still while orders are placed, and some more are placed while it works the backlog off.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack

import httpx
import psutil
import uvloop

from bench.orders import BODY
from bench.servers import Servers, connect, servers, started
from cli.stack.embedded_server import free_port
from cli.stack.server import Server
from cli.stack.service import Service

CONNECTIONS = 32
NEW_ORDERS = 20  # that are placed while there is a backlog
POLL_SECONDS = 0.05
_ENDED = "select count(*) from events where event_type = 'ProcessEnded'"
_HAS_ENDED = "select exists (select from events where stream_id = $1 and event_type = 'ProcessEnded')"
_EVENTS = "select count(*) from events"


async def _place(url: str, count: int) -> tuple[float, list[str]]:
    """Places them; returns how many a second, and their ids."""
    order_ids: list[str] = []
    left = iter(range(count))
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:

        async def some() -> None:
            for _ in left:
                answer = await client.post("/orders", content=BODY, headers={"Content-Type": "application/json"})
                order_ids.append(answer.raise_for_status().json()["aggregate_id"])

        began = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(CONNECTIONS)))
        return count / (time.perf_counter() - began), order_ids


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await condition():
            return
        await asyncio.sleep(POLL_SECONDS)


def _processor_seconds(running: Sequence[Server]) -> dict[str, float]:
    used = {}
    for server in running:
        process = psutil.Process(server.pid)
        used[server.name] = sum([sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True))])
    return used


class Shop:
    def __init__(self, given: Servers, form: str) -> None:
        self.database_url = given.database()
        ports = {name: free_port() for name in ("command", "sandbox", "processes")}
        sandbox = f"http://127.0.0.1:{ports['sandbox']}"
        environment = {
            "DATABASE_URL": given.url_as("command", self.database_url),
            "REDIS_URL": "redis://127.0.0.1:1/0",  # none of them uses Redis
            "HOST": "127.0.0.1",
            "THROTTLE_FOR": "",
            "LOG_LEVEL": "WARNING",
            "FULFILMENT": form,
            "PAYMENT_GATEWAY_URL": f"{sandbox}/payment",
            "CARRIER_GATEWAY_URL": f"{sandbox}/carrier",
            "SANDBOX_LEDGER": str(given.directory / "ledger.sqlite"),
        }
        self.command, self.sandbox, self.processes = (
            Service(name, port, given.directory / f"{name}.log", {**environment, f"{name.upper()}_PORT": str(port)})
            for name, port in ports.items()
        )
        self.url = f"http://127.0.0.1:{ports['command']}"
        self.postgres = given.postgres


async def _measure_throughput(shop: Shop, count: int, kinds: int) -> None:
    connection = await connect(shop.database_url)
    running = [shop.postgres, shop.command, shop.sandbox, shop.processes]
    before, began = _processor_seconds(running), time.perf_counter()
    await _place(shop.url, count)

    async def all_ended() -> bool:
        return int(await connection.fetchval(_ENDED)) >= count * kinds

    await _until(all_ended)
    seconds = time.perf_counter() - began
    used = {name: (total - before[name]) / seconds for name, total in _processor_seconds(running).items()}
    print(f"fulfilled: {count / seconds:.0f} orders/s, {await connection.fetchval(_EVENTS) / seconds:.0f} events/s")
    print("processors used: " + ", ".join(f"{name} {share:.2f}" for name, share in used.items()))
    await connection.close()


async def _measure_backlog(shop: Shop, count: int, kind: str) -> None:
    """The runner has been started a moment ago."""
    connection = await connect(shop.database_url)
    waits = []
    for _ in range(NEW_ORDERS):
        began = time.perf_counter()
        _, [order_id] = await _place(shop.url, 1)

        async def has_ended(stream: str = f"process-{kind}-{order_id}") -> bool:
            return bool(await connection.fetchval(_HAS_ENDED, stream))

        await _until(has_ended)
        waits.append(time.perf_counter() - began)
    left = count - await connection.fetchval(_ENDED)
    waits.sort()
    print(
        f"backlog of {count}: a new order takes {waits[len(waits) // 2]:.2f} s, at most {waits[-1]:.2f} s; {left} left"
    )
    await connection.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--orders", type=int, default=1_000)
    arguments.add_argument("--backlog", type=int, default=10_000)
    arguments.add_argument("--form", choices=["orchestrated", "choreographed"], default="orchestrated")
    given = arguments.parse_args()
    kinds = {"orchestrated": ["fulfilment"], "choreographed": ["order_payment", "order_shipping"]}[given.form]
    with servers() as running, ExitStack() as stack:
        shop = Shop(running, given.form)
        stack.enter_context(started(shop.command))
        stack.enter_context(started(shop.sandbox))
        rate, _ = uvloop.run(_place(shop.url, given.orders))
        print(f"placed alone: {rate:.0f} orders/s")
        with started(shop.processes):
            uvloop.run(_measure_throughput(shop, given.orders, len(kinds)))
        uvloop.run(_place(shop.url, given.backlog))
        with started(shop.processes):
            uvloop.run(_measure_backlog(shop, given.backlog + given.orders, kinds[-1]))


if __name__ == "__main__":
    main()
