"""Reads that the client-side cache answers until Redis invalidates them, counted by the scripts that Redis ran."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from math import inf

import httpx
import pytest
from redis.asyncio import Redis

from query_service import coalescing_reader as reading
from query_service import tracking_connection
from query_service.coalescing_reader import CoalescingReader
from query_service.read_result import ReadModelUnavailable
from shared.eventstore.token import ConsistencyToken
from shared.read_models.keys import PartitionKeys
from tests.faults.proxy import FaultProxy
from tests.faults.shop import at_port, port_of
from tests.orders import paid, placed
from tests.query_service import redis_read_model
from tests.query_service.reads import get, token_now
from tests.query_service.redis_read_model import scripts_run
from tests.recording import Recorder
from tests.running import eventually

KEYS = PartitionKeys("orders")
IDS = [str(number) for number in range(20)]


async def write(redis: Redis, position: int, *ids: str, keys: PartitionKeys = KEYS) -> None:
    """Documents whose body names their generation and position."""
    await redis_read_model.write(redis, keys, position, dict.fromkeys(ids, f"{keys.generation}: {position}"))


@pytest.fixture(autouse=True)
async def filled(redis: Redis) -> None:
    await write(redis, 1, *IDS)


@pytest.fixture
async def reader(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CoalescingReader]:
    """A reader that trusts its connection for ever, so that no test depends on its speed."""
    monkeypatch.setattr(reading, "TRUST_SECONDS", inf)
    reader = CoalescingReader(redis, "orders", 1_000_000)
    yield reader
    await reader.close()


async def body(reader: CoalescingReader, document_id: str = "0") -> bytes | None:
    return (await reader.document(document_id)).value.body


async def shows(reader: CoalescingReader, expected: bytes, document_id: str = "0") -> bool:
    return await body(reader, document_id) == expected


async def asks(reader: CoalescingReader, redis: Redis, document_id: str = "0") -> bool:
    """Whether a read of that document goes to Redis."""
    before = await scripts_run(redis)
    await reader.document(document_id)
    return await scripts_run(redis) > before


async def commands_run(redis: Redis, name: str) -> int:
    return int((await redis.info("commandstats")).get(f"cmdstat_{name}", {"calls": 0})["calls"])


async def has_run(redis: Redis, name: str, times: int) -> bool:
    return await commands_run(redis, name) >= times


async def test_a_document_that_was_read_before_costs_no_round_trip(reader: CoalescingReader, redis: Redis) -> None:
    assert await asks(reader, redis)
    assert not await asks(reader, redis)
    assert await asks(reader, redis, "1")
    assert not await asks(reader, redis, "0")


async def test_a_missing_document_is_cached_until_it_exists(reader: CoalescingReader, redis: Redis) -> None:
    assert await body(reader, "new") is None
    assert not await asks(reader, redis, "new")

    await write(redis, 2, "new")

    await eventually(lambda: shows(reader, b"1: 2", "new"))


async def test_a_change_invalidates_the_document(reader: CoalescingReader, redis: Redis) -> None:
    assert await body(reader) == b"1: 1"

    await write(redis, 2, "0")

    await eventually(lambda: shows(reader, b"1: 2"))


async def test_a_new_checkpoint_invalidates_the_old_one_and_unchanged_documents_count_as_of_the_new_one(
    reader: CoalescingReader, redis: Redis
) -> None:
    await asyncio.gather(*map(reader.document, IDS))
    await write(redis, 2, "0")

    async def is_at_2() -> bool:
        at = (await reader.document("1")).at
        return at is not None and at.checkpoint.position == 2

    await eventually(is_at_2)
    before = await scripts_run(redis)
    reading = await reader.document("2")

    assert (reading.at and reading.at.checkpoint.position, reading.value.body) == (2, b"1: 1")
    assert await scripts_run(redis) == before


async def test_more_invalidations_than_fit_into_a_packet_arrive(reader: CoalescingReader, redis: Redis) -> None:
    ids = [f"{number:04}" for number in range(5_000)]
    await write(redis, 2, *ids)
    await asyncio.gather(*map(reader.document, ids))

    await write(redis, 3, *ids)

    await eventually(lambda: shows(reader, b"1: 3", ids[-1]))
    assert {reading.value.body for reading in await asyncio.gather(*map(reader.document, ids))} == {b"1: 3"}


@pytest.mark.promise("queries", "The cache never answers a token that it does not show")
async def test_a_token_that_the_cache_does_not_show_is_read_from_redis(reader: CoalescingReader, redis: Redis) -> None:
    at = (await reader.document("0")).at
    assert at is not None
    before = await scripts_run(redis)
    later = ConsistencyToken(at.checkpoint.log_id, 2)

    await reader.document("0", at.checkpoint.token)
    assert await scripts_run(redis) == before
    await reader.document("0", later)
    assert await scripts_run(redis) == before + 1


async def test_an_emptied_redis_empties_the_cache(reader: CoalescingReader, redis: Redis) -> None:
    await reader.document("0")

    await redis.flushall()

    async def is_empty() -> bool:
        return (await reader.document("0")).at is None

    await eventually(is_empty)


async def test_another_live_generation_empties_the_cache(reader: CoalescingReader, redis: Redis) -> None:
    await write(redis, 1, "0", keys=KEYS.of(2))
    await reader.document("0")

    await redis.hset(KEYS.generations, mapping={"live": 2, "switches": 1})

    await eventually(lambda: shows(reader, b"2: 1"))


async def test_a_lost_connection_is_replaced_and_nothing_that_it_cached_is_used(
    reader: CoalescingReader, redis: Redis
) -> None:
    await asyncio.gather(*map(reader.document, IDS))
    await redis.client_kill_filter(_type="normal", skipme=True)
    await write(redis, 2, *IDS)

    await eventually(lambda: shows(reader, b"1: 2"))
    assert {reading.value.body for reading in await asyncio.gather(*map(reader.document, IDS))} == {b"1: 2"}
    assert not await asks(reader, redis)


async def test_scripts_that_were_flushed_are_loaded_again(reader: CoalescingReader, redis: Redis) -> None:
    await reader.document("0")

    await redis.script_flush()

    assert await body(reader, "1") == b"1: 1"
    assert not await asks(reader, redis, "1")


async def test_without_a_cache_every_read_goes_to_redis(redis: Redis) -> None:
    reader = CoalescingReader(redis, "orders", 0)
    await reader.document("0")

    assert await asks(reader, redis)
    await reader.close()


@pytest.mark.promise("queries", "The cache of a connection that died silently is used for a moment only")
async def test_the_cache_of_a_connection_that_died_silently_is_used_for_a_moment_only(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_SECONDS", 0.2)
    async with FaultProxy(port_of(redis_url)) as proxy, Redis.from_url(at_port(redis_url, proxy.port)) as through:
        reader = CoalescingReader(through, "orders", 1_000_000)
        await reader.document("0")
        proxy.lose(requests=False, answers=True)
        await write(redis, 2, "0")

        async def is_asked() -> bool:
            try:
                await reader.document("0")
            except ReadModelUnavailable:
                return True
            return False

        await eventually(is_asked)
        await proxy.heal()
        assert await body(reader) == b"1: 2"
        await reader.close()


async def test_a_network_that_comes_back_is_used_again_by_reads_of_several_partitions(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of them was connecting when the network was lost."""
    monkeypatch.setattr(reading, "READ_SECONDS", 0.2)
    monkeypatch.setattr(tracking_connection, "_CONNECT_SECONDS", 0.2)
    await redis.hset(KEYS.generations, mapping={"partitions:1": 2})
    for keys in KEYS.each(2):
        await write(redis, 1, *IDS, keys=keys)
    async with FaultProxy(port_of(redis_url)) as proxy, Redis.from_url(at_port(redis_url, proxy.port)) as through:
        reader = CoalescingReader(through, "orders", 1_000_000)

        async def are_read() -> bool:
            readings = await asyncio.gather(*map(reader.document, IDS), return_exceptions=True)
            return not any(isinstance(one, ReadModelUnavailable) for one in readings)

        async def are_not_read() -> bool:
            return not await are_read()

        assert await are_read()
        for _ in range(3):
            proxy.lose(requests=True, answers=True)
            proxy.cut()
            await eventually(are_not_read)
            await proxy.heal()
            await eventually(are_read)
        await reader.close()


