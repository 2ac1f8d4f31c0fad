"""Routes match what was sent, and take nothing that they do not know."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from time import monotonic

import httpx
import pytest

from tests.documented import read_document
from tests.given_when_then import problem
from tests.orders import new_order_id, order_body
from tests.running import eventually

_PARAMETER = re.compile(r"\{\w+\}")


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def commands(shared_services: tuple[httpx.AsyncClient, httpx.AsyncClient]) -> httpx.AsyncClient:
    return shared_services[0]


@pytest.fixture
def queries(shared_services: tuple[httpx.AsyncClient, httpx.AsyncClient]) -> httpx.AsyncClient:
    return shared_services[1]


def operations(service: str) -> Iterator[tuple[str, str, list[str]]]:
    """(method, path, names of its query parameters) of each route."""
    for path, methods in read_document(service)["paths"].items():
        for method, operation in methods.items():
            parameters = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
            yield method.upper(), _PARAMETER.sub("42", path), parameters


async def send(service: httpx.AsyncClient, method: str, path: str, query: str) -> httpx.Response:
    content = b"{}" if method in ("POST", "PUT") else None
    headers = {"Content-Type": "application/json"}
    return await service.request(method, f"{path}?{query}", content=content, headers=headers)


@pytest.mark.promise("requests", "A query parameter that is unknown or comes twice is refused with 400 on every route")
async def test_a_query_parameter_that_is_unknown_or_comes_twice_is_refused(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient
) -> None:
    for name, service in (("command", commands), ("query", queries)):
        for method, path, parameters in operations(name):
            refusals = {
                "no_such": "no_such=1",
                "order_id": "order_id=1",
                "": "=1",
                **{parameter: f"{parameter}=1&{parameter}=1" for parameter in parameters},
            }
            for parameter, query in refusals.items():
                answer = await send(service, method, path, query)
                assert problem(answer, 400, "malformed-query")["parameter"] == parameter, (method, path, query)


FULL = {  # of a request line of 8 KiB
    "distinct": "&".join(f"{number:x}" for number in range(1_900)),
    "short": "&".join("abcdefghij" * 270),
    "one": "a" * 7_900,
    "encoded": "%F0%9F%98%80" * 650,
    "empty": "&" * 7_900 + "a",
    "separators": ";" * 7_900,
    "repeated": "&".join(["limit=1"] * 980),
}


@pytest.mark.parametrize("content", FULL)
@pytest.mark.promise("requests", "A request line full of unknown parameters is refused at once, with a short answer")
async def test_a_request_line_full_of_parameters_is_refused_at_once(
    commands: httpx.AsyncClient, queries: httpx.AsyncClient, content: str
) -> None:
    for name, service in (("command", commands), ("query", queries)):
        for method, path, _ in operations(name):
            started = monotonic()
            answer = await send(service, method, path, FULL[content])
            took = monotonic() - started
            problem(answer, 400, "malformed-query")
            assert len(answer.content) < 2_000
            assert took < 0.5


async def test_an_empty_query_string_is_none(commands: httpx.AsyncClient, queries: httpx.AsyncClient) -> None:
    for service in (commands, queries):
        for query in ("", "&"):
            assert (await service.get(f"/livez?{query}")).status_code == 200


class TestAPath:
    async def test_is_matched_as_it_was_sent(self, commands: httpx.AsyncClient, queries: httpx.AsyncClient) -> None:
        for path in ("/%6detrics", "/%6Detrics", "/livez%2F", "/%2Flivez", "/orders%2F42"):
            for service in (commands, queries):
                answer = await service.get(path)
                assert problem(answer, 404, "no-such-route")["instance"] == path
        problem(await commands.post("/orders%2F42/delivery", json={}), 404, "no-such-route")

    async def test_has_parts_that_are_decoded(self, commands: httpx.AsyncClient) -> None:
        mug = {"product_id": "RED MUG", "quantity": 1, "unit_price": 1}
        placed = await commands.post(
            "/orders", json=order_body(order_id="a-b", items=[mug, {**mug, "product_id": "PEN"}])
        )
        assert placed.status_code == 201
        assert (await commands.delete("/orders/a%2Db/items/RED%20MUG")).status_code == 200

    @pytest.mark.parametrize("order_id", ["a%2Fb", "a%2fb", "%2E%2E", "a%00", "%252F"])
    async def test_has_parts_that_cannot_hold_a_separator(self, commands: httpx.AsyncClient, order_id: str) -> None:
        answer = await commands.post(f"/orders/{order_id}/delivery", json={})
        assert problem(answer, 422, "invalid-request")["errors"][0]["pointer"] == "path/order_id"


class TestABody:
    BODY = json.dumps(order_body()).encode()

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (gzip.compress(BODY), {"Content-Encoding": "gzip"}),
            (BODY, {"Content-Encoding": "gzip"}),
            (BODY, {"Content-Encoding": "br, identity"}),
            (BODY.decode().encode("utf-16"), {"Content-Type": "application/json; charset=utf-16"}),
            (BODY, {"Content-Type": 'application/json; charset="UTF-16LE"'}),
            (BODY, {"Content-Type": "application/json;a=b; charset=latin-1"}),
        ],
    )
    async def test_is_utf_8_without_compression(
        self, commands: httpx.AsyncClient, body: bytes, headers: dict[str, str]
    ) -> None:
        given = {"Content-Type": "application/json", **headers}
        problem(await commands.post("/orders", content=body, headers=given), 415, "unsupported-media-type")

    @pytest.mark.parametrize(
        "headers",
        [
            {"Content-Encoding": "identity"},
            {"Content-Type": "application/json; charset=UTF-8"},
            {"Content-Type": 'application/json;charset="utf-8"'},
        ],
    )
    async def test_may_say_that_it_is(self, commands: httpx.AsyncClient, headers: dict[str, str]) -> None:
        given = {"Content-Type": "application/json", **headers}
        assert (await commands.post("/orders", content=self.BODY, headers=given)).status_code == 201

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    async def test_in_another_encoding_is_malformed(self, commands: httpx.AsyncClient, encoding: str) -> None:
        body = self.BODY.decode().encode(encoding)
        answer = await commands.post("/orders", content=body, headers={"Content-Type": "application/json"})
        problem(answer, 400, "malformed-json")

    async def test_of_a_command_that_has_none_changes_nothing(self, commands: httpx.AsyncClient) -> None:
        order_id = new_order_id()
        items = [{"product_id": product, "quantity": 1, "unit_price": 1} for product in ("MUG", "PEN")]
        await commands.post("/orders", json=order_body(order_id=order_id, items=items))
        refused = await commands.request("DELETE", f"/orders/{order_id}/items/MUG", json={})
        problem(refused, 400, "unexpected-body")
        removed = await commands.delete(f"/orders/{order_id}/items/MUG")
        assert (removed.status_code, removed.json()["version"]) == (200, 2)


async def test_an_if_match_that_comes_twice_changes_nothing(commands: httpx.AsyncClient) -> None:
    order_id = new_order_id()
    await commands.post("/orders", json=order_body(order_id=order_id))
    for versions in (('"7"', '"1"'), ('"1"', '"7"'), ('"1"', '"1"')):
        headers = [("If-Match", version) for version in versions]
        answer = await commands.post(f"/orders/{order_id}/cancellation", json={"reason": "r"}, headers=headers)
        assert problem(answer, 400, "malformed-header")["header"] == "If-Match"
    weak = await commands.post(f"/orders/{order_id}/cancellation", json={"reason": "r"}, headers={"If-Match": 'W/"1"'})
    assert weak.status_code == 200


async def test_lines_of_if_none_match_are_one_list(commands: httpx.AsyncClient, queries: httpx.AsyncClient) -> None:
    history = f"/orders/{(order_id := new_order_id())}/history"
    placed = await commands.post("/orders", json=order_body(order_id=order_id))
    token = placed.headers["consistency-token"]
    await eventually(lambda: _has(queries, history, token))
    current = (await queries.get(history)).headers["etag"]
    for tags in (('"other"', current), (current, '"other"')):
        headers = [("If-None-Match", tag) for tag in tags]
        assert (await queries.get(history, headers=headers)).status_code == 304


async def _has(queries: httpx.AsyncClient, history: str, token: str) -> bool:
    answer = await queries.get(history, headers={"Consistency-Token": token})
    return answer.status_code == 200
