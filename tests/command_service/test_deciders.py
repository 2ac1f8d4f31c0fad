"""The registry of deciders refuses what would make a command ambiguous."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from unittest.mock import patch

import pytest

from command_service import domain
from command_service.decision import CommandMetadata, decide, streams_of
from command_service.domain.account import ACCOUNTS, AccountNotFound, TransferMoney
from command_service.domain.decider import Decider, EventsByStream, MoreStreams, States
from shared.aggregates import RegistrationError
from shared.aggregates.account import ACCOUNT
from shared.aggregates.order import ORDER, Order, OrderEvent
from shared.aggregates.transfer import TRANSFER
from shared.eventstore.memory import InMemoryEventStore
from shared.eventstore.snapshots import LoadedState
from tests.accounts import Entry, account, day, deposited, opened
from tests.command_service.processes import handling
from tests.toy.aggregates.wallet import Wallet, WalletChanged
from tests.toy.domain.wallet import WALLETS, Deposit, Transfer, WalletCommand, Withdraw
from tests.toy.registered import toy_registered


def test_an_aggregate_that_is_not_registered_has_no_commands() -> None:
    with pytest.raises(RegistrationError, match="'wallet' is not registered"):
        domain.register(WALLETS)


def test_a_command_of_a_name_that_is_in_use_is_refused() -> None:
    @dataclass(frozen=True)
    class PlaceOrder:
        order_id: str

    decider: Decider[PlaceOrder, Order, OrderEvent] = Decider(
        ORDER, (PlaceOrder,), lambda command: command.order_id, lambda _command, _state: []
    )
    with patch.dict(domain.DECIDERS), pytest.raises(RegistrationError, match="a command PlaceOrder already"):
        domain.register(decider)


def test_a_command_names_its_own_stream_first_and_each_stream_once() -> None:
    assert streams_of(WALLETS, Deposit("a", 1)) == ("wallet-a",)
    assert streams_of(WALLETS, Transfer("b", "a", 1)) == ("wallet-b", "wallet-a")
    assert streams_of(WALLETS, Transfer("a", "a", 1)) == ("wallet-a",)


def test_a_command_that_names_its_own_stream_as_another_is_decided_over_streams() -> None:
    states = {"wallet-a": LoadedState(Wallet("ann", 1, 1), 1)}
    with toy_registered():
        request, after = decide(WALLETS, Transfer("a", "a", 1), CommandMetadata("test"), states, None)
    assert [len(stream.events) for stream in request.streams] == [2]
    assert (after["wallet-a"].version, after["wallet-a"].state.balance) == (3, 1)


def test_a_decider_may_change_only_the_streams_that_a_command_names() -> None:
    strays = replace(WALLETS, decide_over=lambda _command, _states, _at: {"wallet-c": []})
    states = {"wallet-a": LoadedState(), "wallet-b": LoadedState()}
    with toy_registered(), pytest.raises(AssertionError, match="Transfer"):
        decide(strays, Transfer("a", "b", 1), CommandMetadata("test"), states, None)


def test_a_caller_reaches_no_stream_of_another_owner_whichever_a_command_names() -> None:
    command = TransferMoney("main", "savings", "t-1", 5, "savings")
    owners = {"main": "alice", "savings": "bob"}
    states = {
        ACCOUNT.stream_of(account_id): LoadedState(
            account([(day(1), opened(owner_id=owner)), (day(1), deposited(9))]), 2, 2, day(1)
        )
        for account_id, owner in owners.items()
    }
    states[TRANSFER.stream_of("t-1")] = LoadedState()
    alice, bob = (CommandMetadata("test", limited_to_owner=owner) for owner in ("alice", "bob"))
    with pytest.raises(AccountNotFound, match="savings"):
        decide(ACCOUNTS, command, alice, states, None)
    with pytest.raises(AccountNotFound, match="main"):
        decide(ACCOUNTS, command, bob, states, None)
    request, _ = decide(ACCOUNTS, command, CommandMetadata("test"), states, None)
    assert [len(stream.events) for stream in request.streams] == [1, 1, 1]


def test_the_time_of_a_backdated_command_is_checked_on_each_stream_that_gets_events() -> None:
    streams = [ACCOUNT.stream_of(account_id) for account_id in ("main", "savings")]
    entries: list[Entry] = [(day(1), opened()), (day(1), deposited(9)), (day(5), deposited(9))]
    states = {stream: LoadedState(account(entries), 3, 3, day(5)) for stream in streams}
    states[TRANSFER.stream_of("t-1")] = LoadedState()
    command = TransferMoney("main", "savings", "t-1", 5, "savings")
    request, after = decide(ACCOUNTS, command, CommandMetadata("test", occurred_at=day(2)), states, None)
    assert [event.occurred_at for stream in request.streams for event in stream.events] == [day(2)] * 3
    assert [after[stream].last_occurred_at for stream in streams] == [day(5)] * 2, "the latest, not the last"


async def test_a_decider_names_the_streams_that_only_a_state_tells() -> None:
    """Here: all that is in the wallet goes to the one that its last note names."""
    taken: list[frozenset[str]] = []

    def decide_over(command: WalletCommand, states: States, _at: datetime) -> EventsByStream:
        taken.append(frozenset(states))
        wallet = states["wallet-a"]
        if "wallet-b" not in states:
            raise MoreStreams(["wallet-b"])
        return {
            "wallet-a": [WalletChanged("ann", -wallet.balance, command.note)],
            "wallet-b": [WalletChanged("ann", wallet.balance, command.note)],
        }

    follows = replace(WALLETS, streams=lambda _command: ["wallet-a"], decide_over=decide_over)
    store = InMemoryEventStore()
    with toy_registered():
        async with handling(store, store.open_session) as handler:
            await handler.handle(Deposit("a", 7), CommandMetadata("test"))
            with patch.dict(domain.DECIDERS, {Withdraw: follows}):
                result = await handler.handle(Withdraw("a", 7), CommandMetadata("test"))
    assert (result.stream_id, result.version) == ("wallet-a", 2)
    assert [event.stream_id async for event in store.read_all()] == ["wallet-a", "wallet-a", "wallet-b"]
    assert taken == [{"wallet-a"}, {"wallet-a", "wallet-b"}]
