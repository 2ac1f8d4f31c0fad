"""Whatever is sent, the answer is a problem document that says what to do, and the log stays as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from shared.eventstore import log as event_log
from tests.given_when_then import Orders, problem
from tests.orders import order_body

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}
MUG = {"product_id": "MUG", "quantity": 1, "unit_price": 1}


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_is_appended(orders: Orders) -> AsyncIterator[None]:
    before = await event_log.read_head(orders.connection)
    yield
    assert await event_log.read_head(orders.connection) == before
    assert (await orders.client.get("/readyz")).status_code == 200


def item(**changes: Any) -> dict[str, Any]:
    return order_body(items=[MUG, {**MUG, **changes}])


async def connected(orders: Orders) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(str(orders.client.base_url))
    return await asyncio.open_connection(url.hostname, url.port)


class TestBodyThatIsNotJson:
    @pytest.mark.parametrize(
        "content",
        [
            b"{",
            b'{"a"',
            b"nonsense",
            b"{'customer_id': 'a'}",
            b'{"customer_id": "a",}',
            b"\xff\xfe",
            b'{"customer_id": "\xff"}',
            b'{"customer_id": "\\ud800"}',  # half of a character
            b'{"customer_id": "\\udfff x"}',
            b'{"\\ud800": 1}',
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b'{"amount": ' + b"9" * 10_000 + b"}",
            b"\x00",
        ],
        ids=lambda content: repr(content[:20]),
    )
    async def test_is_malformed(self, orders: Orders, content: bytes) -> None:
        problem(await orders.client.post("/orders", content=content, headers=JSON), 400, "malformed-json")

    @pytest.mark.parametrize("content", [b"", b"null", b"[]", b"1", b'"text"', b"true"])
    async def test_object_is_invalid(self, orders: Orders, content: bytes) -> None:
        body = problem(await orders.client.post("/orders", content=content, headers=JSON), 422, "invalid-request")
        assert [error["pointer"] for error in body["errors"]] == ["#"]

    @pytest.mark.parametrize(
        "content_type",
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            None,
            "application/xml",
            "application/merge-patch+json",
        ],
    )
    async def test_by_its_content_type_is_refused(self, orders: Orders, content_type: str | None) -> None:
        headers = {"Content-Type": content_type} if content_type else {}
        content = json.dumps(order_body()).encode()
        body = problem(
            await orders.client.post("/orders", content=content, headers=headers), 415, "unsupported-media-type"
        )
        assert "application/json" in body["detail"]

    @pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
    async def test_content_type_may_be_spelt_differently(self, orders: Orders, content_type: str) -> None:
        answer = await orders.client.post("/orders", content=b"{}", headers={"Content-Type": content_type})
        problem(answer, 422, "invalid-request")


class TestBodyThatIsTooLarge:
    TWO_MB = b'{"customer_id": "' + b"a" * 2_000_000 + b'"}'

    async def test_by_its_announced_length_is_refused(self, orders: Orders) -> None:
        problem(await orders.client.post("/orders", content=self.TWO_MB, headers=JSON), 413, "body-too-large")

    async def test_without_an_announced_length_is_refused(self, orders: Orders) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(self.TWO_MB), 64_000):
                yield self.TWO_MB[start : start + 64_000]

        problem(await orders.client.post("/orders", content=chunks(), headers=JSON), 413, "body-too-large")

    async def test_is_refused_before_it_is_sent_to_a_client_that_asks_first(self, orders: Orders) -> None:
        reader, writer = await connected(orders)
        head = "Content-Type: application/json\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n"
        writer.write(f"POST /orders HTTP/1.1\r\nHost: a\r\n{head}\r\n".encode())
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 413 ")
        writer.close()

    @pytest.mark.parametrize(("size", "code"), [(512 * 1024, "invalid-request"), (512 * 1024 + 1, "body-too-large")])
    async def test_begins_after_512_kibibytes(self, orders: Orders, size: int, code: str) -> None:
        padding = b" " * (size - 2)
        answer = await orders.client.post("/orders", content=b"{" + padding + b"}", headers=JSON)
        problem(answer, 422 if code == "invalid-request" else 413, code)

    async def test_on_a_route_that_reads_no_body_does_no_harm(self, orders: Orders) -> None:
        path = "/orders/no-such-order/items/MUG"
        answer = await orders.client.request("DELETE", path, content=self.TWO_MB, headers=JSON)
        assert answer.status_code in (404, 413)
        problem(answer, answer.status_code, answer.json()["code"])


class TestValues:
    @pytest.mark.parametrize(
        ("body", "pointers"),
        [
            ({}, ["#/customer_id", "#/currency", "#/items", "#/shipping_address_id"]),
            (order_body(coupon="X"), ["#/coupon"]),
            (order_body(items=[{**MUG, "colour": "red"}]), ["#/items/0/colour"]),
            (order_body(items=[{}]), ["#/items/0/product_id", "#/items/0/quantity", "#/items/0/unit_price"]),
            (order_body(items=[]), ["#/items"]),
            (order_body(items={}), ["#/items"]),
            (order_body(items=[1]), ["#/items/0"]),
            (order_body(items=None), ["#/items"]),
            (order_body(customer_id=None), ["#/customer_id"]),
            (order_body(customer_id=17850), ["#/customer_id"]),
            ({**order_body(), "a/b~c": 1}, ["#/a~1b~0c"]),
        ],
        ids=lambda value: str(value)[:40],
    )
    async def test_that_are_missing_or_unknown_are_pointed_at(
        self, orders: Orders, body: dict[str, Any], pointers: list[str]
    ) -> None:
        answer = problem(await orders.client.post("/orders", json=body), 422, "invalid-request")
        assert [error["pointer"] for error in answer["errors"]] == pointers
        assert all(error["detail"] for error in answer["errors"])

    @pytest.mark.parametrize("field", ["order_id", "customer_id", "shipping_address_id"])
    @pytest.mark.parametrize("bad", ["", "a" * 65, "a b", "a/b", "ä", "a\n", "a\x00", " a", "a%20b", 7, True, []])
    async def test_that_are_no_ids_are_refused(self, orders: Orders, field: str, bad: Any) -> None:
        answer = await orders.client.post("/orders", content=json.dumps(order_body(**{field: bad})), headers=JSON)
        assert [error["pointer"] for error in problem(answer, 422, "invalid-request")["errors"]] == [f"#/{field}"]

    @pytest.mark.parametrize("bad", [".", ".."])
    async def test_that_no_address_can_hold_are_no_order_ids(self, orders: Orders, bad: str) -> None:
        """Clients and proxies take `/orders/..` for `/`: such an order could be placed and never be found again."""
        problem(await orders.client.post("/orders", json=order_body(order_id=bad)), 422, "invalid-request")
        problem(await orders.client.post("/orders", json=order_body(customer_id=bad)), 422, "invalid-request")
        problem(await orders.client.post("/orders", json=item(product_id=bad)), 422, "invalid-request")

    @pytest.mark.parametrize("bad", ["", " a", "a ", "a" * 65, "a/b", "a\t b", "ä", 7, None])
    async def test_that_are_no_product_ids_are_refused(self, orders: Orders, bad: Any) -> None:
        answer = await orders.client.post("/orders", json=item(product_id=bad))
        pointers = [error["pointer"] for error in problem(answer, 422, "invalid-request")["errors"]]
        assert pointers == ["#/items/1/product_id"]

    @pytest.mark.parametrize("bad", ["", "gbp", "GB", "GBPX", "ZZZ", "XXX", "£", " GBP", 826, None])
    async def test_that_are_no_currencies_are_refused(self, orders: Orders, bad: Any) -> None:
        answer = problem(await orders.client.post("/orders", json=order_body(currency=bad)), 422, "invalid-request")
        assert [error["pointer"] for error in answer["errors"]] == ["#/currency"]

    @pytest.mark.parametrize(
        ("field", "bad"),
        [
            *[("quantity", bad) for bad in ("0", "-1", "1000001", "true", "1.0", "1.5", '"1"', "null", "1e3", "NaN")],
            *[("unit_price", bad) for bad in ("-1", "1000000000001", "false", "0.5", '"0"', "null", "Infinity", "[]")],
            ("quantity", "9" * 4_000),
        ],
        ids=lambda value: value[:12],
    )
    async def test_that_are_no_numbers_of_the_kind_are_refused(self, orders: Orders, field: str, bad: str) -> None:
        content = json.dumps(item(**{field: "BAD"})).replace('"BAD"', bad)
        answer = await orders.client.post("/orders", content=content, headers=JSON)
        assert [error["pointer"] for error in problem(answer, 422, "invalid-request")["errors"]] == [
            f"#/items/1/{field}"
        ]

    @pytest.mark.parametrize("bad", ["", "a\x00b", "a\nb", "\x1f", "\x7f", "a" * 501, 7])
    async def test_that_are_no_texts_are_refused(self, orders: Orders, bad: Any) -> None:
        content = json.dumps(item(product_name=bad))
        answer = await orders.client.post("/orders", content=content, headers=JSON)
        pointers = [error["pointer"] for error in problem(answer, 422, "invalid-request")["errors"]]
        assert pointers == ["#/items/1/product_name"]

    @pytest.mark.parametrize("name", ["a" * 1_000, "a\x00b", "😀"])
    async def test_of_unknown_fields_with_strange_names_are_refused(self, orders: Orders, name: str) -> None:
        content = json.dumps({**order_body(), name: 1})
        answer = await orders.client.post("/orders", content=content, headers=JSON)
        assert len(problem(answer, 422, "invalid-request")["errors"]) == 1

    @pytest.mark.parametrize(
        "bad",
        [
            "",
            "yesterday",
            "2010-12-01",
            "2010-12-01T08:26:00",
            "2010-12-01 08:26:00Z",
            "2010-12-01T08:26Z",
            "2010-13-01T08:26:00Z",
            "2010-02-30T08:26:00Z",
            "2010-12-01T24:00:00Z",
            "2010-12-01T08:26:00+25:00",
            "2010-12-01T08:26:00+0100",
            "2010-12-01T08:26:00.1234567890Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+10:00",
            "0001-01-01T00:00:00Z",
            "0001-01-01T01:00:00.0000009+01:00",
            "2010-W48-3T08:26:00Z",
            "٢٠١٠-12-01T08:26:00Z",
            1291191960,
            1291191960.5,
            True,
            [],
        ],
    )
    async def test_that_are_no_times_are_refused(self, orders: Orders, bad: Any) -> None:
        answer = problem(await orders.client.post("/orders", json=order_body(occurred_at=bad)), 422, "invalid-request")
        assert [error["pointer"] for error in answer["errors"]] == ["#/occurred_at"]

    @pytest.mark.parametrize("ahead", ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
    async def test_that_have_not_come_yet_are_refused(self, orders: Orders, ahead: str) -> None:
        answer = await orders.client.post("/orders", json=order_body(occurred_at=ahead))
        assert problem(answer, 422, "occurred-in-the-future")["occurred_at"].startswith(ahead[:10])

    async def test_wrong_in_many_places_are_listed_up_to_twenty(self, orders: Orders) -> None:
        wrong = {**MUG, "quantity": 0, "product_id": ""}
        body = order_body(items=[MUG, wrong, MUG, MUG, *[wrong] * 1_000], currency="XXX")
        answer = problem(await orders.client.post("/orders", json=body), 422, "invalid-request")
        lines = [1, *range(4, 13)]
        assert [error["pointer"] for error in answer["errors"]] == [
            "#/currency",
            *[f"#/items/{line}/{field}" for line in lines for field in ("product_id", "quantity")],
        ][:20]
        assert "There may be more" in answer["detail"]

    async def test_wrong_in_some_lines_are_all_listed(self, orders: Orders) -> None:
        items = [{**MUG, "quantity": number % 300} for number in range(1, 1_000)]
        answer = problem(await orders.client.post("/orders", json=order_body(items=items)), 422, "invalid-request")
        assert [error["pointer"] for error in answer["errors"]] == [f"#/items/{n}/quantity" for n in (299, 599, 899)]
        assert answer["detail"] == "3 values are not acceptable; see errors."

    async def test_sent_are_not_sent_back(self, orders: Orders) -> None:
        answer = await orders.client.post("/orders", json=order_body(customer_id="secret secret"))
        assert "secret" not in answer.text

    @pytest.mark.parametrize(
        ("path", "pointer"),
        [
            ("/orders/a%20b/delivery", "path/order_id"),
            ("/orders/%C3%A4/delivery", "path/order_id"),
            ("/orders/%FF/delivery", "path/order_id"),
            ("/orders/a%00/delivery", "path/order_id"),
            ("/orders/a%0A/delivery", "path/order_id"),
            (f"/orders/{'a' * 65}/delivery", "path/order_id"),
        ],
    )
    async def test_in_the_path_are_checked_too(self, orders: Orders, path: str, pointer: str) -> None:
        answer = problem(await orders.client.post(path, json={}), 422, "invalid-request")
        assert [error["pointer"] for error in answer["errors"]] == [pointer]

    async def test_in_path_and_body_are_pointed_at_together(self, orders: Orders) -> None:
        answer = problem(await orders.client.post("/orders/a%20b/payment", json={}), 422, "invalid-request")
        pointers = [error["pointer"] for error in answer["errors"]]
        assert pointers == ["path/order_id", "#/payment_reference", "#/amount"]


class TestHeaders:
    @pytest.mark.parametrize("key", ["", "a b", "é", "a" * 256, "a\tb"])
    async def test_that_hold_no_idempotency_key_are_refused(self, orders: Orders, key: str) -> None:
        headers = [(b"Idempotency-Key", key.encode())]
        answer = await orders.client.post("/orders", json=order_body(), headers=headers)
        assert problem(answer, 400, "malformed-header")["header"] == "Idempotency-Key"


class TestRoutes:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/nowhere"),
            ("POST", "/orders/"),
            ("POST", "/orders/1/nowhere"),
            ("POST", "/nowhere//orders"),
            ("GET", "/orders/1"),
            ("GET", "/%F0%9F%98%80?q=%FF#x"),
        ],
    )
    async def test_that_are_not_there(self, orders: Orders, method: str, path: str) -> None:
        answer = await orders.client.request(method, path)
        assert problem(answer, 404, "no-such-route")["instance"].startswith("/")

    async def test_that_are_reads_are_pointed_to_the_query_service(self, orders: Orders) -> None:
        for path in ("/orders/1", "/orders"):
            assert (await orders.client.get(path)).json()["detail"].endswith("Reads are for the query service.")
        assert "query service" not in (await orders.client.post("/nowhere")).json()["detail"]

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("GET", "/orders", "POST"),
            ("PUT", "/orders", "POST"),
            ("GET", "/orders/1/items", "POST"),
            ("POST", "/orders/1/shipping-address", "PUT"),
            ("GET", "/orders/1/items/MUG", "DELETE"),
            ("DELETE", "/livez", "GET, HEAD"),
            ("OPTIONS", "/orders", "POST"),
            ("POST", "//orders", "GET, HEAD"),
        ],
    )
    async def test_that_do_not_take_the_method(self, orders: Orders, method: str, path: str, allowed: str) -> None:
        answer = await orders.client.request(method, path)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /nowhere?\xff\xfe HTTP/1.1",
        b"GET /\xff\xfe HTTP/1.1",
        b"GET /%ff%fe?a=%ff HTTP/1.1",
        b"GET /a\\b HTTP/1.1",
        b"GET http://[bad/orders HTTP/1.1",
        b"GET //[/ HTTP/1.1",
    ],
)
@pytest.mark.parametrize("host", [b"127.0.0.1", b"[", b"a@b:c", b"\xff", b""])
async def test_bytes_that_are_no_address_are_a_client_error(orders: Orders, request_line: bytes, host: bytes) -> None:
    reader, writer = await connected(orders)
    writer.write(request_line + b"\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    assert answer.split(b" ")[1] in (b"400", b"404"), answer


async def test_a_client_that_leaves_in_the_middle_of_its_request_harms_nobody(orders: Orders) -> None:
    _, writer = await connected(orders)
    writer.write(b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
