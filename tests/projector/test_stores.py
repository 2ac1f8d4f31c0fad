"""The contract that every store keeps: a batch is applied whole with its checkpoint, or refused whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from projector.folding import Changes
from projector.projection import Contribution, IndexEntry
from projector.projections.revenue_by_day import REVENUE
from projector.stores.generation_store import GenerationStore
from projector.stores.postgres import PostgresStore
from projector.stores.postgres_generations import PostgresGenerationStore
from projector.stores.redis import RedisStore
from projector.stores.redis_generations import RedisGenerationStore
from projector.stores.store import EVERYTHING, ApplyResult, Batch, CheckpointMismatch, Fenced, Store, VersionMismatch
from shared.read_models.keys import Checkpoint, Generations, PartitionKeys
from shared.read_models.poison import Poison
from tests.projector.inspected_stores import load_all

LOG = UUID(int=1)
HASH = bytes(range(32))


@pytest.fixture(params=["redis", "postgresql"])
async def store(
    request: pytest.FixtureRequest, pool: asyncpg.Pool[asyncpg.Record], redis_url: str
) -> AsyncIterator[Store]:
    async with Redis.from_url(redis_url) as redis:
        if request.param == "redis":
            yield RedisStore(redis, PartitionKeys("orders"))
        else:
            yield PostgresStore(pool, "revenue_by_day", [REVENUE])


def batch(start: Checkpoint, position: int, **documents: str) -> Batch:
    return Batch(
        start,
        position,
        HASH,
        Changes({name: {"document": text, "version": "1"} for name, text in documents.items()}, {}, {}),
    )


async def begun(store: Store, epoch: int = 1) -> Checkpoint:
    await store.claim(epoch)
    return await store.reset(epoch, LOG, ready_at=7)


async def test_there_is_nothing_before_it_begins(store: Store) -> None:
    assert await store.checkpoint() is None
    assert await store.claim(epoch=1) is None
    assert await store.checkpoint() is None
    nowhere = Checkpoint(LOG, 0, 0, 1)
    assert await store.apply(batch(nowhere, 1), epoch=1) is ApplyResult.MISMATCH
    with pytest.raises(CheckpointMismatch):
        await load_all(store, nowhere, ["a"])


async def test_it_begins_at_the_start_of_a_log(store: Store) -> None:
    start = await begun(store)

    assert start == Checkpoint(LOG, position=0, ready_at=7, generation=1) == await store.checkpoint()
    assert start.rebuilding


async def test_a_batch_is_applied_with_its_checkpoint(store: Store) -> None:
    start = await begun(store)

    assert await store.apply(batch(start, 3, a='{"n":1}', b='{"n":2}'), epoch=1) is ApplyResult.APPLIED

    checkpoint = await store.checkpoint()
    assert checkpoint == start._replace(position=3)
    assert await load_all(store, checkpoint, ["b", "c"]) == {"b": b'{"n":2}'}
    claimed = await store.claim(epoch=2)
    assert claimed == (checkpoint, HASH)


PIECES = st.lists(
    st.tuples(
        st.sampled_from("xö\N{TEACUP WITHOUT HANDLE}"), st.sampled_from([1, 4_095, 4_096, 16_382, 16_383, 40_000])
    ),
    max_size=3,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(PIECES, min_size=2, max_size=6), loses=st.integers(0, 5))
async def test_a_large_document_is_what_was_written_last_however_its_size_changes(
    store: Store, texts: list[list[tuple[str, int]]], loses: int
) -> None:
    at = await begun(store)
    stored: str | None = None
    for number, pieces in enumerate(texts):
        text = f'"{number}{"".join(letter * times for letter, times in pieces)}"'
        changes = batch(at, number + 1, a=text).changes
        is_known = stored is not None and number != loses
        known = replace(changes, replaced={"a": stored} if is_known and stored is not None else {})
        assert await store.apply(Batch(at, number + 1, HASH, known), epoch=1) is ApplyResult.APPLIED
        at, stored = at._replace(position=number + 1), text
        assert await load_all(store, at, ["a"]) == {"a": text.encode()}


@pytest.mark.promise("read-models", "A store applies a batch together with its checkpoint, or refuses it whole")
async def test_a_batch_from_another_checkpoint_is_refused_whole(store: Store) -> None:
    start = await begun(store)
    await store.apply(batch(start, 3, a='{"n":1}'), epoch=1)

    for stale in (start, start._replace(position=4), start._replace(log_id=uuid4(), position=3)):
        assert await store.apply(batch(stale, 5, a='{"n":9}'), epoch=1) is ApplyResult.MISMATCH
        with pytest.raises(CheckpointMismatch):
            await load_all(store, stale, ["a"])

    assert await store.checkpoint() == start._replace(position=3)
    assert await load_all(store, start._replace(position=3), ["a"]) == {"a": b'{"n":1}'}


async def test_a_batch_that_takes_a_document_for_new_which_is_there_is_refused_whole(store: Store) -> None:
    start = await begun(store)
    new = replace(batch(start, 3, a='{"n":1}', b='{"n":2}'), new=["a", "b"])
    assert await store.apply(new, epoch=1) is ApplyResult.APPLIED
    assert await store.apply(new, epoch=1) is ApplyResult.MISMATCH, "as any batch that comes twice"

    reached = start._replace(position=3)
    mistaken = replace(batch(reached, 5, b='{"n":3}', c='{"n":4}'), new=["b", "c"])
    assert await store.apply(mistaken, epoch=1) is ApplyResult.EXISTS

    assert await store.checkpoint() == reached
    assert await load_all(store, reached, ["a", "b", "c"]) == {"a": b'{"n":1}', "b": b'{"n":2}'}


@pytest.mark.promise("read-models", "A store applies a batch together with its checkpoint, or refuses it whole")
async def test_a_batch_of_a_lower_epoch_is_refused_whole(store: Store) -> None:
    start = await begun(store)
    await store.claim(epoch=2)

    assert await store.apply(batch(start, 3, a='{"n":1}'), epoch=1) is ApplyResult.FENCED
    with pytest.raises(Fenced) as fenced:
        await store.claim(epoch=1)
    with pytest.raises(CheckpointMismatch):
        await store.reset(1, LOG, ready_at=0)

    assert fenced.value.epoch == 2
    assert await store.checkpoint() == start
    assert await load_all(store, start, ["a"]) == {}


@pytest.mark.promise("read-models", "Of several projectors that apply the same batch, exactly one succeeds")
async def test_of_many_who_apply_the_same_batch_one_does(store: Store) -> None:
    start = await begun(store)

    results = await asyncio.gather(*(store.apply(batch(start, 3, a='{"n":1}'), epoch=1) for _ in range(8)))

    assert sorted(results) == [ApplyResult.APPLIED, *[ApplyResult.MISMATCH] * 7]


async def test_beginning_again_removes_everything(store: Store) -> None:
    start = await begun(store)
    await store.apply(batch(start, 3, a='{"n":1}'), epoch=1)

    again = await begun(store, epoch=2)

    assert await load_all(store, again, ["a"]) == {}


@pytest.mark.promise("projectors", "Partitions that begin at the same time do not block each other")
async def test_partitions_that_begin_at_once_do_not_keep_each_other_waiting_for_ever(
    pool: asyncpg.Pool[asyncpg.Record], connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    stores = [PostgresStore(pool, "revenue_by_day", [REVENUE], partition=nr, partitions=4) for nr in range(4)]
    for _ in range(25):
        await connection.execute("delete from read_models")

        starts = await asyncio.gather(*(begun(store) for store in stores))

        assert starts == [Checkpoint(LOG, position=0, ready_at=7, generation=1)] * 4


async def test_sums_follow_the_documents_that_count_in_them(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    store = PostgresStore(pool, "revenue_by_day", [REVENUE])
    start = await begun(store)
    pending, paid = ("2011-01-04", "GBP", "PENDING"), ("2011-01-04", "GBP", "CONFIRMED")
    huge = 2**62
    first = Changes(
        {}, {}, {"revenue_by_day": [Contribution(pending, (1, huge, 0, 0)), Contribution(pending, (1, huge, 0, 0))]}
    )
    then = Changes(
        {},
        {"revenue_by_day": [Contribution(pending, (1, huge, 0, 0))] * 2},
        {"revenue_by_day": [Contribution(paid, (1, huge, huge, 0)), Contribution(pending, (1, 2 * huge, 0, 0))]},
    )
    last = Changes({}, {"revenue_by_day": [Contribution(pending, (1, 2 * huge, 0, 0))]}, {})

    lines = []
    for nr, changes in enumerate((first, then, last)):
        assert (
            await store.apply(Batch(start._replace(position=nr), nr + 1, HASH, changes), epoch=1) is ApplyResult.APPLIED
        )
        rows = await pool.fetch("select status, orders, placed, paid from revenue_by_day order by status")
        lines.append([(row[0], *map(int, row[1:])) for row in rows])

    assert lines == [
        [("PENDING", 2, 2 * huge, 0)],
        [("CONFIRMED", 1, huge, huge), ("PENDING", 1, 2 * huge, 0)],
        [("CONFIRMED", 1, huge, huge)],
    ]


async def test_sums_of_a_refused_batch_do_not_count(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    store = PostgresStore(pool, "revenue_by_day", [REVENUE])
    start = await begun(store)
    share = Contribution(("2011-01-04", "GBP", "PENDING"), (1, 5, 0, 0))
    added, removed = Changes({}, {}, {"revenue_by_day": [share]}), Changes({}, {"revenue_by_day": [share]}, {})
    await store.apply(Batch(start, 1, HASH, added), epoch=1)

    for changes in (added, removed):
        assert await store.apply(Batch(start, 1, HASH, changes), epoch=1) is ApplyResult.MISMATCH
        assert await store.apply(Batch(start._replace(position=1), 2, HASH, changes), epoch=0) is ApplyResult.FENCED

    assert [tuple(row) for row in await pool.fetch("select orders, placed from revenue_by_day")] == [(1, 5)]


async def test_partitions_add_to_lines_that_others_empty(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    stores = [PostgresStore(pool, "revenue_by_day", [REVENUE], partition=nr, partitions=4) for nr in range(4)]
    starts = await asyncio.gather(*(begun(store) for store in stores))
    shares: list[IndexEntry] = [
        Contribution((f"2011-01-0{day}", "GBP", "PENDING"), (1, 5, 0, 0)) for day in range(1, 4)
    ]

    async def come_and_go(store: Store, start: Checkpoint) -> None:
        for position in range(50):
            come, go = ([], shares) if position % 2 else (shares, [])
            changes = Changes({}, {"revenue_by_day": go}, {"revenue_by_day": come})
            batch = Batch(start._replace(position=position), position + 1, HASH, changes)
            assert await store.apply(batch, epoch=1) is ApplyResult.APPLIED

    await asyncio.gather(*map(come_and_go, stores, starts))

    assert await pool.fetch("select * from revenue_by_day") == []


async def test_the_last_word_of_a_heartbeat_is_the_highest_epochs(store: Store) -> None:
    await store.heartbeat(2, "new", "active")
    await store.heartbeat(1, "old", "active")
    await store.heartbeat(2, "new", "stuck")


async def at(generation_store: GenerationStore, generation: int, position: int) -> None:
    """Makes a generation that is at that position."""
    store = generation_store.store(generation)
    await store.claim(1)
    start = await store.reset(1, LOG, ready_at=0)
    assert await store.apply(batch(start, position, a='{"n":1}'), epoch=1) is ApplyResult.APPLIED


async def test_without_more_ado_generation_1_is_live_and_alone(generation_store: GenerationStore) -> None:
    assert await generation_store.generations() == Generations(live=1)


async def test_a_generation_that_was_begun_is_gone_on_with(generation_store: GenerationStore) -> None:
    assert [await generation_store.begin(1), await generation_store.begin(1)] == [2, 2]
    assert await generation_store.generations() == Generations(live=1, building=2)


async def test_generations_hold_documents_of_their_own(generation_store: GenerationStore) -> None:
    await at(generation_store, 1, 3)
    await at(generation_store, await generation_store.begin(1), 5)
    await generation_store.store(2).reset(1, LOG, ready_at=0)

    first, second = await generation_store.store(1).checkpoint(), await generation_store.store(2).checkpoint()

    assert first is not None
    assert second is not None
    assert (first.position, first.generation, second.position, second.generation) == (3, 1, 0, 2)
    assert await load_all(generation_store.store(1), first, ["a"]) == {"a": b'{"n":1}'}
    assert await load_all(generation_store.store(2), second, ["a"]) == {}


async def test_nothing_is_switched_to_that_shows_less_than_the_live_one(generation_store: GenerationStore) -> None:
    await at(generation_store, 1, 3)
    assert not await generation_store.switch(1, await generation_store.begin(1))
    await at(generation_store, 2, 2)
    assert not await generation_store.switch(1, 2)
    assert await generation_store.generations() == Generations(live=1, building=2)


async def test_a_switch_keeps_the_one_before_and_can_be_undone(generation_store: GenerationStore) -> None:
    await at(generation_store, 1, 3)
    await at(generation_store, await generation_store.begin(1), 3)

    assert not await generation_store.switch(2, 1)
    assert await generation_store.switch(1, 2)
    assert await generation_store.generations() == Generations(live=2, previous=1)
    assert await generation_store.switch(2, 1)
    assert await generation_store.generations() == Generations(live=1, previous=2)


async def test_what_is_dropped_is_gone_and_its_number_is_never_given_again(generation_store: GenerationStore) -> None:
    await at(generation_store, 1, 3)
    await at(generation_store, await generation_store.begin(1), 3)
    await generation_store.switch(1, 2)

    assert not await generation_store.drop(2)
    assert await generation_store.drop(1)

    assert await generation_store.generations() == Generations(live=2)
    assert await generation_store.store(1).checkpoint() is None
    assert await generation_store.store(2).checkpoint() is not None
    assert await generation_store.begin(1) == 3
    assert await generation_store.drop(3)
    assert await generation_store.begin(1) == 4


async def test_other_code_is_told_and_claims_nothing(
    generation_store: GenerationStore, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    await at(generation_store, 1, 3)
    newer: GenerationStore = PostgresGenerationStore(pool, "revenue_by_day", (REVENUE,), code=2)
    if isinstance(generation_store, RedisGenerationStore):
        newer = RedisGenerationStore(generation_store._redis, "orders", code=2)

    with pytest.raises(VersionMismatch, match=r"version 1 .* this is version 2"):
        await newer.store(1).claim(epoch=5)

    checkpoint = await generation_store.store(1).checkpoint()
    assert checkpoint is not None
    assert await generation_store.store(1).apply(batch(checkpoint, 4), epoch=1) is ApplyResult.APPLIED


def poison(document_id: str, position: int, waiting: int = 0) -> Poison:
    return Poison(
        document_id=document_id,
        stream_id=f"order-{document_id}",
        position=position,
        version=2,
        event_type="OrderShipped",
        schema_version=1,
        error="ValueError: Größe",
        traceback="Traceback …",
        at=datetime(2026, 1, 31, tzinfo=UTC),
        waiting=waiting,
    )


NOTHING = Changes({}, {}, {})


async def test_what_is_parked_is_written_with_the_batch_and_its_checkpoint(store: Store) -> None:
    start = await begun(store)
    parked = {"a": poison("a", 3), "b": poison("b", 2)}

    assert (
        await store.apply(Batch(start, 3, HASH, NOTHING, parked, parked_revision="1.1"), epoch=1) is ApplyResult.APPLIED
    )

    reached = start._replace(position=3, parked_revision="1.1")
    assert await store.checkpoint() == reached
    assert await store.claim(epoch=1) == (reached, HASH)
    assert await store.parked(reached) == [parked["b"], parked["a"]]
    assert await store.count_parked() == 2
    assert await load_all(store, reached, ["a"]) == {}

    more = Batch(reached, 4, HASH, NOTHING, {"a": poison("a", 3, waiting=1)}, ["b"], "1.2")
    assert await store.apply(more, epoch=1) is ApplyResult.APPLIED
    assert await store.parked(more.reached) == [poison("a", 3, waiting=1)]


async def test_a_batch_is_refused_whole_where_something_else_is_parked_at_its_checkpoint(store: Store) -> None:
    """As when the store is replaced by a copy from before a retry, which does not move the position."""
    start = await begun(store)
    assert (
        await store.apply(Batch(start, 3, HASH, NOTHING, {"a": poison("a", 3)}, parked_revision="1.1"), 1)
        is ApplyResult.APPLIED
    )

    for stale in (start._replace(position=3), start._replace(position=3, parked_revision="1.2")):
        retry = Batch(stale, 3, HASH, NOTHING, {}, ["a"], "1.3")
        assert await store.apply(retry, epoch=1) is ApplyResult.MISMATCH
        for question in (load_all(store, stale, ["a"]), store.parked(stale)):
            with pytest.raises(CheckpointMismatch):
                await question

    assert await store.count_parked() == 1


async def test_beginning_again_forgets_what_was_parked_and_asked(store: Store) -> None:
    start = await begun(store)
    parked = {"a": poison("a", 3)}
    assert (
        await store.apply(Batch(start, 3, HASH, NOTHING, parked, parked_revision="1.1"), epoch=1) is ApplyResult.APPLIED
    )
    await store.ask_retry("a")

    again = await begun(store, epoch=2)

    assert await store.parked(again) == []
    assert await store.count_parked() == 0
    assert await store.retries() == frozenset()


async def test_what_is_asked_to_be_tried_again_stays_until_it_was(store: Store) -> None:
    await begun(store)

    for document_id in ("a", EVERYTHING, "a", "b"):
        await store.ask_retry(document_id)
    assert await store.retries() == {"a", "b", EVERYTHING}
    await store.retried({"a", EVERYTHING})

    assert await store.retries() == {"b"}


async def test_what_is_parked_is_dropped_with_its_generation(generation_store: GenerationStore) -> None:
    await at(generation_store, 1, 3)
    await at(generation_store, await generation_store.begin(1), 3)
    for store in (generation_store.store(1), generation_store.store(2)):
        checkpoint = await store.checkpoint()
        assert checkpoint is not None
        await store.apply(Batch(checkpoint, 4, HASH, NOTHING, {"a": poison("a", 4)}, parked_revision="1.1"), epoch=1)

    assert await generation_store.drop(2)

    assert (await generation_store.store(1).count_parked(), await generation_store.store(2).count_parked()) == (1, 0)


async def test_documents_are_loaded_up_to_the_one_that_reaches_the_bytes(store: Store) -> None:
    start = await begun(store)
    large = "x" * 1_000
    written = dict.fromkeys("abc", f'{{"n":"{large}"}}')
    await store.apply(batch(start, 3, **written), epoch=1)
    reached = start._replace(position=3)

    ids = ["nowhere", "c", "a", "b", "nowhere else"]
    for max_bytes, expected in ((1, 2), (1_000, 2), (1_500, 3), (2_500, 4), (4_000, 5)):
        loaded = await store.load(reached, ids, max_bytes)
        assert [*loaded] == ids[:expected]
        assert loaded["nowhere"] is None
        assert loaded["c"] == written["c"].encode()
