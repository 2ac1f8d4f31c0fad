"""No hot statement reads a table from end to end: their plans, taken while the product's own code runs them, on tables
large enough that a sequential scan would be chosen where no index serves.

`auto_explain` sends every plan to the client, those of statements inside functions included.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from cli.auditing import database as audited_log
from cli.stack.embedded_postgres import EmbeddedPostgres
from projector.folding import Changes
from projector.projection import Contribution, IndexEntry
from projector.projections.revenue_by_day import REVENUE
from projector.stores.postgres import PostgresStore
from projector.stores.postgres_generations import PostgresGenerationStore
from projector.stores.store import ApplyResult, Batch
from query_service.live import stream_filter as followed_log
from query_service.live.stream_filter import StreamFilter
from query_service.postgresql_reader import PostgresReader
from query_service.read_models.revenue_by_day import RevenueReader
from shared.eventstore import idempotency_keys, snapshot_rows
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, AppendStatus, NewEvent
from shared.eventstore.token import ConsistencyToken
from tests.running import fresh_database

EVENTS = 60_000  # of orders with three each
ORDERS = EVENTS // 3
FILTERED = 1_000  # rows that one scan may read in vain
LARGE = {"events", "idempotency_keys", "snapshots", "read_model_documents", "revenue_by_day"}
DAY = date(2026, 1, 31)
SHAPE = bytes(32)  # of snapshots

EXPLAIN = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "client_min_messages": "log",
    "jit": "off",
}
# The pool takes the listener off for us, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*active log listener:asyncpg.InterfaceWarning")

# Straight into the tables: the log need not verify, it only has to be large.
_FILL = f"""
insert into events
select position + p, 'order-' || (p - 1) / 3, (p - 1) % 3 + 1, gen_random_uuid(),
       case p % 3 when 1 then 'OrderPlaced' else 'Other' end, 1, '{{"customer_id": "alice"}}', '{{}}',
       date '{DAY}' + p * interval '1 s', date '{DAY}' + p * interval '1 s', sha256(int8send(p)),
       'customer-' || (p - 1) / 3 % 100
from log_head, generate_series(1, {EVENTS}::bigint) as p;
update log_head set position = position + {EVENTS}, hash = sha256(int8send({EVENTS})),
       recorded_at = date '{DAY}' + {EVENTS} * interval '1 s';
