"""The registry of deciders refuses what would make a command ambiguous."""

from __future__ import annotations

from dataclasses import dataclass, replace
from unittest.mock import patch

import pytest

from command_service import domain
from command_service.decision import CommandMetadata, decide, streams_of
from command_service.domain.decider import Decider
from shared.aggregates import RegistrationError
from shared.aggregates.order import ORDER, Order, OrderEvent
from shared.eventstore.snapshots import LoadedState
from tests.toy.aggregates.wallet import Wallet
from tests.toy.domain.wallet import WALLETS, Deposit, Transfer
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
    strays = replace(WALLETS, decide_over=lambda _command, _states: {"wallet-c": []})
    states = {"wallet-a": LoadedState(), "wallet-b": LoadedState()}
    with toy_registered(), pytest.raises(AssertionError, match="Transfer"):
        decide(strays, Transfer("a", "b", 1), CommandMetadata("test"), states, None)
