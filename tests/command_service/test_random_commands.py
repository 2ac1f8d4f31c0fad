"""Random commands of two processes on a few streams, while groups fail and clients go away: the log has no gap, no
command is lost or doubled, and none is refused on a state that never came about."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Literal, NamedTuple, TypeAlias

import asyncpg
import pytest
import uvloop
from hypothesis import Phase, settings
from hypothesis import given as for_all
from hypothesis import strategies as st

from cli.stack.embedded_postgres import EmbeddedPostgres
from command_service.decision import CommandMetadata
from command_service.group_commit import AppendOutcomeUnknown, LogUnavailable
from command_service.handler import KeyReused, VersionConflict
from shared.eventstore import codec
from shared.eventstore.append_request import AppendRequest, AppendResult, AppendStatus
from shared.eventstore.log import StoredEvent
from shared.eventstore.memory import InMemoryEventStore
from shared.eventstore.store import AppendSession, EventStore, PostgresAppendSession, PostgresEventStore
from tests.command_service.processes import handling
from tests.effort import examples
from tests.running import fresh_database
from tests.toy.aggregates.wallet import WALLET
from tests.toy.domain.wallet import Deposit, TooLittle, Transfer, WalletCommand, Withdraw
from tests.toy.registered import toy_registered

Fault: TypeAlias = Literal["none", "slow", "refused", "lost", "answer lost"]
OpenSession: TypeAlias = Callable[[], Awaitable[AppendSession]]

WALLETS = ["a", "b"]


class Sent(NamedTuple):
    """One command. `after` is how many turns of the event loop it comes after the one before, `patience` after how many
    its client goes away."""

    kind: Literal["put", "take", "move"]
    wallets: tuple[str, str]
    amount: int
    process: int
    key: str | None
    after: int
    patience: int | None

    def command(self, tag: str, prefix: str) -> WalletCommand:
        wallet, other = (prefix + name for name in self.wallets)
        if self.kind == "move":
            return Transfer(wallet, other, self.amount, tag)
        return (Deposit if self.kind == "put" else Withdraw)(wallet, self.amount, tag)


SENT = st.builds(
    Sent,
    st.sampled_from(["put", "put", "take", "move"]),
    st.permutations(WALLETS).map(lambda names: (names[0], names[1])),
    st.integers(1, 5),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([None, None, None, "k1", "k2"]),
    st.sampled_from([0, 0, 0, 1, 5]),
    st.sampled_from([None, None, None, None, 1, 3, 8]),
)
FAULTS: st.SearchStrategy[Fault] = st.sampled_from(["none", "none", "none", "slow", "refused", "lost", "answer lost"])


class FaultySession:
    """Fails as the list says, group by group; then no more."""

    def __init__(self, session: AppendSession, faults: Iterator[Fault]) -> None:
        self._session = session
        self._faults = faults

    async def append_group(self, group: Sequence[AppendRequest]) -> list[AppendResult]:
        fault = next(self._faults, "none")
        await asyncio.sleep(0.001 if fault == "slow" else 0)
        if fault == "lost":
            raise ConnectionResetError
        if fault == "refused":
            refusal = asyncpg.DeadlockDetectedError("refused")
            refusal.severity_en = "ERROR"
            raise refusal
        results = await self._session.append_group(group)
        if fault == "answer lost":
            raise ConnectionResetError
        return results

    def is_closed(self) -> bool:
        return self._session.is_closed()

    async def close(self) -> None:
        await self._session.close()

    def terminate(self) -> None:
        self._session.terminate()


async def send_all(
    store: EventStore, open_session: OpenSession, commands: Sequence[Sent], faults: Sequence[Fault], prefix: str
) -> list[AppendResult | BaseException]:
    """What became of each command."""
    left = iter(faults)

    async def open_faulty() -> AppendSession:
        return FaultySession(await open_session(), left)

    async with AsyncExitStack() as running:
        handlers = [await running.enter_async_context(handling(store, open_faulty)) for _ in range(2)]
        tasks = []
        for number, sent in enumerate(commands):
            for _ in range(sent.after):
                await asyncio.sleep(0)
            key = None if sent.key is None else prefix + sent.key
            fingerprint = None if key is None else repr(sent[:3]).encode()
            metadata = CommandMetadata("test", idempotency_key=key, fingerprint=fingerprint)
            handle = handlers[sent.process].handle(sent.command(str(number), prefix), metadata)
            tasks.append(asyncio.create_task(_with_patience(handle, sent.patience)))
        return await asyncio.gather(*tasks, return_exceptions=True)


async def _with_patience(handle: Coroutine[Any, Any, AppendResult], turns: int | None) -> AppendResult:
    task = asyncio.create_task(handle)
    if turns is not None:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
    return await task


async def check(
    store: EventStore, commands: Sequence[Sent], outcomes: Sequence[AppendResult | BaseException], prefix: str
) -> None:
    history = {name: [event async for event in store.read_stream(WALLET.stream_of(prefix + name))] for name in WALLETS}
    balances = {name: [0] for name in WALLETS}
    by_tag: defaultdict[str, list[StoredEvent]] = defaultdict(list)
    for name, events in history.items():
        assert [event.version for event in events] == list(range(1, len(events) + 1)), "no gap"
        for event in events:
            change = codec.decode(event.event_type, event.schema_version, event.data)
            balances[name].append(balances[name][-1] + change.by)
            by_tag[change.note].append(event)
        assert min(balances[name]) >= 0, "no command was accepted on a state that never came about"
    for number, (sent, outcome) in enumerate(zip(commands, outcomes, strict=True)):
        check_outcome(sent, outcome, by_tag[str(number)], balances)


def check_outcome(
    sent: Sent, outcome: AppendResult | BaseException, events: list[StoredEvent], balances: dict[str, list[int]]
) -> None:
    whole = 2 if sent.kind == "move" else 1
    if isinstance(outcome, AppendResult):
        if outcome.status is AppendStatus.REPLAYED:
            assert events == []
            return
        assert len(events) == whole
        own = min(events, key=lambda event: event.position)
        assert (outcome.stream_id, outcome.version) == (own.stream_id, own.version)
        assert outcome.position == max(event.position for event in events) == own.position + whole - 1
    elif isinstance(outcome, (AppendOutcomeUnknown, asyncio.CancelledError)):
        assert len(events) in (0, whole)
    else:
        assert events == []
        if isinstance(outcome, TooLittle):
            refused_by = sent.wallets[0]
            assert balances[refused_by][outcome.changes] == outcome.balance < sent.amount
        else:
            assert isinstance(outcome, (LogUnavailable, VersionConflict, KeyReused)), outcome


SCENARIOS = {"commands": st.lists(SENT, min_size=1, max_size=25), "faults": st.lists(FAULTS, max_size=12)}


@pytest.mark.promise("commands", "Commands on one stream are decided ahead: none is lost, doubled or wrongly refused")
@settings(max_examples=examples(150), deadline=None)
@for_all(**SCENARIOS)
def test_of_random_commands_in_memory_none_is_lost_doubled_or_wrongly_refused(
    commands: list[Sent], faults: list[Fault]
) -> None:
    async def run() -> None:
        store = InMemoryEventStore()
        outcomes = await send_all(store, store.open_session, commands, faults, "")
        await check(store, commands, outcomes, "")

    with toy_registered():
        uvloop.run(run())


def test_of_random_commands_in_postgresql_none_is_lost_doubled_or_wrongly_refused(postgres: EmbeddedPostgres) -> None:
    numbers = itertools.count(1)
    database = fresh_database(postgres.url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, toy_registered():
        url = runner.run(_enter(database))

        @settings(max_examples=examples(25), deadline=None, phases=[Phase.generate])
        @for_all(**SCENARIOS)
        def run(commands: list[Sent], faults: list[Fault]) -> None:
            runner.run(_in_postgresql(url, commands, faults, f"{next(numbers)}-"))

        try:
            run()
        finally:
            runner.run(_leave(database))


async def _enter(database: AbstractAsyncContextManager[str]) -> str:
    return await database.__aenter__()


async def _leave(database: AbstractAsyncContextManager[str]) -> None:
    await database.__aexit__(None, None, None)


async def _in_postgresql(url: str, commands: Sequence[Sent], faults: Sequence[Fault], prefix: str) -> None:
    async def open_session() -> AppendSession:
        return PostgresAppendSession(await asyncpg.connect(url))

    async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
        store = PostgresEventStore(pool)
        outcomes = await send_all(store, open_session, commands, faults, prefix)
        await check(store, commands, outcomes, prefix)
