"""A body that is read at once means what it means by FastAPI's way, which reads those that are refused."""

from __future__ import annotations

import json

from hypothesis import example
from hypothesis import given as for_all
from hypothesis import strategies as st
from pydantic import ValidationError

from command_service.api.bodies import PlaceOrderBody
from tests.orders import order_body

VALID = [(name, json.dumps(value)) for name, value in order_body().items()]
KEYS = [*PlaceOrderBody.model_fields, "customer\\u005fid", "CUSTOMER_ID", "other"]
SPELLINGS = [
    *(value for _, value in VALID),
    *("null", "true", "1", "1.0", "1e0", "-0", "NaN", "Infinity", "9" * 30, "[]", "{}", '""', '"GB\\u0050"', '"gbp"'),
    *('"\\ud83d\\ude00"', '"\\ud800"', '"\\u0000"', '" a "', '"2026-01-31T14:30:00Z"', '"2026-01-31T14:30:00+01:00"'),
    *('"2026-01-31"', "1769869800", '[{"product_id":"A","quantity":1,"unit_price":1,"quantity":2}]'),
    *('[{"product_id":"A","quantity":1.0,"unit_price":1}]', '[{"product_id":"A","quantity":true,"unit_price":1}]'),
]
pairs = st.tuples(st.sampled_from(KEYS), st.sampled_from(SPELLINGS) | st.text().map(json.dumps))


@for_all(st.lists(pairs, max_size=4), st.lists(pairs, max_size=4), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
@example([], [("currency", '"EUR"')], "utf-8")
@example([("items", "[]")], [], "utf-8")
def test_it_means_the_same(before: list[tuple[str, str]], after: list[tuple[str, str]], encoding: str) -> None:
    fields = ",".join(f'"{name}":{value}' for name, value in [*before, *VALID, *after])
    body = f"{{{fields}}}".encode(encoding)
    try:
        read = PlaceOrderBody.model_validate_json(body)
    except ValidationError:
        return
    assert read == PlaceOrderBody.model_validate(json.loads(body))


def test_an_ordinary_body_is_read_at_once() -> None:
    assert PlaceOrderBody.model_validate_json(json.dumps(order_body())).customer_id == order_body()["customer_id"]
