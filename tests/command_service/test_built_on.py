"""Requests that are built on others: their order, and what becomes of them. On the event store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from uuid_utils.compat import uuid7

from command_service.append_queue import AppendQueueFull, Pending
from command_service.group_commit import AppendOutcomeUnknown, GroupCommit
from shared.eventstore.append_request import AppendRequest, AppendResult, AppendStatus, StreamAppend
from shared.eventstore.memory import InMemoryEventStore
from tests.command_service.processes import committing
from tests.running import eventually
from tests.shared.test_event_store import append, happened

APPENDED, CONFLICT = AppendStatus.APPENDED, AppendStatus.CONFLICT


class HeldStore(InMemoryEventStore):
    """Appends each group only once the test says what becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[str]] = []  # the own streams of their requests
        self._errors: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def append_group(self, group: Sequence[AppendRequest]) -> list[AppendResult]:
        self.groups.append([request.streams[0].stream_id for request in group])
        if (error := await self._errors.get()) is not None:
            raise error
        return await super().append_group(group)

    def let_pass(self, groups: int = 1) -> None:
        for _ in range(groups):
            self._errors.put_nowait(None)

    def let_fail(self, error: Exception) -> None:
        self._errors.put_nowait(error)


@pytest.fixture
async def store() -> HeldStore:
    return HeldStore()


@pytest.fixture
async def commit(store: HeldStore) -> AsyncIterator[GroupCommit]:
    async with committing(store.open_session, queue_size=20, group_size=5) as group_commit:
        yield group_commit
        store.let_pass(20)


async def sent(store: HeldStore, commit: GroupCommit, request: AppendRequest) -> Pending:
    """A request that is with the store: what is submitted after it goes into the next group."""
    groups = len(store.groups)
    pending = commit.submit(request)
    await eventually(lambda: len(store.groups) > groups)
    return pending


async def log_of(store: HeldStore) -> list[tuple[str, int]]:
    return [(event.stream_id, event.version) async for event in store.read_all()]


async def test_requests_on_one_stream_travel_in_one_group_in_their_order(store: HeldStore, commit: GroupCommit) -> None:
    await sent(store, commit, append("other"))
    one = commit.submit(append("hot", events=2))
    two = commit.submit(append("hot", 2), [one])
    three = commit.submit(append("hot", 3), [two])
    store.let_pass(2)
    results = [await pending for pending in (one, two, three)]
    assert [(result.status, result.version) for result in results] == [(APPENDED, 2), (APPENDED, 3), (APPENDED, 4)]
    assert store.groups == [["other"], ["hot", "hot", "hot"]]


async def test_a_key_comes_once_in_a_group_and_what_follows_on_its_streams_waits_with_it(
    store: HeldStore, commit: GroupCommit
) -> None:
    await sent(store, commit, append("first"))
    over_both = AppendRequest((StreamAppend("warm", 0, [happened()]), StreamAppend("hot", 2)), uuid7())
    pending = [
        commit.submit(append("cold", key="key")),
        commit.submit(append("hot", key="key")),
        commit.submit(append("hot", 1)),
        commit.submit(over_both),
        commit.submit(append("warm", 1)),
        commit.submit(append("free")),
    ]
    store.let_pass(3)
    await asyncio.gather(*(one.settled() for one in pending))
    assert store.groups == [["first"], ["cold", "free"], ["hot", "hot", "warm", "warm"]]


async def test_a_group_is_bounded_in_commands_and_in_size(store: HeldStore, commit: GroupCommit) -> None:
    await sent(store, commit, append("first"))
    large = AppendRequest.of_stream("large", 0, uuid7(), [happened(f'"{"x" * 5_000_000}"')])
    pending = [commit.submit(append(f"small-{number}")) for number in range(6)]
    pending += [commit.submit(large), commit.submit(append("last"))]
    store.let_pass(4)
    await asyncio.gather(*(one.settled() for one in pending))
    assert [len(group) for group in store.groups] == [1, 5, 2, 1]


async def test_the_queue_is_bounded_in_commands(store: HeldStore, commit: GroupCommit) -> None:
    await sent(store, commit, append("first"))
    for number in range(20):
        commit.submit(append(f"order-{number}"))
    with pytest.raises(AppendQueueFull):
        commit.submit(append("order-21"))