insert into idempotency_keys
select 'key-' || n, '\\x00', gen_random_uuid(), 'order-' || n, 1, n, date '{DAY}' + n * interval '1 s'
from generate_series(0, {ORDERS} - 1) as n;
insert into snapshots
select 'order-' || n, '\\x{SHAPE.hex()}', 2, n * 3 + 2, date '{DAY}', date '{DAY}', '{{}}', sha256('')
from generate_series(0, {ORDERS} - 1) as n;
insert into read_model_documents
select 'revenue_by_day', 1, n::text, '{{}}' from generate_series(0, {ORDERS} - 1) as n;
insert into revenue_by_day
select 1, date '{DAY}' - n / 4, (array['GBP', 'EUR', 'USD', 'SEK'])[n % 4 + 1], 'PENDING', 1, 1, 1, 1
from generate_series(0, {ORDERS} - 1) as n;
"""


@dataclass
class Watched:
    """A database whose plans are watched."""

    pool: asyncpg.Pool[asyncpg.Record]
    plans: list[dict[str, Any]]

    async def plans_of(self, work: Callable[[], Awaitable[object]]) -> list[dict[str, Any]]:
        self.plans.clear()
        await work()
        return list(self.plans)


@pytest.fixture(scope="module")
def large_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with asyncio.Runner() as runner:
        database = fresh_database(postgres.url)
        url = runner.run(database.__aenter__())
        runner.run(_fill(url))
        yield url
        runner.run(database.__aexit__(None, None, None))


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(url)
    pool = await asyncpg.create_pool(url, min_size=1, max_size=1)
    store = PostgresStore(pool, "revenue_by_day", [REVENUE])
    await store.claim(epoch=1)
    await store.reset(1, (await event_log.read_head(connection)).log_id, ready_at=0)
    await connection.execute(_FILL)
    await connection.execute("analyze")
    await pool.close()
    await connection.close()


@pytest.fixture(params=["force_custom_plan", "force_generic_plan"])
async def watched(request: pytest.FixtureRequest, large_url: str) -> AsyncIterator[Watched]:
    """Both kinds of plan that a prepared statement may come to have."""
    async with watching(large_url, plan_cache_mode=request.param) as watched:
        yield watched


@asynccontextmanager
async def watching(url: str, **settings: str) -> AsyncIterator[Watched]:
    plans: list[dict[str, Any]] = []

    def note(_: object, message: Any) -> None:
        _, found, plan = message.message.partition("plan:\n")
        if found:
            plans.append(json.loads(plan))

    async def listen(connection: Any) -> None:
        connection.add_log_listener(note)

    pool = await asyncpg.create_pool(url, min_size=1, max_size=1, setup=listen, server_settings={**EXPLAIN, **settings})
    yield Watched(pool, plans)
    pool.terminate()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def reads_all(plans: list[dict[str, Any]]) -> list[str]:
    """Every scan that does, with its statement."""
    found = []
    for explained in plans:
        for node in nodes(explained["Plan"]):
            in_vain = node.get("Rows Removed by Filter", 0)
            if "Index Name" in node and "Index Cond" not in node:  # read from its start, as a merge join does
                in_vain += node["Actual Rows"] * node["Actual Loops"]
            in_full = node["Node Type"] == "Seq Scan" and node.get("Relation Name") in LARGE
            if in_full or in_vain > FILTERED:
                found.append(f"{node['Node Type']} on {node.get('Relation Name')}: {explained['Query Text']}")
    return found


def tables(plans: list[dict[str, Any]]) -> set[str]:
    return {
        node["Relation Name"]
        for explained in plans
        for node in nodes(explained["Plan"])
        if node.get("Relation Name") in LARGE
    }


def an_event() -> NewEvent:
    return NewEvent(uuid4(), "OrderPlaced", 2, '{"customer_id": "alice"}', "{}", datetime.now(UTC))


async def append(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """New streams and old ones, with keys and without."""
    new = [
        AppendRequest.of_stream(f"order-{uuid4()}", 0, uuid4(), [an_event()], f"key-{uuid4()}", b"f") for _ in range(20)
    ]
    old = [AppendRequest.of_stream(f"order-{n * 7}", 1, uuid4(), [an_event()]) for n in range(20)]
    async with pool.acquire() as connection:
        results = await event_log.append_group(connection, [*new, *old])
        outcomes = [result.status for result in results]
        assert outcomes == [AppendStatus.APPENDED] * 20 + [AppendStatus.CONFLICT] * 20


async def measure_the_lag(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    log_id = (await event_log.read_head(pool)).log_id
    assert (await event_log.read_lag(pool, ConsistencyToken(log_id, EVENTS - 10))).position == EVENTS - 10


async def apply(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """What a projector does for a batch."""
    store = PostgresStore(pool, "revenue_by_day", [REVENUE])
    checkpoint = await store.checkpoint()
    assert checkpoint is not None
    ids = [str(n) for n in range(0, ORDERS, ORDERS // 50)]
    assert len(await store.load(checkpoint, ids, 2**20)) == len(ids)
    added: list[IndexEntry] = [
        Contribution((str(DAY - timedelta(days=n)), "GBP", "PENDING"), (1, 1, 1, 1)) for n in range(50)
    ]
    emptied: list[IndexEntry] = [
        Contribution((str(DAY - timedelta(days=n)), "EUR", "PENDING"), (1, 1, 1, 1)) for n in range(1, 50)
    ]
    documents = {id_: {"document": "{}"} for id_ in ids}
    changes = Changes(documents, {REVENUE.name: emptied}, {REVENUE.name: added})
    batch = Batch(checkpoint, checkpoint.position + 1, bytes(32), changes)
    assert await store.apply(batch, epoch=1) is ApplyResult.APPLIED


async def verify_a_page(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """What a verification of a read model does again and again."""
    inspection = PostgresGenerationStore(pool, "revenue_by_day", (REVENUE,), code=1).inspection(1)
    ids = await anext(inspection.document_ids(500))
    assert len((await inspection.read(ids, [])).documents) == len(ids) > 0


HOT: dict[str, Callable[[asyncpg.Pool[asyncpg.Record]], Awaitable[object]]] = {
    "append": append,
    "load an order": lambda pool: snapshot_rows.load_stream(pool, "order-4711", SHAPE),
    "save a snapshot": lambda pool: snapshot_rows.save_snapshot(
        pool, "order-4711", SHAPE, 3, 3, datetime.now(UTC), "{}", bytes(32)
    ),
    "read a stream": lambda pool: event_log.read_stream_page(pool, "order-4711", 0, 1_000),
    "read a version": lambda pool: event_log.read_version(pool, "order-4711"),
    "read a version for its owner": lambda pool: event_log.read_version(pool, "order-4711", "customer-42"),
    "tail": lambda pool: event_log.read_batch(pool, EVENTS - 1_000, 1_000),
    "tail in pages of a few bytes": lambda pool: event_log.read_batch(pool, EVENTS - 1_000, 1_000, 100_000),
    "read the head": event_log.read_head,
    "measure the lag": measure_the_lag,
    "find an Idempotency-Key": lambda pool: idempotency_keys.find_key(pool, "key-4711"),
    "purge Idempotency-Keys": lambda pool: idempotency_keys.purge_keys(pool, timedelta(days=36_500), 100),
    "find the position of a time": lambda pool: event_log.position_at(
        pool, datetime(2026, 1, 31, 8, tzinfo=UTC), EVENTS, inclusive=True
    ),
    "find streams due for a snapshot": lambda pool: snapshot_rows.streams_due_for_snapshot(
        pool, EVENTS - 1_000, EVENTS, 3
    ),
    "follow an order from its start": lambda pool: followed_log.read_page(pool, StreamFilter("order", "4711"), 0),
    "follow a customer from the start": lambda pool: followed_log.read_page(
        pool, StreamFilter("order", "customer-42", by_owner=True), 0
    ),
    "follow a customer without events": lambda pool: followed_log.read_page(
        pool, StreamFilter("order", "bob", by_owner=True), 0
    ),
    "report revenue": lambda pool: RevenueReader(PostgresReader(pool, "revenue_by_day")).between(
        DAY - timedelta(days=6), DAY, "GBP"
    ),
    "apply a batch in PostgreSQL": apply,
    "verify a page of a read model": verify_a_page,
    "read the head of the log for an audit": lambda pool: _with(pool, audited_log.read_log_head),
    "read hashes for an audit": lambda pool: _with(pool, lambda one: audited_log.read_hashes(one, range(1, 500))),
}


async def _with(pool: asyncpg.Pool[asyncpg.Record], work: Callable[[Any], Awaitable[object]]) -> object:
    async with pool.acquire() as connection:
        return await work(connection)


@pytest.mark.parametrize("statement", HOT)
async def test_no_hot_statement_reads_a_table_from_end_to_end(watched: Watched, statement: str) -> None:
    plans = await watched.plans_of(lambda: HOT[statement](watched.pool))
    assert plans
    assert reads_all(plans) == []


async def test_statements_inside_functions_are_seen(watched: Watched) -> None:
    plans = await watched.plans_of(lambda: append(watched.pool))
    assert {"events", "idempotency_keys"} <= tables(plans)
    assert any("insert into public.events" in explained["Query Text"] for explained in plans)


async def test_appends_are_planned_once_and_what_is_planned_on_an_empty_log_is_fit_for_a_large_one(
    postgres: EmbeddedPostgres,
) -> None:
    async with fresh_database(postgres.url) as url, watching(url) as watched:
        first = await watched.plans_of(lambda: append(watched.pool))
        assert {"events", "idempotency_keys"} <= tables(first)
        assert reads_all(first) == []
        filling = await asyncpg.connect(url)
        await filling.execute(_FILL)
        await filling.close()
        again = await watched.plans_of(lambda: append(watched.pool))
    assert estimates(again) == estimates(first)
    assert reads_all(again) == []


async def test_the_hash_of_an_event_is_computed_in_place(watched: Watched) -> None:
    """A call that is not inlined starts a query of its own for every event."""
    plan = await watched.pool.fetchval(
        "explain (verbose, format json) select event_hash(hash, position, stream_id, version, event_id, event_type,"
        " schema_version, data::text, metadata::text, occurred_at, recorded_at) from events limit 1"
    )
    assert "sha256(" in plan
    assert "event_hash(" not in plan


def estimates(plans: list[dict[str, Any]]) -> list[list[tuple[str, float]]]:
    """Of those on tables that grow: a plan that is made anew then has others."""
    on_tables = [explained for explained in plans if tables([explained])]
    return [[(node["Node Type"], node["Total Cost"]) for node in nodes(explained["Plan"])] for explained in on_tables]


async def test_a_statement_that_reads_all_is_found(watched: Watched) -> None:
    """So that the tests above are known to see."""
    by_type = "select count(*) from events where event_type = 'OrderPlaced'"
    by_position = "select max(position) from events where event_type = 'Nothing'"
    in_its_order = "select count(*) from (select from events order by position offset 0) e"
    for statement in (by_type, by_position, in_its_order):
        plans = await watched.plans_of(lambda: watched.pool.fetchval(statement))  # noqa: B023
        assert len(reads_all(plans)) == 1
