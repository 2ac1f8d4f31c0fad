"""A projection whose documents are folded from several streams, and whose events change several documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis

from projector.document_cache import DocumentCache
from projector.engine import Engine
from projector.folding import fold
from projector.projection import Entry, Projection, RecordedEvent
from projector.routing import PoisonEvent, route
from projector.stores.postgres import PostgresStore
from projector.stores.redis import RedisStore
from projector.stores.store import Store
from shared.aggregates.order import OrderPlaced
from shared.eventstore.lease import try_acquire
from shared.eventstore.subscription import LogSession
from shared.read_models.keys import PartitionKeys, partition_of
from shared.settings import OnPoison
from tests.orders import paid, placed
from tests.projector.histories import stored
from tests.projector.inspected_stores import load_all
from tests.recording import Recorder

EVERYBODY = "everybody"
CUSTOMERS = ("alice", "bob", "carol")


class Customer(msgspec.Struct, frozen=True):
    orders: tuple[str, ...]
    version: int


def customers_of(recorded: RecordedEvent[Any]) -> Sequence[str]:
    if recorded.category != "order" or not isinstance(recorded.event, OrderPlaced):
        return ()
    return recorded.event.customer_id, EVERYBODY


def add_order(_: str, document: Customer | None, recorded: RecordedEvent[Any]) -> Customer:
    orders, version = ((), 0) if document is None else (document.orders, document.version)
    return Customer((*orders, recorded.aggregate_id), version + 1)


def no_entries(_: Customer) -> frozenset[Entry]:
    return frozenset()


CUSTOMERS_ORDERS: Projection[Customer] = Projection("customers_orders", Customer, customers_of, add_order, no_entries)


class Sick:
    """The projection, which raises on an order of one customer while `order_id` is set."""

    def __init__(self) -> None:
        self.order_id: str | None = None
        self.projection = replace(CUSTOMERS_ORDERS, apply=self._apply)

    def _apply(self, document_id: str, document: Customer | None, recorded: RecordedEvent[Any]) -> Customer:
        if document_id != EVERYBODY and recorded.aggregate_id == self.order_id:
            raise ValueError("indigestible")
        return add_order(document_id, document, recorded)


@pytest.fixture(params=["redis", "postgresql"])
def stores(request: pytest.FixtureRequest, pool: asyncpg.Pool[asyncpg.Record], redis: Redis) -> list[Store]:
    """Two partitions in each store."""
    name = CUSTOMERS_ORDERS.name
    if request.param == "redis":
        return [RedisStore(redis, PartitionKeys(name, number), partitions=2) for number in (0, 1)]
    return [PostgresStore(pool, name, [], partition=number, partitions=2) for number in (0, 1)]


async def an_engine(
    session: LogSession,
    store: Store,
    projection: Projection[Customer] = CUSTOMERS_ORDERS,
    batch_size: int = 2,
    on_poison: OnPoison = "stop",
) -> Engine[Customer]:
    """One that caches no document, so that every batch depends on what the store has."""
    lease = await try_acquire(session, f"the lease on {id(store)}")
    assert lease is not None
    engine = Engine(projection, store, lease, batch_size, on_poison)
    engine._loader.cache = DocumentCache(max_bytes=0)
    return engine


async def run_to_head(engine: Engine[Any]) -> None:
    while await engine.step():
        pass


async def record_orders(recorder: Recorder, *order_ids: str) -> None:
    """Each of the next customer."""
    for order_id in order_ids:
        await recorder.record(order_id, placed(customer_id=CUSTOMERS[int(order_id) % 3]), paid())


async def documents_in(*stores: Store) -> dict[str, Customer]:
    found: dict[str, Customer] = {}
    for store in stores:
        checkpoint = await store.checkpoint()
        assert checkpoint is not None
        raw = await load_all(store, checkpoint, [*CUSTOMERS, EVERYBODY])
        assert not found.keys() & raw.keys(), "a document is in one partition"
        found |= {name: msgspec.json.decode(document, type=Customer) for name, document in raw.items()}
    return found


def orders_of_each(*order_ids: str) -> dict[str, Customer]:
    """What they have to be, recomputed."""
    expected = {
        name: tuple(order_id for order_id in order_ids if CUSTOMERS[int(order_id) % 3] == name) for name in CUSTOMERS
    }
    return {name: Customer(orders, len(orders)) for name, orders in {**expected, EVERYBODY: order_ids}.items()}


@pytest.mark.promise("read-models", "A document may be folded from several streams")
@pytest.mark.parametrize("batch_size", [1, 2, 1_000])
async def test_a_document_goes_on_with_the_events_of_other_streams(
    batch_size: int, session: LogSession, stores: list[Store], recorder: Recorder
) -> None:
    await record_orders(recorder, *"012345678")

    await run_to_head(await an_engine(session, stores[0], batch_size=batch_size))

    assert await documents_in(stores[0]) == orders_of_each(*"012345678")


@pytest.mark.promise("read-models", "An event is applied in the partition of each document that it changes")
async def test_an_event_is_handled_in_the_partition_of_each_document_that_it_changes(
    session: LogSession, stores: list[Store], recorder: Recorder
) -> None:
    await record_orders(recorder, *"012345678")

    for number, store in enumerate(stores):
        await run_to_head(await an_engine(session, store, CUSTOMERS_ORDERS.part(number, 2)))

    assert await documents_in(*stores) == orders_of_each(*"012345678")
    for number, store in enumerate(stores):
        assert {partition_of(name, 2) for name in await documents_in(store)} == {number}


@pytest.mark.promise("poison", "A parked document waits with the events of all its streams; a retry folds it on")
async def test_a_parked_document_waits_for_the_events_of_all_its_streams_and_is_folded_on_from_there(
    session: LogSession, stores: list[Store], recorder: Recorder
) -> None:
    sick, store = Sick(), stores[0]
    sick.order_id = "3"  # of alice, as 0, 6 and 9 are
    engine = await an_engine(session, store, sick.projection, on_poison="park")
    await record_orders(recorder, *"0123456789")

    await run_to_head(engine)

    found, expected = await documents_in(store), orders_of_each(*"0123456789")
    assert found.pop("alice") == Customer(("0",), 1)
    del expected["alice"]
    assert found == expected, "the others went on, also with the event that parked one"
    assert engine.checkpoint is not None
    (poison,) = await store.parked(engine.checkpoint)
    assert (poison.document_id, poison.stream_id, poison.waiting) == ("alice", "order-3", 2)

    sick.order_id = "6"  # it stops again, before an event of another stream
    await engine.step(retry=["alice"])
    (poison,) = await store.parked(engine.checkpoint)
    assert (poison.stream_id, poison.waiting) == ("order-6", 1)

    sick.order_id = None
    await engine.step(retry=["alice"])
    await record_orders(recorder, "10", "11", "12")
    await run_to_head(engine)

    assert await store.parked(engine.checkpoint) == []
    assert await documents_in(store) == orders_of_each(*map(str, range(13)))


@pytest.mark.promise("read-models", "An event that stops a projection changes none of its documents")
async def test_an_event_that_is_not_passed_changes_none_of_its_documents(
    session: LogSession, stores: list[Store], recorder: Recorder
) -> None:
    sick, store = Sick(), stores[0]
    sick.order_id = "4"
    engine = await an_engine(session, store, sick.projection, batch_size=1_000)
    await record_orders(recorder, *"012345")

    with pytest.raises(PoisonEvent, match="order-4"):
        await run_to_head(engine)
    assert await documents_in(store) == orders_of_each(*"0123")

    sick.order_id = None
    await run_to_head(engine)
    assert await documents_in(store) == orders_of_each(*"012345")


def test_the_documents_of_an_event_that_ends_the_fold_are_as_before_it() -> None:
    def last_fails(document_id: str, document: Customer | None, recorded: RecordedEvent[Any]) -> Customer:
        if document_id == EVERYBODY and recorded.position == 2:
            raise ValueError("indigestible")
        return add_order(document_id, document, recorded)

    projection = replace(CUSTOMERS_ORDERS, apply=last_fails)
    log = [stored(placed(customer_id=name), str(nr), 1, nr) for nr, name in enumerate(("alice", "bob"), start=1)]

    folded = fold(projection, route(projection, log), {})

    assert folded.poison is not None
    assert folded.documents.keys() == {"alice", EVERYBODY}
    assert folded.events == 1


async def test_an_event_of_which_nobody_can_tell_which_documents_it_changes_stops_the_projection(
    session: LogSession, stores: list[Store], recorder: Recorder
) -> None:
    await record_orders(recorder, "0", "1")
    position = await recorder.record_raw("2", "OrderTeleported", 1, "{}")
    engine = await an_engine(session, stores[0], on_poison="park")

    with pytest.raises(PoisonEvent) as stopped:
        await run_to_head(engine)

    assert stopped.value.event.position == position
    assert engine.checkpoint is not None
    assert engine.checkpoint.position == position - 1


async def test_a_wrong_guess_that_a_document_is_new_makes_no_event_poison(
    session: LogSession, stores: list[Store], recorder: Recorder
) -> None:
    """Though it could not be applied to a new document."""

    def apply(document_id: str, document: Customer | None, recorded: RecordedEvent[Any]) -> Customer:
        if document is None and recorded.aggregate_id != "0":
            raise ValueError("it has to be there already")
        return add_order(document_id, document, recorded)

    projection = replace(CUSTOMERS_ORDERS, apply=apply, route=lambda event: customers_of(event)[1:])
    await record_orders(recorder, "0", "1", "2")

    await run_to_head(await an_engine(session, stores[0], projection))

    assert Counter((await documents_in(stores[0]))[EVERYBODY].orders) == Counter("012")
