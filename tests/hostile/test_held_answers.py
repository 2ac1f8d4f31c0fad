"""What queries hold while they wait, or are answered, does not add up."""

from __future__ import annotations

import asyncio
import tracemalloc

import asyncpg
import pytest
from redis.asyncio import Redis

from shared.eventstore.log import read_head
from shared.read_models.keys import PartitionKeys
from shared.settings import Settings
from tests.given_when_then import problem
from tests.orders import placed
from tests.query_service.redis_read_model import write
from tests.recording import Recorder
from tests.running import eventually, running_query_service

MIB = 2**20
KEYS = PartitionKeys("orders")
WAITING = 60
LINES = 10_000


@pytest.mark.promise("memory", "A query that waits for its token holds no document meanwhile")
async def test_queries_that_wait_hold_no_documents(settings: Settings, recorder: Recorder, redis: Redis) -> None:
    await recorder.record("42", placed())
    first = await read_head(recorder.connection)
    await recorder.record("43", placed())
    head = await read_head(recorder.connection)
    large = '"' + "x" * MIB + '"'
    await write(redis, KEYS, first.position, {"42": large}, first.log_id)
    async with running_query_service(settings, remembered_document_bytes=0) as queries:
        token = {"Consistency-Token": head.token.encode(), "Prefer": "wait=30"}
        tracemalloc.start()
        before = await _sent(redis)
        waiting = [asyncio.create_task(queries.get("/orders/42", headers=token)) for _ in range(WAITING)]

        async def have_read() -> bool:
            return await _sent(redis) - before > WAITING * MIB

        await eventually(have_read)
        await eventually(lambda: tracemalloc.get_traced_memory()[0] < WAITING // 3 * MIB)
        tracemalloc.stop()
        await redis.hset(KEYS.meta, "position", str(head.position))
        assert {len(answer.content) for answer in await asyncio.gather(*waiting)} == {len(large)}


async def _sent(redis: Redis) -> int:
    """Bytes that Redis has sent to its clients."""
    return int((await redis.info("stats"))["total_net_output_bytes"])


@pytest.mark.promise("queries", "A report has a bounded number of lines")
@pytest.mark.bound("query", "lines of a report")
async def test_a_report_of_too_many_lines_is_refused_and_a_part_of_it_is_answered(
    settings: Settings, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    head = await read_head(connection)
    await connection.execute(
        "insert into read_models (projection, generation, epoch, log_id, position, ready_at, code, hash)"
        " values ('revenue_by_day', 1, 1, $1, $2, 0, 1, '')",
        head.log_id,
        head.position,
    )
    await connection.execute(
        "insert into revenue_by_day (generation, day, currency, status, orders, placed, paid, cancelled)"
        " select 1, '2012-01-01'::date + number % 300, 'C' || number / 300, 'PENDING', 1, 1, 0, 0"
        f" from generate_series(0, {LINES}) number"
    )
    await connection.execute("update revenue_by_day set currency = 'GBP' where currency = 'C0'")
    year = "/reports/revenue?from=2012-01-01&to=2012-12-31"
    async with running_query_service(settings) as queries:
        problem(await queries.get(year), 422, "answer-too-large")
        part = await queries.get(f"{year}&currency=GBP")
        assert len(part.json()["lines"]) == 300
