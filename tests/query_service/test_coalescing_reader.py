"""Coalescing, seen from Redis: how many scripts ran for how many reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from query_service.coalescing_reader import MAX_COST, MAX_QUEUED, CoalescingReader, TooManyReads
from shared.read_models.keys import PartitionKeys, sort_key
from tests.query_service.redis_read_model import NOON, scripts_run, write

KEYS = PartitionKeys("orders")


@pytest.fixture
async def reader(redis: Redis) -> AsyncIterator[CoalescingReader]:
    await write(redis, KEYS, 9, {str(number): f"document {number}" for number in range(5)})
    reader = CoalescingReader(redis, "orders")
    yield reader
    await reader.close()


async def test_reads_of_one_turn_travel_together_and_each_gets_its_own(reader: CoalescingReader, redis: Redis) -> None:
    await reader.document("0")  # the script is loaded
    before = await scripts_run(redis)

    reads = [reader.document(str(number % 5)) for number in range(100)]
    pages = [reader.page("all", None, 2), reader.page("all", sort_key(NOON, "3"), 10), reader.page("none", None, 1)]
    documents = [reading.value for reading in await asyncio.gather(*reads)]
    newest, following, none = [reading.value for reading in await asyncio.gather(*pages)]

    assert await scripts_run(redis) - before == 1
    assert [document.body for document in documents] == [b"document %d" % (n % 5) for n in range(100)]
    assert newest.summaries == [b"document 4", b"document 3"]
    assert newest.next_entry == sort_key(NOON, "3").encode()
    assert following.summaries == [b"document 2", b"document 1", b"document 0"]
    assert following.next_entry is None
    assert (none.summaries, none.next_entry) == ([], None)


@pytest.mark.parametrize("partitions", [1, 2])
async def test_an_answer_of_redis_is_bounded_in_bytes(redis: Redis, partitions: int) -> None:
    large = {str(number): f"{number:02}" * 500_000 for number in range(20)}
    for keys in KEYS.of(1).each(partitions):
        await write(redis, keys, 9, large)
    await redis.hset(KEYS.generations, "partitions:1", partitions)
    reader = CoalescingReader(redis, "orders")
    await reader.document("none")
    before = await scripts_run(redis)

    documents = await asyncio.gather(*(reader.document(name) for name in large))

    assert [document.value.body for document in documents] == [body.encode() for body in large.values()]
    assert await scripts_run(redis) - before >= 3, "nine documents use up the bytes of one answer"
    await reader.close()


async def test_reads_that_come_while_one_is_under_way_travel_together_after_it(
    reader: CoalescingReader, redis: Redis
) -> None:
    await reader.document("0")
    before = await scripts_run(redis)

    first = reader.document("1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [reader.document("2") for _ in range(10)]
    await asyncio.gather(first, *others)

    assert await scripts_run(redis) - before == 2


async def test_one_round_trip_never_keeps_redis_busy_for_long(reader: CoalescingReader, redis: Redis) -> None:
    await reader.document("0")
    before = await scripts_run(redis)

    await asyncio.gather(*(reader.page("all", None, 100) for _ in range(3 * MAX_COST // 100)))

    assert await scripts_run(redis) - before == 3


async def test_every_result_carries_the_position_that_it_shows(reader: CoalescingReader) -> None:
    reading = await reader.document("not there")

    assert reading.value.body is None
    assert reading.at is not None
    assert (reading.at.checkpoint.position, reading.at.token) == (9, "0" * 32 + "-9")


async def test_without_a_read_model_a_result_has_no_position(reader: CoalescingReader, redis: Redis) -> None:
    await redis.delete(KEYS.meta)

    assert (await reader.document("0")).at is None


async def test_a_cancelled_read_does_not_delay_the_others(reader: CoalescingReader) -> None:
    cancelled = reader.document("0")
    cancelled.cancel()

    assert (await reader.document("1")).value.body == b"document 1"


@pytest.mark.bound("query", "reads waiting for Redis; queries waiting for a token")
async def test_the_queue_is_bounded(reader: CoalescingReader) -> None:
    reads = [reader.document("0") for _ in range(MAX_QUEUED)]

    with pytest.raises(TooManyReads):
        reader.document("0")

    await asyncio.gather(*reads)


@pytest.mark.promise("memory", "A round trip to Redis brings a bounded number of bytes, however large documents are")
@pytest.mark.bound("query", "documents read from Redis in one round trip")
async def test_large_documents_are_read_in_several_round_trips(redis: Redis) -> None:
    bodies = {str(number): f"{number}" + "x" * 2**20 for number in range(10)}
    await write(redis, KEYS, 9, bodies)
    reader = CoalescingReader(redis, "orders")
    before = await scripts_run(redis)
    found = await asyncio.gather(*(reader.document(name) for name in bodies))
    assert [document.value.body for document in found] == [body.encode() for body in bodies.values()]
    assert await scripts_run(redis) - before >= 3
    await reader.close()