async def test_what_is_built_on_a_conflict_conflicts_in_the_same_group_and_in_later_ones(
    store: HeldStore, commit: GroupCommit
) -> None:
    await sent(store, commit, append("hot"))
    failed = commit.submit(append("hot", 0))
    same_group = commit.submit(append("hot", 1), [failed])
    store.let_pass()
    await eventually(lambda: len(store.groups) == 2)
    next_group = commit.submit(append("hot", 1), [same_group])
    over_two = commit.submit(AppendRequest((StreamAppend("cold", 0), StreamAppend("hot", 1)), uuid7()), [next_group])
    store.let_pass()
    assert [(await one).status for one in (failed, same_group, next_group, over_two)] == [CONFLICT] * 4
    assert len(store.groups) == 2, "what is bound to fail is not sent"
    assert await log_of(store) == [("hot", 1)]


async def test_the_answer_to_what_was_not_sent_names_the_log_that_answered_last(
    store: HeldStore, commit: GroupCommit
) -> None:
    failed = await sent(store, commit, append("hot", 5))
    request = append("hot", 6)
    dependent = commit.submit(request, [failed])
    store.let_pass()
    assert await dependent == (CONFLICT, request.command_id, "hot", 0, 0, store.log_id)


@pytest.mark.parametrize("status", [AppendStatus.REPLAYED, AppendStatus.KEY_REUSED])
async def test_what_is_built_on_a_request_whose_key_was_seen_conflicts(
    store: HeldStore, commit: GroupCommit, status: AppendStatus
) -> None:
    store.let_pass()
    await commit.submit(append("hot", key="key"))
    again = append("hot", 1, key="key")
    if status is AppendStatus.KEY_REUSED:
        again = again._replace(fingerprint=b"other request")
    seen = await sent(store, commit, again)
    dependent = commit.submit(append("hot", 1), [seen])
    store.let_pass()
    assert [(await seen).status, (await dependent).status] == [status, CONFLICT]


@pytest.mark.promise("commands", "No command is appended that was decided on an event which was not")
@pytest.mark.parametrize("error", [ConnectionError("cut"), TimeoutError()], ids=["cut", "slow"])
async def test_what_is_built_on_an_unknown_outcome_conflicts(
    store: HeldStore, commit: GroupCommit, error: Exception
) -> None:
    unknown = await sent(store, commit, append("hot"))
    dependent = commit.submit(append("hot", 1), [unknown])
    free = commit.submit(append("cold"))
    store.let_fail(error)
    store.let_pass()
    with pytest.raises(AppendOutcomeUnknown):
        await unknown
    assert (await dependent).status is CONFLICT
    assert (await free).status is APPENDED
    assert await log_of(store) == [("cold", 1)]


async def test_what_is_built_on_a_request_whose_client_went_away_before_it_was_sent_conflicts(
    store: HeldStore, commit: GroupCommit
) -> None:
    await sent(store, commit, append("first"))
    gone = commit.submit(append("hot"))
    dependent = commit.submit(append("hot", 1), [gone])
    await _go_away(gone)
    store.let_pass(2)
    assert (await dependent).status is CONFLICT
    assert gone.appended is False
    assert await log_of(store) == [("first", 1)]


async def test_a_client_that_goes_away_after_its_request_was_sent_fails_no_other(
    store: HeldStore, commit: GroupCommit
) -> None:
    gone = await sent(store, commit, append("hot"))
    dependent = commit.submit(append("hot", 1), [gone])
    await _go_away(gone)
    store.let_pass(2)
    assert (await dependent).status is APPENDED
    assert await log_of(store) == [("hot", 1), ("hot", 2)]


async def test_a_chain_of_requests_does_not_keep_those_that_are_finished_in_memory(
    store: HeldStore, commit: GroupCommit
) -> None:
    store.let_pass(10)
    last: list[Pending] = []
    for version in range(5):
        last = [commit.submit(append("hot", version), last)]
        await last[0]
        assert last[0].built_on == ()


async def _go_away(pending: Pending) -> None:
    """The client that awaits the request does."""
    waiting = asyncio.ensure_future(pending)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
