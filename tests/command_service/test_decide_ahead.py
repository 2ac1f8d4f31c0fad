"""Commands on one stream are decided on the state that is on its way to the log, and none is lost, doubled or refused
because of a state that never came about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from command_service import handler as module
from command_service.decision import CommandMetadata
from command_service.group_commit import AppendOutcomeUnknown
from command_service.handler import Handler, KeyReused
from command_service.snapshot_saver import MAX_SAVING
from shared.eventstore import codec
from shared.eventstore.append_request import AppendRequest, AppendResult, NewEvent, StreamAppend
from shared.eventstore.memory import InMemoryEventStore
from tests.command_service.processes import handling
from tests.running import eventually
from tests.toy.aggregates.wallet import WALLET, WalletChanged
from tests.toy.domain.wallet import Deposit, TooLittle, Transfer, Withdraw
from tests.toy.registered import toy_registered


@pytest.fixture(autouse=True)
def _wallets() -> Iterator[None]:
    with toy_registered():
        yield


class Gate:
    """A session whose groups wait until the test lets them go on."""

    def __init__(self, store: InMemoryEventStore) -> None:
        self._store = store
        self.groups: list[list[AppendRequest]] = []
        self._next: asyncio.Queue[Exception | None] = asyncio.Queue()

    def release(self, groups: int = 1) -> None:
        for _ in range(groups):
            self._next.put_nowait(None)

    def fail(self) -> None:
        self._next.put_nowait(ConnectionResetError())

    async def append_group(self, group: Sequence[AppendRequest]) -> list[AppendResult]:
        self.groups.append(list(group))
        if (error := await self._next.get()) is not None:
            raise error
        return await self._store.append_group(group)

    def is_closed(self) -> bool:
        return False

    async def close(self) -> None:
        """Stays."""

    def terminate(self) -> None:
        """Stays."""


class Process:
    """A handler whose groups wait at a gate."""

    def __init__(self, store: InMemoryEventStore, handler: Handler, gate: Gate) -> None:
        self.store, self.handler, self.gate = store, handler, gate

    def start(self, command: Any, **metadata: Any) -> asyncio.Task[AppendResult]:
        return asyncio.create_task(self.handler.handle(command, CommandMetadata("test", **metadata)))

    async def appends(self, groups: int) -> None:
        """Returns once so many groups have been sent."""
        await eventually(lambda: len(self.gate.groups) >= groups)

    async def queued(self) -> None:
        """Returns once every command that was started waits: for the log, or for one that does."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def changes(self, wallet: str) -> list[int]:
        stream = self.store.read_stream(WALLET.stream_of(wallet))
        return [codec.decode(event.event_type, event.schema_version, event.data).by async for event in stream]


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    store = InMemoryEventStore()
    gate = Gate(store)

    async def open_session() -> Gate:
        return gate

    async with handling(store, open_session) as handler:
        yield Process(store, handler, gate)
        gate.release(100)


async def test_commands_on_one_stream_share_a_group(process: Process) -> None:
    first = process.start(Deposit("a", 1))
    await process.appends(1)
    others = [process.start(Deposit("a", amount)) for amount in (2, 3, 4)]
    await process.queued()
    process.gate.release(2)
    assert [result.version for result in await asyncio.gather(first, *others)] == [1, 2, 3, 4]
    assert [len(group) for group in process.gate.groups] == [1, 3]
    assert await process.changes("a") == [1, 2, 3, 4]


async def test_what_was_decided_on_a_failed_command_is_decided_again(process: Process) -> None:
    first = process.start(Deposit("a", 5))
    await process.appends(1)
    others = [process.start(Deposit("a", 2)), process.start(Withdraw("a", 1))]
    await process.queued()
    process.gate.fail()
    process.gate.release(2)
    with pytest.raises(AppendOutcomeUnknown):
        await first
    await asyncio.gather(*others)
    assert await process.changes("a") == [2, -1]


async def test_no_command_is_accepted_on_a_state_that_never_came_about(process: Process) -> None:
    deposit = process.start(Deposit("a", 5))
    await process.appends(1)
    withdrawal = process.start(Withdraw("a", 5))
    await process.queued()
    process.gate.fail()
    process.gate.release(1)
    with pytest.raises(AppendOutcomeUnknown):
        await deposit
    with pytest.raises(TooLittle):
        await withdrawal
    assert await process.changes("a") == []


async def test_a_version_that_another_process_makes_does_not_stand_for_the_state_that_was_expected(
    process: Process,
) -> None:
    deposit = process.start(Deposit("a", 5))
    await process.appends(1)
    withdrawal = process.start(Withdraw("a", 5))
    await process.queued()
    rival = StreamAppend(
        "wallet-a", 0, [NewEvent(uuid7(), *codec.encode(WalletChanged("ann", 1, "")), "{}", datetime.now(UTC))]
    )
    await process.store.append_group([AppendRequest([rival], uuid7())])
    process.gate.fail()
    process.gate.release(2)
    with pytest.raises(AppendOutcomeUnknown):
        await deposit
    with pytest.raises(TooLittle) as refusal:
        await withdrawal
    assert refusal.value.balance == 1
    assert await process.changes("a") == [1]