async def test_a_url_that_asks_for_health_checks_changes_nothing(redis_url: str) -> None:
    async with Redis.from_url(f"{redis_url}?health_check_interval=1&socket_timeout=5") as redis:
        reader = CoalescingReader(redis, "orders", 1_000_000)
        assert await body(reader) == b"1: 1"
        assert await body(reader, "1") == b"1: 1"
        await reader.close()


async def test_a_closed_reader_does_not_connect_again(redis: Redis) -> None:
    reader = CoalescingReader(redis, "orders", 1_000_000)
    await reader.document("0")
    await reader.close()

    with pytest.raises(ReadModelUnavailable):
        await reader.document("0")


async def test_a_malformed_checkpoint_fails_its_read_and_not_the_connection(
    reader: CoalescingReader, redis: Redis
) -> None:
    await reader.document("0")
    connections = (await redis.info("stats"))["total_connections_received"]
    await redis.hset(KEYS.meta, "log_id", "none")

    with pytest.raises(ValueError, match="UUID"):
        await reader.document("1")
    await write(redis, 2, "1")

    assert await body(reader, "1") == b"1: 2"
    assert (await redis.info("stats"))["total_connections_received"] == connections


async def test_while_there_are_reads_redis_is_pinged_before_the_cache_expires(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    for module in (reading, tracking_connection):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    reader = CoalescingReader(redis, "orders", 1_000_000)
    await reader.document("0")
    pings = await commands_run(redis, "ping")

    now = 0.6 * reading.TRUST_SECONDS
    assert not await asks(reader, redis)
    await eventually(lambda: has_run(redis, "ping", pings + 1))
    now = 1.2 * reading.TRUST_SECONDS
    assert not await asks(reader, redis)
    await eventually(lambda: has_run(redis, "ping", pings + 2))
    now = 2.3 * reading.TRUST_SECONDS
    assert await asks(reader, redis)
    await reader.close()


@pytest.mark.promise("queries", "An answer from the cache is what Redis held at the position that the answer claims")
async def test_every_answer_under_load_is_what_redis_held_at_the_position_that_it_claims(
    reader: CoalescingReader, redis: Redis
) -> None:
    """And one client of a reader sees no position before one that it saw earlier."""
    choose = random.Random(7)
    written: dict[str, list[int]] = {name: [1] for name in IDS}
    done = asyncio.Event()
    answers = 0

    async def read() -> None:
        nonlocal answers
        seen = 0
        while not done.is_set():
            name = choose.choice(IDS)
            at, value, _ = await reader.document(name)
            assert at is not None
            position = at.checkpoint.position
            assert value.body == b"1: %d" % max(p for p in written[name] if p <= position)
            assert position >= seen
            seen = position
            answers += 1
            await asyncio.sleep(0)

    readers = [asyncio.create_task(read()) for _ in range(8)]
    before = await scripts_run(redis)
    for position in range(2, 1_000):
        names = choose.sample(IDS, 2)
        for name in names:
            written[name].append(position)
        await write(redis, position, *names)
    rounds = await scripts_run(redis) - before
    done.set()
    await asyncio.gather(*readers)

    assert answers > 2 * rounds > 0


async def test_an_order_that_was_cached_is_shown_as_it_is_now(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("42", placed())
    for _ in range(3):
        assert (await get(queries, "/orders/42", recorder)).json()["version"] == 1
    await recorder.record("42", paid())

    answer = await queries.get("/orders/42", headers={"Consistency-Token": await token_now(recorder)})

    assert answer.json()["version"] == 2


async def test_a_connection_that_is_replaced_answers_on(
    redis: Redis, reader: CoalescingReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected = await commands_run(redis, "client|tracking")
    monkeypatch.setattr(tracking_connection, "SESSION_SECONDS", 0.0)
    for position in range(2, 5):
        await write(redis, position, "0")
        await eventually(partial(shows, reader, b"1: %d" % position))
        assert await body(reader, str(position)) == b"1: 1"
    assert await commands_run(redis, "client|tracking") > connected + 1
