"""Twice as long an input takes at most twice the time to parse, whatever it holds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import product
from timeit import repeat

import pytest
from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from command_service.api.metadata import read_metadata
from command_service.decision import CommandMetadata
from query_service.api.requests import decode_cursor, matches, preferred_wait
from shared.errors import Malformed
from shared.eventstore.token import ConsistencyToken
from shared.http.fields import Id, Rfc3339
from shared.read_models.keys import is_index_entry

LENGTH = 2_000
LINEAR = 3  # times as long for twice the length: 2 and noise; 4 where it is quadratic

UNITS = [" ", "\t", '"', ",", '"a"', '"a",', 'W/"', "=", "wait=", "9", "a", ".", "-", ";", "%20", "\\"]
PREFIXES = ["", '"a"', 'W/"a', "wait=1", "2026-01-31T14:30:00.1", "a" * 32 + "-1"]


def header(name: str) -> Callable[[str], CommandMetadata]:
    def read(value: str) -> CommandMetadata:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/orders",
            "headers": [(name.encode(), value.encode())],
            "correlation_id": "c",
            "query_string": b"",
            "server": ("a", 80),
            "scheme": "http",
        }
        return read_metadata(Request(scope), None)

    return read


PARSERS: dict[str, Callable[[str], object]] = {
    "If-None-Match": lambda value: matches(value, '"b"'),
    "Prefer": preferred_wait,
    "cursor": decode_cursor,
    "index entry": is_index_entry,
    "Consistency-Token": ConsistencyToken.decode,
    "id": TypeAdapter(Id).validate_python,
    "time": TypeAdapter(Rfc3339).validate_python,
    **{name: header(name.lower()) for name in ("Idempotency-Key", "If-Match", "X-Causation-ID", "traceparent")},
}


def seconds(parse: Callable[[str], object], value: str) -> float:
    def once() -> None:
        with suppress(Malformed, ValidationError):
            parse(value)

    return min(repeat(once, number=2, repeat=5))


@pytest.mark.parametrize("name", PARSERS)
def test_parsing_takes_linear_time(name: str) -> None:
    parse = PARSERS[name]
    for prefix, unit in product(PREFIXES, UNITS):
        short, long = (prefix + unit * (length // len(unit)) + "x" for length in (LENGTH, 2 * LENGTH))
        if seconds(parse, long) > LINEAR * seconds(parse, short):  # once more: another process may have interrupted
            assert seconds(parse, long) <= LINEAR * seconds(parse, short), (prefix, unit)


def test_white_space_between_entity_tags_is_allowed() -> None:
    assert matches('"a" \t , W/"b" ', '"b"')
    assert not matches('"a" "b" x', '"a"')


@pytest.mark.parametrize("length", [8_193, 100_000])
def test_a_header_beyond_its_bound_is_not_parsed(length: int) -> None:
    assert not matches('"b",' + " " * length, '"b"')
    assert preferred_wait("wait=1," + " " * length) is None


def test_a_quoted_idempotency_key_is_the_key_inside_the_quotes() -> None:
    read = header("idempotency-key")
    assert read('"b6f1"').idempotency_key == read("b6f1").idempotency_key == "b6f1"


def test_an_entity_tag_that_a_proxy_made_weak_names_its_version() -> None:
    read = header("if-match")
    assert read('W/"3"').expected_version == read('"3"').expected_version == 3
