"""A body that is read at once means what it means by FastAPI's way, which reads those that are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example
from hypothesis import given as for_all
from hypothesis import strategies as st
from pydantic import ValidationError

from command_service.api.orders import PlaceOrderBody
from command_service.domain.order import MAX_LINES
from shared.aggregates.order import OrderLine
from tests.orders import order_body

VALID = [(name, json.dumps(value)) for name, value in order_body().items()]
KEYS = [*PlaceOrderBody.model_fields, "customer\\u005fid", "CUSTOMER_ID", "other"]
SPELLINGS = [
    *(value for _, value in VALID),
    *("null", "true", "1", "1.0", "1e0", "-0", "NaN", "Infinity", "9" * 30, "[]", "{}", '""', '"GB\\u0050"', '"gbp"'),
    *('"\\ud83d\\ude00"', '"\\ud800"', '"\\u0000"', '" a "', '"2026-01-31T14:30:00Z"', '"2026-01-31T14:30:00+01:00"'),
    *('"2026-01-31"', "1769869800", '[{"product_id":"A","quantity":1,"unit_price":1,"quantity":2}]'),
    *('[{"product_id":"A","quantity":1.0,"unit_price":1}]', '[{"product_id":"A","quantity":true,"unit_price":1}]'),
    *('"2026-01-31T14:30:00.1234567Z"', '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999Z"'),
]
spellings = st.sampled_from(SPELLINGS) | st.text().map(json.dumps)
pairs = st.tuples(st.sampled_from(KEYS), spellings)

LINE = [("product_id", '"85123A"'), ("product_name", '"HEART"'), ("quantity", "6"), ("unit_price", "255")]
LINE_OBJECT: dict[str, Any] = {name: json.loads(value) for name, value in LINE}
LINE_KEYS = [*(name for name, _ in LINE), "product\\u005fid", "PRODUCT_ID", "other"]
LINE_SPELLINGS = [
    *("0", "-1", "1000000", "1000001", "1000000000", "1000000001", "01", "1 ", "0.5"),
    *('"BANK CHARGES"', '" A"', '"A "', '".."', '"A.B-C_"', '"A\\n"', '"\\u0661"', '"caf\\u00e9"', '"a\\u00a0b"'),
    *(
        '"a\\u0085b"',
        '"a\\u200bb"',
        '"\\ue000"',
        '"a\\u007f"',
        '"tab\\tin it"',
        '"raw\ttab"',
        '"\\udc00\\ud800"',
        '"\\x"',
    ),
    *(json.dumps("x" * length) for length in (64, 65, 500, 501)),
    *(json.dumps("\U0001f600" * length, ensure_ascii=False) for length in (64, 500, 501)),
]
line_spellings = st.sampled_from(LINE_SPELLINGS) | spellings
lines = st.lists(st.tuples(st.sampled_from(LINE_KEYS), line_spellings), max_size=3).map(lambda more: [*LINE, *more])


def spelled(fields: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields) + "}"


def both(body: bytes) -> tuple[PlaceOrderBody, PlaceOrderBody] | None:
    """The body as it is read, and by FastAPI's way; None where it is refused, which FastAPI's way then decides on."""
    try:
        read = PlaceOrderBody.read(body)
    except ValidationError:
        return None
    return read, PlaceOrderBody.model_validate(json.loads(body))


@for_all(st.lists(pairs, max_size=4), st.lists(pairs, max_size=4), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
@example([], [("currency", '"EUR"')], "utf-8")
@example([("items", "[]")], [], "utf-8")
def test_it_means_the_same(before: list[tuple[str, str]], after: list[tuple[str, str]], encoding: str) -> None:
    if read := both(spelled([*before, *VALID, *after]).encode(encoding)):
        assert read[0] == read[1]


@for_all(st.lists(lines, max_size=3))
@example([[*LINE, ("product_id", '"BANK CHARGES"')]])
@example([[*LINE, ("product_name", '"a\\u00a0b"')]])
def test_its_lines_mean_the_same(items: list[list[tuple[str, str]]]) -> None:
    sent = "[" + ",".join(map(spelled, items)) + "]"
    if read := both(spelled([*VALID, ("items", sent)]).encode()):
        assert read[0] == read[1]
        assert read[0].model_dump_json() == read[1].model_dump_json()


@pytest.mark.parametrize("spelling", LINE_SPELLINGS)
@pytest.mark.parametrize("name", LINE_KEYS)
def test_a_line_is_refused_at_once_when_it_is_by_fastapis_way(name: str, spelling: str) -> None:
    body = spelled([*VALID, ("items", f"[{spelled([*LINE, (name, spelling)])}]")]).encode()
    if both(body) is None:
        with pytest.raises(ValueError, match=r".+"):  # of JSON, of its encoding, or of what it says
            PlaceOrderBody.model_validate(json.loads(body))


@pytest.mark.parametrize("count", [0, 1, MAX_LINES, MAX_LINES + 1])
def test_an_order_has_one_line_at_least_and_as_many_as_are_allowed_at_most(count: int) -> None:
    read = both(json.dumps(order_body(items=[LINE_OBJECT] * count)).encode())
    assert (read is not None) == (1 <= count <= MAX_LINES)


def test_an_ordinary_body_is_read_at_once() -> None:
    body = PlaceOrderBody.read(json.dumps(order_body(items=[LINE_OBJECT])).encode())
    assert body.customer_id == order_body()["customer_id"]
    assert body.items == (OrderLine("85123A", 6, 255, "HEART"),)


def test_what_makes_two_requests_the_same_is_what_it_was_when_their_keys_were_kept() -> None:
    body = PlaceOrderBody.read(json.dumps(order_body(items=[LINE_OBJECT], occurred_at="2026-01-31T14:30:00Z")).encode())
    assert body.model_dump_json() == (
        '{"occurred_at":"2026-01-31T14:30:00Z","order_id":null,"customer_id":"alice","currency":"GBP","items":['
        '{"product_id":"85123A","product_name":"HEART","quantity":6,"unit_price":255}],"shipping_address_id":"home"}'
    )