async def test_no_command_is_refused_on_a_state_that_never_came_about(process: Process) -> None:
    deposit = process.start(Deposit("a", 5))
    await process.appends(1)
    process.gate.release()
    await deposit
    lost, wanted = process.start(Withdraw("a", 5)), process.start(Withdraw("a", 3))
    await process.appends(2)
    process.gate.fail()
    process.gate.release()
    with pytest.raises(AppendOutcomeUnknown):
        await lost
    await wanted
    assert await process.changes("a") == [5, -3]


async def test_a_refusal_on_a_state_that_came_about_stays(process: Process) -> None:
    tasks = [process.start(Deposit("a", 5)), process.start(Withdraw("a", 5)), process.start(Withdraw("a", 1))]
    process.gate.release(2)
    await asyncio.gather(*tasks[:2])
    with pytest.raises(TooLittle) as refusal:
        await tasks[2]
    assert refusal.value.changes == 2


async def test_a_command_that_comes_again_while_the_first_is_on_its_way_is_answered_as_the_first(
    process: Process,
) -> None:
    same = {"idempotency_key": "k", "fingerprint": b"same"}
    first = process.start(Deposit("a", 5), **same)
    await process.appends(1)
    again, other = process.start(Deposit("a", 5), **same), process.start(Deposit("a", 1))
    misused = process.start(Deposit("a", 7), **{**same, "fingerprint": b"other"})
    process.gate.release(20)
    assert (await again)[1:] == (await first)[1:]
    assert (await other).version == 2
    with pytest.raises(KeyReused):
        await misused
    assert await process.changes("a") == [5, 1]


async def test_a_command_that_would_be_refused_the_second_time_is_answered_as_the_first(process: Process) -> None:
    same = {"idempotency_key": "k", "fingerprint": b"same"}
    deposit = process.start(Deposit("a", 5))
    first, again = process.start(Withdraw("a", 5), **same), process.start(Withdraw("a", 5), **same)
    process.gate.release(20)
    await deposit
    assert (await again)[1:] == (await first)[1:]
    assert await process.changes("a") == [5, -5]


async def test_a_client_that_goes_away_takes_only_its_own_command_with_it(process: Process) -> None:
    first = process.start(Deposit("a", 1))
    await process.appends(1)
    gone, other = process.start(Deposit("a", 2)), process.start(Deposit("a", 4))
    await process.queued()
    gone.cancel()
    process.gate.release(20)
    await asyncio.gather(first, other)
    assert await process.changes("a") == [1, 4]


async def test_a_command_over_several_streams_is_appended_to_all_of_them_or_to_none(process: Process) -> None:
    tasks = [
        process.start(Deposit("a", 5)),
        process.start(Transfer("a", "b", 3)),
        process.start(Withdraw("b", 1)),
        process.start(Transfer("b", "a", 9)),
    ]
    process.gate.release(20)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [AppendResult, AppendResult, AppendResult, TooLittle]
    assert (await process.changes("a"), await process.changes("b")) == ([5, -3], [3, -1])
    moved = results[1]
    assert isinstance(moved, AppendResult)
    assert (moved.stream_id, moved.version, moved.position) == ("wallet-a", 2, 3)


@pytest.mark.bound("command", "commands of one stream on their way to the log")
async def test_commands_on_their_way_are_bounded(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AHEAD", 3)
    tasks = [process.start(Deposit("a", amount)) for amount in range(1, 11)]
    await process.appends(1)
    process.gate.release(10)
    await asyncio.gather(*tasks)
    assert await process.changes("a") == list(range(1, 11))
    assert max(len(group) for group in process.gate.groups) <= 3


@pytest.mark.bound("command", "snapshots that are being saved")
async def test_snapshots_that_are_being_saved_are_bounded(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()
    saving: list[str] = []

    async def save(stream_id: str, *_: object) -> None:
        saving.append(stream_id)
        await released.wait()

    monkeypatch.setattr(process.store, "save_snapshot", save)
    process.gate.release(1_000)
    for wallet in range(MAX_SAVING + 5):
        for _ in range(5):
            await process.start(Deposit(f"wallet-{wallet}", 1))
    await process.queued()
    assert len(saving) == MAX_SAVING
    released.set()
    await process.queued()
    last = f"wallet-{MAX_SAVING + 4}"
    await process.start(Deposit(last, 1))
    await process.queued()
    assert saving[-1] == WALLET.stream_of(last), "a later command makes one due again"
