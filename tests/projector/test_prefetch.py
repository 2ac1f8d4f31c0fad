"""What an engine keeps in memory between batches: the next page of events, and documents written last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from projector import engine as engine_module
from projector.document_cache import DocumentCache
from projector.engine import Engine
from projector.projections.orders import ORDERS
from projector.stores.redis import RedisStore
from projector.stores.store import ApplyResult, Batch, ClaimedCheckpoint
from shared.aggregates.order import OrderDocument
from shared.eventstore.lease import try_acquire
from shared.eventstore.log import Page
from shared.eventstore.subscription import LogSession
from shared.read_models.keys import Checkpoint
from shared.settings import Settings
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import delivered, paid, placed, shipped
from tests.projector.fresh_log import FreshLog
from tests.projector.inspected_stores import KEYS, ConnectionCut, InspectedRedis
from tests.recording import Recorder
from tests.running import eventually

BATCH = 2


class WatchedStore(RedisStore):
    """Says what was asked of it. Applies a batch once the engine has read on behind it, and once it may."""

    def __init__(self, redis: Redis, reads: list[int]) -> None:
        super().__init__(redis, KEYS)
        self.loaded: list[str] = []
        self.applied = self.claims = 0
        self.waits = True
        self.breaks = False  # the next apply, before it is done
        self.may_apply = asyncio.Event()
        self.may_apply.set()
        self._reads = reads

    async def claim(self, epoch: int) -> ClaimedCheckpoint | None:
        self.claims += 1
        return await super().claim(epoch)

    async def load(self, expected: Checkpoint, document_ids: Sequence[str], max_bytes: int) -> dict[str, bytes | None]:
        self.loaded += document_ids
        return await super().load(expected, document_ids, max_bytes)

    async def apply(self, batch: Batch, epoch: int) -> ApplyResult:
        if self.waits:
            await eventually(lambda: batch.position in self._reads)
        await self.may_apply.wait()
        if self.breaks:
            self.breaks = False
            raise ConnectionCut
        self.applied += 1
        return await super().apply(batch, epoch)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After which positions the log was asked for events, once it has answered."""
    answered: list[int] = []
    read = LogSession.read

    async def watched(self: LogSession, after: int, limit: int, **options: Any) -> Page:
        try:
            return await read(self, after, limit, **options)
        finally:
            answered.append(after)

    monkeypatch.setattr(LogSession, "read", watched)
    return answered


@pytest.fixture
def store(redis: Redis, reads: list[int]) -> WatchedStore:
    return WatchedStore(redis, reads)


@pytest.fixture
async def engine(session: LogSession, store: WatchedStore) -> Engine[OrderDocument]:
    held = await try_acquire(session, "the lease")
    assert held is not None
    return Engine(ORDERS, store, held, BATCH)


async def record_history(recorder: Recorder, order_ids: str = "abc") -> None:
    """Interleaved orders, so that every batch of two continues what the ones before began."""
    for event in (placed(), paid(), shipped()):
        for order_id in order_ids:
            await recorder.record(order_id, event)


async def assert_equal_to_the_log(settings: Settings) -> None:
    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value(), read_models=["orders"]
    )


async def run_to_head(engine: Engine[OrderDocument]) -> None:
    while await engine.step():
        pass


async def test_the_next_page_is_read_while_the_store_is_busy(
    engine: Engine[OrderDocument], recorder: Recorder, store: WatchedStore, reads: list[int]
) -> None:
    await record_history(recorder)
    store.may_apply.clear()

    step = asyncio.create_task(engine.step())
    await eventually(lambda: reads == [0, 2])
    assert store.applied == 0
    store.may_apply.set()
    await step

    assert store.applied == 1, "the next batch is sent in the next step"
    assert engine.checkpoint is not None
    assert engine.checkpoint.position == BATCH


async def test_events_that_follow_a_page_prefetched_at_the_end_of_the_log_are_read_at_once(
    engine: Engine[OrderDocument], recorder: Recorder, reads: list[int]
) -> None:
    await recorder.record("a", placed())
    await recorder.record("a", paid())
    await engine.step()
    assert reads == [0, 2], "the page after the batch was read, and was empty"
    for order_id in "bc":
        await recorder.record(order_id, placed())

    await engine.step()

    assert engine.checkpoint is not None
    assert engine.checkpoint.position == 2 * BATCH


async def test_documents_just_written_are_not_loaded(
    engine: Engine[OrderDocument], recorder: Recorder, store: WatchedStore, settings: Settings
) -> None:
    await record_history(recorder)

    await run_to_head(engine)

    assert store.loaded == []
    await assert_equal_to_the_log(settings)


