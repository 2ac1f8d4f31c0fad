"""Flat arrays arrive as the sequences that they are made of, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from shared.eventstore.asyncpg_arrays import FlatArray, array_or_null

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

texts = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))


@given(texts)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the connection: it is asked, never changed
async def test_it_arrives_whole_however_often_it_is_sent(connection: Connection, elements: list[str | None]) -> None:
    for array in (FlatArray(elements), FlatArray(tuple(elements))):
        for _ in range(2):
            assert await connection.fetchval("select $1::text[]", array) == elements


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("integer", [1, None, -(2**31)]),
        ("bytea", [b"", None, b"\x00\xff"]),
        ("uuid", [uuid7(), None]),
        ("timestamptz", [datetime(2026, 1, 31, tzinfo=UTC), None]),
    ],
)
async def test_it_holds_what_a_list_may_hold(connection: Connection, name: str, elements: list[Any]) -> None:
    assert await connection.fetchval(f"select $1::{name}[]", FlatArray(elements)) == elements


async def test_it_can_be_sent_again_after_an_element_was_refused(connection: Connection) -> None:
    for array in (FlatArray(["one", 2]), FlatArray([b"1"])):
        for _ in range(2):
            with pytest.raises(asyncpg.DataError):
                await connection.fetchval("select $1::text[]", array)


async def test_the_server_refuses_an_array_that_is_shorter_than_it_says(connection: Connection) -> None:
    """So it would be, if asyncpg took the elements from the first pass."""

    class Short(FlatArray):
        def __iter__(self) -> Iterator[object]:
            return iter(())

    with pytest.raises(asyncpg.PostgresError, match="insufficient data"):
        await connection.fetchval("select $1::text[]", Short(["one", "two"]))


async def test_nothing_but_nulls_is_null(connection: Connection) -> None:
    arrays = [array_or_null(elements) for elements in (["a", "b"], [None, None], [None, "c"])]
    rows = await connection.fetch("select * from unnest($1::text[], $2::text[], $3::text[])", *arrays)
    assert arrays[1] is None
    assert [tuple(row) for row in rows] == [("a", None, None), ("b", None, "c")]
