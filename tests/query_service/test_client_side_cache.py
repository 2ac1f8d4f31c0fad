"""The cache against a model of Redis, which sends each invalidation once, in one order with its answers."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeAlias
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_service.client_side_cache import ClientSideCache
from query_service.read_result import Document, LiveGeneration, ReadPosition
from shared.eventstore.token import ConsistencyToken
from shared.read_models.keys import Checkpoint, PartitionKeys, partition_of
from tests.effort import examples

LOG, OTHER_LOG = UUID(int=1), UUID(int=2)
FIRST = PartitionKeys("orders")
IDS = [str(number) for number in range(6)]


class Answer(NamedTuple):
    live: LiveGeneration
    partition: int
    at: ReadPosition
    documents: dict[str, Document]


Message: TypeAlias = "Answer | list[bytes] | None"


class ModelOfRedis:
    """A read model in generations of one to three partitions, written all the time, and read by one client."""

    def __init__(self) -> None:
        self.live = self._was_live = LiveGeneration(1, 0, 1)
        self.sent: deque[Message] = deque()  # and not received yet
        self._position = 0
        self._written = dict.fromkeys(IDS, 0)  # the last position that changed it
        self._history: dict[tuple[int, str], list[tuple[int, bytes]]] = {}  # (generation, id): each value, from where
        self._reached = {(1, 0): 0}
        self._tracked: set[bytes] = set()

    def write(self, document_id: str) -> None:
        self._position += 1
        self._written[document_id] = self._position
        partition = partition_of(document_id, self.live.partitions)
        keys = FIRST.of(self.live.number).each(self.live.partitions)[partition]
        self._put(document_id)
        self._reached[self.live.number, partition] = self._position
        self._changed(keys.document(document_id), keys.meta)

    def switch(self, partitions: int) -> None:
        """To a generation that was built meanwhile."""
        self._was_live = self.live
        generation, switches, _ = self.live
        self.live = LiveGeneration(generation + 1, switches + 1, partitions)
        for partition in range(partitions):
            self._reached[generation + 1, partition] = self._position
        for document_id in IDS:
            self._put(document_id)
        self._changed(FIRST.generations)

    def ask(self, partition: int, ids: list[str], live: LiveGeneration | None = None) -> None:
        """By a client that takes `live` for the live generation."""
        live = live or self.live
        if partition >= live.partitions or (partition == 0 and live != self.live):
            return
        keys = FIRST.of(live.number).each(live.partitions)[partition]
        mine = [one for one in ids if partition_of(one, live.partitions) == partition]
        position = self._reached[live.number, partition]
        documents = {one: self.value(live.number, one, position) for one in mine}
        self.sent.append(Answer(live, partition, at(position, live.number), documents))
        self._tracked |= {key.encode() for key in (keys.meta, *map(keys.document, mine))}
        if partition == 0:
            self._tracked.add(FIRST.generations.encode())

    def ask_for_the_generation_before(self, partition: int, ids: list[str]) -> None:
        self.ask(partition, ids, self._was_live)

    def flush(self) -> None:
        self.sent.append(None)
        self._tracked.clear()

    def reached(self, partition: int) -> int:
        return self._reached[self.live.number, partition]

    def value(self, generation: int, document_id: str, position: int) -> Document:
        """What a document of that generation was at a position."""
        known = [body for since, body in self._history.get((generation, document_id), []) if since <= position]
        return Document(known[-1], b"1") if known else Document(None, None)

    def _put(self, document_id: str) -> None:
        generation, written = self.live.number, self._written[document_id]
        if written:
            body = b"generation %d, written at %d" % (generation, written)
            self._history.setdefault((generation, document_id), []).append((written, body))

    def _changed(self, *keys: str) -> None:
        for key in keys:
            if key.encode() in self._tracked:
                self._tracked.remove(key.encode())
                self.sent.append([key.encode()])


def at(position: int, generation: int = 1, ready_at: int = 0) -> ReadPosition:
    checkpoint = Checkpoint(LOG, position, ready_at, generation)
    return ReadPosition(checkpoint, checkpoint.token.encode())


def receive(cache: ClientSideCache, message: Message) -> None:
    if isinstance(message, Answer):
        cache.store(*message)
    else:
        cache.invalidate(message)


ids = st.sampled_from(IDS)
# The first ones come most often: cached documents have to meet with changes.
steps = st.one_of(
    *[st.tuples(st.just("receive"), st.integers(1, 9))] * 3,
    *[st.tuples(st.just("write"), ids)] * 2,
    *[st.tuples(st.just("ask"), st.integers(0, 2), st.just(IDS) | st.lists(ids, unique=True))] * 3,
    st.tuples(st.just("ask_for_the_generation_before"), st.integers(1, 2), st.just(IDS)),
    st.tuples(st.just("switch"), st.integers(1, 3)),
    st.tuples(st.just("flush")),
)


@pytest.mark.promise("queries", "An answer from the cache is what Redis held at the position that the answer claims")
@settings(max_examples=examples(300))
@given(st.lists(steps, min_size=10, max_size=60), st.sampled_from([1_500, 100_000]))
def test_every_cached_answer_is_what_redis_held_at_the_position_that_it_claims(
    steps: list[tuple[str, *tuple[object, ...]]], most_bytes: int
) -> None:
    redis, cache = ModelOfRedis(), ClientSideCache("orders", most_bytes)
    claimed: dict[tuple[int, int], int] = {}
    for name, *arguments in steps:
        if name == "receive":
            for _ in range(min(len(redis.sent), int(str(arguments[0])))):
                receive(cache, redis.sent.popleft())
        else:
            getattr(redis, name)(*arguments)

        for document_id in IDS:
            known = cache.find(document_id, None)
            if known is not None:
                assert known.at is not None
                _, position, _, generation, _ = known.at.checkpoint
                assert known.value == redis.value(generation, document_id, position)
                # No position is claimed that is before one claimed earlier, or before the last message received.
                assert position >= claimed.get((generation, known.lagging_partition), 0)
                claimed[generation, known.lagging_partition] = position
                if not redis.sent:
                    assert (generation, position) == (redis.live.number, redis.reached(known.lagging_partition))


@pytest.mark.promise("queries", "Once all invalidations have arrived, the cache answers what Redis holds")
@given(st.lists(steps, max_size=60))
def test_once_all_invalidations_have_arrived_the_cache_answers_what_redis_holds(
    steps: list[tuple[str, *tuple[object, ...]]],
) -> None:
    redis, cache = ModelOfRedis(), ClientSideCache("orders", 100_000)
    for name, *arguments in steps:
        if name != "receive":
            getattr(redis, name)(*arguments)
    for partition in range(3):
        redis.ask(partition, IDS)
    while redis.sent:
        receive(cache, redis.sent.popleft())

    for document_id in IDS:
        known = cache.find(document_id, None)
        assert known is not None
        assert known.at is not None
        assert known.value == redis.value(redis.live.number, document_id, known.at.checkpoint.position)
        assert known.lagging_partition == partition_of(document_id, redis.live.partitions)


def cache_with(at: ReadPosition, most_bytes: int = 100_000, **documents: bytes) -> ClientSideCache:
    cache = ClientSideCache("orders", most_bytes)
    cache.store(LiveGeneration(1, 0, 1), 0, at, {name: Document(body, b"1") for name, body in documents.items()})
    return cache


def test_a_token_is_answered_only_by_a_checkpoint_that_has_reached_it() -> None:
    cache = cache_with(at(9), a=b"document")

    assert cache.find("a", ConsistencyToken(LOG, 9)) is not None
    assert cache.find("a", ConsistencyToken(LOG, 10)) is None
    assert cache.find("a", ConsistencyToken(OTHER_LOG, 1)) is None


def test_a_read_model_that_is_being_built_answers_nothing() -> None:
    assert cache_with(at(9, ready_at=10), a=b"document").find("a", None) is None


@pytest.mark.bound("query", "cached documents of a read model in Redis")
def test_the_least_recently_used_document_is_evicted_first() -> None:
    cache = cache_with(at(9), 2_000, a=b"x" * 500, b=b"x" * 500)
    cache.find("a", None)

    cache.store(LiveGeneration(1, 0, 1), 0, at(9), {"c": Document(b"x" * 500, b"1")})

    assert [name for name in "abc" if cache.find(name, None)] == ["a", "c"]


def test_a_document_larger_than_the_cache_is_not_cached() -> None:
    assert cache_with(at(9), 2_000, a=b"x" * 3_000).find("a", None) is None