async def test_documents_that_left_the_cache_are_loaded_as_of_the_batch_before(
    engine: Engine[OrderDocument], recorder: Recorder, store: WatchedStore, settings: Settings
) -> None:
    engine._loader.cache = DocumentCache(max_bytes=0)
    await record_history(recorder, "abcd")

    await run_to_head(engine)

    assert store.loaded
    assert store.claims == 1, "it never asked for a later checkpoint"
    await assert_equal_to_the_log(settings)


@pytest.mark.promise(
    "read-models", "A prefetched page and cached documents are used only at the checkpoint that they belong to"
)
async def test_a_refused_apply_empties_the_cache_and_drops_the_prefetched_page(
    engine: Engine[OrderDocument], recorder: Recorder, redis: Redis, store: WatchedStore, settings: Settings
) -> None:
    inspected = InspectedRedis(redis)
    await record_history(recorder)
    await engine.step()
    older = await inspected.copy()
    await engine.step()
    await inspected.put_back(older)

    await run_to_head(engine)

    assert {"a", "b"} <= set(store.loaded), "as the store has them"
    await assert_equal_to_the_log(settings)


@pytest.mark.promise(
    "read-models", "A prefetched page and cached documents are used only at the checkpoint that they belong to"
)
async def test_a_prefetched_page_is_not_used_once_the_log_is_another(
    engine: Engine[OrderDocument],
    recorder: Recorder,
    fresh_log: FreshLog,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, "LOG_SECONDS", 0.0)
    await record_history(recorder, "abc")
    await engine.step()

    await fresh_log.begin()
    await record_history(recorder, "xyz")
    await run_to_head(engine)

    await assert_equal_to_the_log(settings)


async def test_a_failed_apply_is_raised_even_when_the_prefetch_fails_too(
    engine: Engine[OrderDocument],
    recorder: Recorder,
    session: LogSession,
    store: WatchedStore,
    reads: list[int],
    settings: Settings,
) -> None:
    log = recorder.connection
    await record_history(recorder)
    await engine.step()
    store.breaks = True
    store.may_apply.clear()

    async def waiting() -> bool:
        return bool(await log.fetchval("select count(*) from pg_locks where pid = $1 and not granted", session.pid))

    async with log.transaction():
        await log.execute("lock table events")
        step = asyncio.create_task(engine.step())
        await eventually(waiting)
        await log.execute("select pg_cancel_backend($1)", session.pid)
        await eventually(lambda: reads[-1] == 4)
        store.may_apply.set()
        with pytest.raises(ConnectionCut):
            await step

    await run_to_head(engine)
    await assert_equal_to_the_log(settings)


@pytest.mark.promise("memory", "A batch is bounded in bytes: of events, of loaded documents and of written ones")
@pytest.mark.parametrize(("bound", "batches"), [("document_loader.LOADED_BYTES", 5), ("engine.WRITTEN_BYTES", 12)])
@pytest.mark.bound("projector", "one batch")
async def test_a_batch_holds_no_more_than_fits(
    engine: Engine[OrderDocument],
    recorder: Recorder,
    store: WatchedStore,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    batches: int,
) -> None:
    monkeypatch.setattr(f"projector.{bound}", 1)
    engine._loader.cache = DocumentCache(max_bytes=0)
    engine.prefetch = False
    store.waits = False
    engine._batch_size = 100
    await record_history(recorder, "abcd")
    await engine.step()
    for order_id in "abcd":
        await recorder.record(order_id, delivered())

    await run_to_head(engine)

    assert store.applied >= batches
    await assert_equal_to_the_log(settings)


@pytest.mark.promise("read-models", "The projector's document cache is bounded")
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40)) | st.sampled_from("abcdef")))
@pytest.mark.bound("projector", "cached documents of a read model")
def test_the_cache_holds_the_last_of_each_document_and_never_more_than_its_bound(
    puts_and_drops: list[tuple[str, int] | str],
) -> None:
    cache: DocumentCache[Any] = DocumentCache(max_bytes=50)
    last: dict[str, tuple[int, int]] = {}
    for nr, act in enumerate(puts_and_drops):
        if isinstance(act, tuple):
            name, size = act
            cache.put(name, cast("Any", nr), size)
            last.pop(name, None)
            last[name] = nr, size
            assert cache.get(name) == nr
        else:
            cache.drop(act)
            last.pop(act, None)

    found = {name for name in "abcdef" if cache.get(name) is not None}
    assert all(cache.get(name) == last[name][0] for name in found)
    assert cache.bytes == sum(last[name][1] for name in found) <= 50
    assert [*last][len(last) - len(found) :] == [name for name in last if name in found], "the oldest are evicted"
