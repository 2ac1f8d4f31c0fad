"""Documents that came with the announcement of a checkpoint: alone, and from the projector's store to a reader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from redis.asyncio import Redis

from projector.folding import Changes
from projector.stores import Batch, Verdict
from projector.stores.redis import RedisShelf
from query_service import announced as announcing
from query_service.announced import MOMENT_SECONDS, Announced
from query_service.news import News
from query_service.reader import Reader
from shared.eventstore.token import ConsistencyToken
from shared.read_models.checkpoint_message import Announcement, Written, WrittenDocument
from shared.read_models.keys import Checkpoint
from shared.read_models.poison import Poison
from tests.projector.test_stores import poison
from tests.query_service.test_reader import scripts_run
from tests.running import eventually

LOG, OTHER_LOG = UUID(int=1), UUID(int=2)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def heard(clock: Clock, position: int = 7, generation: int = 1) -> Announced:
    """The document "a" of version 3, as of that position of `LOG`."""
    announced = Announced(clock)
    announced.live(1, clock.now)
    announced.hear(0, announcement(position, generation))
    return announced


def announcement(position: int, generation: int = 1, body: str = "{}", document_id: str = "a") -> Announcement:
    written = Written(generation, [WrittenDocument(document_id, body, "3")])
    return Announcement(ConsistencyToken(LOG, position), written)


def finds(announced: Announced, position: int, log_id: UUID = LOG, document_id: str = "a") -> bytes | None:
    found = announced.find(document_id, ConsistencyToken(log_id, position))
    return None if found is None else found.value.body


def test_it_is_answered_as_of_the_position_that_it_came_with() -> None:
    found = heard(Clock()).find("a", ConsistencyToken(LOG, 5))

    assert found is not None
    assert found.at is not None
    assert (found.at.checkpoint.position, found.at.token) == (7, ConsistencyToken(LOG, 7).encode())
    assert (found.value.body, found.value.version, found.value.parked) == (b"{}", b"3", None)


def test_it_is_for_tokens_that_it_shows() -> None:
    announced = heard(Clock())

    assert finds(announced, 7) == b"{}"
    assert finds(announced, 8) is None
    assert finds(announced, 7, OTHER_LOG) is None
    assert finds(announced, 7, document_id="b") is None


def test_it_is_kept_for_a_moment() -> None:
    clock = Clock()
    announced = heard(clock)

    clock.now = MOMENT_SECONDS
    announced.live(1, clock.now)

    assert finds(announced, 7) is None


def test_what_is_later_takes_its_place() -> None:
    announced = heard(Clock())

    announced.hear(0, announcement(8, body="later"))

    assert finds(announced, 7) == b"later"


def test_an_announcement_that_says_nothing_of_documents_may_have_changed_any() -> None:
    announced = heard(Clock())

    announced.hear(0, Announcement(ConsistencyToken(LOG, 8)))

    assert finds(announced, 7) is None


def test_another_generation_is_not_believed_to_be_live_because_it_is_announced() -> None:
    announced = heard(Clock(), generation=2)

    assert finds(announced, 7) is None
    announced.live(2, 0.0)
    assert finds(announced, 7) == b"{}"


def test_which_generation_is_live_is_known_for_a_moment_only() -> None:
    clock = Clock()
    announced = heard(clock)

    clock.now = MOMENT_SECONDS
    announced.hear(0, announcement(8))

    assert finds(announced, 8) is None
    announced.live(1, clock.now)
    assert finds(announced, 8) == b"{}"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc")),
        st.tuples(st.just("write much"), st.sampled_from("abc")),
        st.tuples(st.just("pass"), st.floats(0, MOMENT_SECONDS)),
    )
)


@for_all(steps, st.sampled_from("abc"), st.integers(0, 20))
def test_whatever_is_found_stood_at_the_position_that_it_claims_a_moment_ago(
    steps: list[tuple[str, str | float]], document_id: str, wanted: int
) -> None:
    clock = Clock()
    announced = Announced(clock)
    written: list[tuple[float, str, int]] = []
    for what, which in steps:
        if isinstance(which, float):
            clock.now += which
            announced.live(1, clock.now)
            continue
        position = len(written) + 1
        written.append((clock.now, which, position))
        said = announcement(position, body=str(position), document_id=which)
        announced.hear(0, said if what == "write" else said._replace(written=None))

    found = announced.find(document_id, ConsistencyToken(LOG, wanted))

    if found is not None:
        assert found.at is not None
        position = found.at.checkpoint.position
        assert position >= wanted
        last_at, _, last = max(
            (one for one in written if one[1] == document_id and one[2] <= position), key=lambda one: one[2]
        )
        assert found.value.body == b"%d" % last
        assert clock.now - last_at < MOMENT_SECONDS
        assert last == max(one[2] for one in written if one[1] == document_id), "there is none later that was told"


class Shown:
    """A partition that is written as the projector does, and read as the query service does."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.store = RedisShelf(redis, "orders", 1).store(1)
        announced = Announced()
        self.news = News(redis, "orders", announced)
        self.reader = Reader(redis, "orders", announced=announced)
        self.checkpoint = Checkpoint(LOG, 0, 0, 1)

    async def begin(self) -> None:
        await self.store.claim(epoch=1)
        self.checkpoint = await self.store.reset(1, LOG, serve_from=0)
        self.news.start()
        await eventually(self._listens)
        await self.reader.document("a")  # from Redis, which says that generation 1 is live

    async def write(self, *ids: str, **parked: Poison) -> ConsistencyToken:
        """Writes those documents and waits for the news; the token that shows them."""
        position = self.checkpoint.position + 1
        documents = {name: {"document": f'{{"at":{position}}}', "version": str(position)} for name in ids}
        parking = str(position) if parked else ""
        batch = Batch(self.checkpoint, position, bytes(32), Changes(documents, {}, {}), parked, (), parking)
        count = self.news.count
        assert await self.store.apply(batch, epoch=1) is Verdict.APPLIED

        async def told() -> bool:
            return self.news.count > count

        await eventually(told)
        self.checkpoint = batch.reached
        return self.checkpoint.token

    async def asks(self, document_id: str, token: ConsistencyToken | None) -> bool:
        """Whether a read of that document goes to Redis; what it gives is what Redis has in any case."""
        before = await scripts_run(self.redis)
        at, value, _ = await self.reader.document(document_id, token)
        asked = await scripts_run(self.redis) > before
        stored = await self.redis.hmget(self.store._keys.document(document_id), "document", "version", "parked")
        assert at is not None
        assert at.checkpoint.position == self.checkpoint.position
        assert [*value] == stored
        return asked

    async def _listens(self) -> bool:
        return await self.redis.pubsub_numpat() == 1


@pytest.fixture
async def shown(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shown]:
    monkeypatch.setattr(announcing, "MOMENT_SECONDS", inf)  # so that no test depends on how fast it is
    shown = Shown(redis)
    await shown.begin()
    yield shown
    await shown.news.close()
    await shown.reader.close()


async def test_who_reads_what_was_just_written_does_not_ask_redis(shown: Shown) -> None:
    token = await shown.write("a", "b")

    assert not await shown.asks("a", token)
    assert not await shown.asks("b", token)
    assert await shown.asks("c", token)
    assert await shown.asks("a", None), "who brings no token is given the newest"


async def test_of_many_documents_who_reads_them_asks_redis(shown: Shown) -> None:
    await shown.write("a")
    token = await shown.write("a", *map(str, range(100)))

    assert await shown.asks("a", token)


async def test_of_what_is_parked_redis_is_asked(shown: Shown) -> None:
    await shown.write("a")
    token = await shown.write("b", a=poison("a", 2))

    assert await shown.asks("a", token)
