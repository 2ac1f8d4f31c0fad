"""Slots that clients share: each in turn, none takes them all."""

from __future__ import annotations

import asyncio

import pytest

from query_service import fair_queue
from query_service.fair_queue import FairQueue, TooManyCostlyReads


class Reads:
    """Reads that end when told; `served` names the client of each in the order in which they got a slot."""

    def __init__(self, queue: FairQueue) -> None:
        self.served: list[str] = []
        self._queue = queue
        self._ends: list[asyncio.Event] = []

    def begin(self, client: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._read(client))

    async def _read(self, client: str) -> None:
        async with self._queue.slot(client):
            self.served.append(client)
            end = asyncio.Event()
            self._ends.append(end)
            await end.wait()

    async def end(self, count: int = 1) -> None:
        for _ in range(count):
            self._ends.pop(0).set()
            await settled()

    def let_all_end(self) -> None:
        for end in self._ends:
            end.set()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def reads() -> Reads:
    return Reads(FairQueue(4))


@pytest.mark.bound("query", "histories, folds, pages for event streams, and reports read at once")
async def test_one_client_gets_half_of_the_slots(reads: Reads) -> None:
    tasks = [reads.begin("a") for _ in range(5)]
    await settled()
    assert reads.served == ["a", "a"]
    tasks.append(reads.begin("b"))
    await settled()
    assert reads.served == ["a", "a", "b"], "another client need not wait"
    await reads.end(6)
    assert reads.served.count("a") == 5
    await asyncio.gather(*tasks)


async def test_clients_that_wait_are_served_in_turn(reads: Reads) -> None:
    tasks = [reads.begin(client) for client in "aaaaaa" + "bbb" + "cc"]
    await settled()
    assert reads.served == ["a", "a", "b", "b"]
    await reads.end(7)
    assert reads.served == [*"aabb", *"acbaca"], "each in turn, and none has more than two slots"
    await reads.end(4)
    await asyncio.gather(*tasks)


@pytest.mark.bound("query", "requests that wait for one of these")
async def test_more_requests_than_may_wait_are_refused(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "MAX_WAITING_OF_CLIENT", 3)
    monkeypatch.setattr(fair_queue, "MAX_WAITING", 5)
    tasks = [reads.begin("a") for _ in range(6)]
    await settled()
    assert [task.done() for task in tasks] == [False] * 5 + [True]
    with pytest.raises(TooManyCostlyReads):
        await tasks.pop()
    tasks += [reads.begin(client) for client in "bbbbc"]
    await settled()
    with pytest.raises(TooManyCostlyReads):
        await tasks.pop()
    await reads.end(9)
    await asyncio.gather(*tasks)


async def test_a_request_does_not_wait_for_ever(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "WAIT_SECONDS", 0.01)
    tasks = [reads.begin("a") for _ in range(3)]
    with pytest.raises(TooManyCostlyReads):
        await tasks.pop()
    await reads.end(2)
    await asyncio.gather(*tasks)


async def test_a_request_that_is_given_up_leaves_its_slot_to_the_next(reads: Reads) -> None:
    tasks = [reads.begin("a") for _ in range(5)]
    await settled()
    tasks[0].cancel()  # has a slot
    tasks[2].cancel()  # waits
    await settled()
    assert reads.served == ["a", "a", "a"]
    reads.let_all_end()
    await asyncio.sleep(0)
    tasks[4].cancel()  # gets a slot in the same turn of the loop
    await asyncio.gather(*tasks, return_exceptions=True)

    again = [reads.begin(client) for client in "abcd"]
    await settled()
    assert reads.served[-4:] == [*"abcd"], "no slot is lost"
    reads.let_all_end()
    await asyncio.gather(*again)
