"""What an engine keeps in memory between batches: the next batch, folded ahead, and documents written last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector import engine as engine_module
from projector.engine import Engine
from projector.kept import Kept
from projector.lease import Lease
from projector.projections.orders import ORDERS, OrderDocument
from projector.session import Session
from projector.stores import Batch, Standing, Verdict
from shared.event_store import Head, StoredEvent
from shared.read_model_keys import Checkpoint
from tests.orders import paid, placed, shipped
from tests.projector.histories import stored
from tests.projector.memory import MemoryLog, MemoryStore
from tests.projector.test_parking import folded
from tests.running import eventually

BATCH = 2


class WatchedStore(MemoryStore):
    """Says what was asked of it. Takes its time to apply, and waits until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.applied = self.claims = 0
        self.may_apply = asyncio.Event()
        self.may_apply.set()

    async def claim(self, epoch: int) -> Standing | None:
        self.claims += 1
        return await super().claim(epoch)

    async def load(self, expected: Checkpoint, document_ids: Sequence[str]) -> dict[str, bytes]:
        self.loaded += document_ids
        return await super().load(expected, document_ids)

    async def apply(self, batch: Batch, epoch: int) -> Verdict:
        for _ in range(100):
            await asyncio.sleep(0)
        await self.may_apply.wait()
        self.applied += 1
        return await super().apply(batch, epoch)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    log = MemoryLog()
    log.install(monkeypatch)
    return log


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def engine(store: WatchedStore) -> Engine[OrderDocument]:
    return Engine(ORDERS, store, Lease(Session(cast("Any", None)), 1, ""), BATCH)


def history(customers: str = "abc") -> list[StoredEvent]:
    """Orders that take turns, so that every batch of two goes on with what the ones before began."""
    steps = [(event, order_id) for event in (placed(), paid(), shipped()) for order_id in customers]
    return [stored(event, order_id, 1 + nr // len(customers), nr + 1) for nr, (event, order_id) in enumerate(steps)]


def assert_equal_to(log: MemoryLog, store: MemoryStore) -> None:
    streams = {event.stream_id for event in log.events}
    expected = [folded([event for event in log.events if event.stream_id == stream]) for stream in streams]
    assert {name: fields["document"] for name, fields in store.contents.documents.items()} == {
        document.order_id: msgspec.json.encode(document).decode() for document in expected if document
    }


async def run_to_head(engine: Engine[OrderDocument]) -> None:
    while await engine.step():
        pass


async def test_the_next_batch_is_read_and_folded_while_the_store_is_busy(
    engine: Engine[OrderDocument], log: MemoryLog, store: WatchedStore
) -> None:
    log.events = history()
    seen: list[int] = []
    read = log._read_batch

    async def watched(connection: object, after: int, limit: int) -> list[StoredEvent]:
        seen.append(after)
        return await read(connection, after, limit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.event_store.read_batch", watched)
        store.may_apply.clear()
        step = asyncio.create_task(engine.step())
        await eventually(lambda: seen == [0, 2, 4])
        assert store.applied == 0
        store.may_apply.set()
        await step

    assert store.applied == 1, "the next is sent when this one was answered"
    assert engine.checkpoint is not None
    assert engine.checkpoint.position == BATCH


async def test_documents_just_written_are_not_loaded(
    engine: Engine[OrderDocument], log: MemoryLog, store: WatchedStore
) -> None:
    log.events = history()

    await run_to_head(engine)

    assert store.loaded == []
    assert_equal_to(log, store)


async def test_documents_that_were_let_go_are_loaded_as_of_the_batch_before(
    engine: Engine[OrderDocument], log: MemoryLog, store: WatchedStore
) -> None:
    engine._kept = Kept(most_bytes=0)
    log.events = history("abcd")

    await run_to_head(engine)

    assert store.loaded
    assert store.claims == 1, "it never asked for what was not there yet"
    assert_equal_to(log, store)


async def test_a_refused_apply_drops_what_was_kept_and_what_was_folded_ahead(
    engine: Engine[OrderDocument], log: MemoryLog, store: WatchedStore
) -> None:
    log.events = history()
    await engine.step()
    older = deepcopy(store.contents)
    await engine.step()
    store.contents = older

    await run_to_head(engine)

    assert {"a", "b"} <= set(store.loaded), "as the store has them"
    assert_equal_to(log, store)


async def test_a_batch_folded_ahead_is_not_used_once_the_log_is_another(
    engine: Engine[OrderDocument], log: MemoryLog, store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LOG_SECONDS", 0.0)
    log.events = history("abc")
    await engine.step()

    log.events = history("xyz")

    async def read_head(_: object) -> Head:
        return Head(UUID(int=2), len(log.events), None)

    monkeypatch.setattr("shared.event_store.read_head", read_head)
    await run_to_head(engine)

    assert_equal_to(log, store)


async def test_what_is_wrong_with_an_apply_is_said_even_when_the_read_ahead_fails_too(
    engine: Engine[OrderDocument], log: MemoryLog, store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.events = history()
    await engine.step()
    store.fail = "before"

    async def lost(*_: object) -> list[StoredEvent]:
        raise OSError

    monkeypatch.setattr("shared.event_store.read_batch", lost)
    with pytest.raises(ConnectionError):
        await engine.step()

    log.install(monkeypatch)
    await run_to_head(engine)
    assert_equal_to(log, store)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40)) | st.sampled_from("abcdef")))
def test_what_is_kept_is_the_last_of_each_and_never_more_than_the_bound(
    puts_and_drops: list[tuple[str, int] | str],
) -> None:
    kept: Kept[Any] = Kept(most_bytes=50)
    last: dict[str, tuple[int, int]] = {}
    for nr, act in enumerate(puts_and_drops):
        if isinstance(act, tuple):
            name, size = act
            kept.put(name, cast("Any", nr), size)
            last.pop(name, None)
            last[name] = nr, size
            assert kept.get(name) == nr
        else:
            kept.drop(act)
            last.pop(act, None)

    found = {name for name in "abcdef" if kept.get(name) is not None}
    assert all(kept.get(name) == last[name][0] for name in found)
    assert kept.bytes == sum(last[name][1] for name in found) <= 50
    assert [*last][len(last) - len(found) :] == [name for name in last if name in found], "the longest untouched go"
