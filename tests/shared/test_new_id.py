"""New ids are ordinary UUIDs of version 7."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec

from shared.new_id import new_id


def test_they_are_of_version_7_and_sort_by_when_they_were_made() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert {(made.version, made.variant) for made in ids} == {(7, UUID(int=0x8 << 60).variant)}
    assert ids == sorted(set(ids))
    made_at = datetime.fromtimestamp((ids[-1].int >> 80) / 1000, UTC)
    assert abs(datetime.now(UTC) - made_at) < timedelta(minutes=1)


def test_they_equal_the_standard_ones_that_say_the_same() -> None:
    made = new_id()
    standard = UUID(str(made))
    assert isinstance(made, UUID)
    assert made == standard
    assert {made: 1}[standard] == 1
    assert msgspec.json.encode(made) == msgspec.json.encode(standard)


async def test_they_come_back_from_the_log_as_they_were(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    made = new_id()
    assert await connection.fetchval("select $1::uuid", made) == made
    assert await connection.fetchval("select $1::uuid::text", made) == str(made)
