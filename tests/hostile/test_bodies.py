"""An invalid body costs no more than a valid one of its size: in processor time, in memory, and in others' waiting."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import cycle
from statistics import median
from time import perf_counter, process_time

import httpx
import pytest

from tests.given_when_then import problem
from tests.orders import order_body, place

SIZE = 512 * 1024
JSON = {"Content-Type": "application/json"}
MUG: dict[str, object] = {"product_id": "MUG", "quantity": 1, "unit_price": 1}
LONG: dict[str, object] = {**MUG, "product_name": "x" * 190}


def filled(before: str, unit: str, after: str) -> bytes:
    """A body of just under 512 KiB; a `#` in the unit becomes its number."""
    room = (SIZE - len(before) - len(after)) // (len(unit) + ("#" in unit) * 5 + 1)
    return (before + ",".join(unit.replace("#", f"{number:06x}") for number in range(room)) + after).encode()


def body(items: list[dict[str, object]], **others: object) -> str:
    """With the lines last."""
    others = {name: value for name, value in order_body(**others).items() if name != "items"}
    return json.dumps({**others, "items": items}, separators=(",", ":"))


VALID = body([LONG] * 2_000).encode()
ONE = body([MUG])  # ends with }]}
NONE = body([])  # ends with []}
WRONG = {**LONG, "quantity": 0}
# Made where they are sent: together they take a second.
ATTACKS: dict[str, Callable[[], bytes]] = {
    "unknown fields of a line": lambda: filled(ONE[:-3] + ",", '"#":1', "}]}"),
    "unknown fields": lambda: filled(ONE[:-1] + ",", '"#":1', "}"),
    "empty lines": lambda: filled(NONE[:-2], "{}", "]}"),
    "lines of unknown fields": lambda: filled(NONE[:-2], '{"a":1,"b":1}', "]}"),
    "lines that are numbers": lambda: filled(NONE[:-2], "1", "]}"),
    "lists in an unknown field": lambda: filled(ONE[:-1] + ',"a":[', "[]", "]}"),
    "objects in an unknown field": lambda: filled(ONE[:-1] + ',"a":[', '{"#":{}}', "]}"),
    "numbers instead of a customer": lambda: filled(ONE[:-1] + ',"customer_id":[', "1", "]}"),
    "a quantity wrong in every line": lambda: body([WRONG] * 1_900).encode(),
    "a quantity wrong in every hundredth line": lambda: body(([LONG] * 99 + [WRONG]) * 19).encode(),
    "a quantity wrong in the last line": lambda: body([LONG] * 1_900 + [WRONG]).encode(),
    "names of many commas and an unknown field": lambda: body(
        [{**LONG, "product_name": "," * 180}] * 1_900, a=1
    ).encode(),
    "nothing but brackets": lambda: b"[" * SIZE,
    "objects in objects": lambda: b'{"a":' * (SIZE // 5),
    "not quite JSON": lambda: VALID[:-1],
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def commands(shared_services: tuple[httpx.AsyncClient, httpx.AsyncClient]) -> httpx.AsyncClient:
    return shared_services[0]


@pytest.fixture(autouse=True)
def _without_full_collections() -> Iterator[None]:
    """As in the services (`shared.gc_tuning`): the cyclic collector would otherwise count as the body's."""
    gc.disable()
    yield
    gc.enable()


async def cost_of(commands: httpx.AsyncClient, content: bytes) -> float:
    """Seconds of processor time, of client and server together."""
    await commands.get("/livez")
    best = float("inf")
    for _ in range(5):
        started = process_time()
        await commands.post("/orders", content=content, headers=JSON)
        best = min(best, process_time() - started)
    return best


@pytest.mark.promise("commands", "An invalid body costs no more than a valid one of its size")
@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_invalid_body_is_no_dearer_than_a_valid_one(commands: httpx.AsyncClient, attack: str) -> None:
    valid = await cost_of(commands, VALID)
    assert await cost_of(commands, ATTACKS[attack]()) < 3 * valid  # measured: 0.2 to 1.3 times; 3 on a busy machine


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.bound("all", "values in a JSON body; fields of one of its objects; errors that an answer lists")
async def test_an_invalid_body_is_refused_in_a_few_words(commands: httpx.AsyncClient, attack: str) -> None:
    answer = await commands.post("/orders", content=ATTACKS[attack](), headers=JSON)
    malformed = answer.status_code == 400
    refused = problem(answer, 400, "malformed-json") if malformed else problem(answer, 422, "invalid-request")
    assert malformed or 1 <= len(refused["errors"]) <= 20
    assert len(answer.content) < 4_096


@pytest.mark.parametrize("attack", ["unknown fields of a line", "lists in an unknown field", "empty lines"])
async def test_an_invalid_body_takes_a_few_times_its_size_of_memory(commands: httpx.AsyncClient, attack: str) -> None:
    await commands.post("/orders", content=b"{}", headers=JSON)
    content = ATTACKS[attack]()
    tracemalloc.start()
    await commands.post("/orders", content=content, headers=JSON)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 40 * SIZE


async def waits_beside(commands: httpx.AsyncClient, bodies: Iterator[bytes]) -> list[float]:
    """Seconds that placing an order took while two clients sent these bodies, one after another."""

    async def send() -> None:
        for content in bodies:
            await commands.post("/orders", content=content, headers=JSON)

    senders = [asyncio.create_task(send()) for _ in range(2)]
    waits = []
    for _ in range(5):
        started = perf_counter()
        await place(commands)
        waits.append(perf_counter() - started)
    for sender in senders:
        sender.cancel()
    await asyncio.gather(*senders, return_exceptions=True)
    return waits


async def test_others_wait_no_longer_for_invalid_bodies_than_for_valid_ones(commands: httpx.AsyncClient) -> None:
    """In turns: whatever else the machine does slows down both."""
    all_valid, all_invalid = cycle([VALID]), cycle([make() for make in ATTACKS.values()])
    valid: list[float] = []
    invalid: list[float] = []
    for _ in range(5):
        valid += await waits_beside(commands, all_valid)
        invalid += await waits_beside(commands, all_invalid)
    assert median(invalid) < 3 * median(valid)


@pytest.mark.parametrize("fields", [64, 65])
async def test_an_object_has_at_most_64_fields(commands: httpx.AsyncClient, fields: int) -> None:
    lines = [MUG] * 100 + [MUG | {f"unknown {number}": 1 for number in range(fields - len(MUG))}]
    answer = await commands.post("/orders", json=order_body(items=lines))
    [first, *_] = problem(answer, 422, "invalid-request")["errors"]
    assert first["code"] == ("unknown-field" if fields == 64 else "too-many-fields")
