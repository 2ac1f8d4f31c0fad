"""A toy aggregate with commands over two streams: a wallet that never owes anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import msgspec

from command_service import domain
from command_service.domain.decider import Decider
from shared import aggregates
from shared.aggregates.aggregate import Aggregate
from shared.errors import Rejected


class WalletChanged(msgspec.Struct, frozen=True):
    by: int
    tag: str  # of the command


@dataclass(frozen=True)
class Wallet:
    balance: int
    changes: int


@dataclass(frozen=True)
class Put:
    wallet: str
    amount: int
    tag: str = ""


@dataclass(frozen=True)
class Take:
    wallet: str
    amount: int
    tag: str = ""


@dataclass(frozen=True)
class Move:
    wallet: str
    to: str
    amount: int
    tag: str = ""


WalletCommand = Put | Take | Move


@dataclass
class TooLittle(Rejected):
    """`balance` is that after so many `changes`."""

    balance: int
    changes: int
    code = "too-little"
    title = "There is too little in the wallet"


def evolve(state: Wallet | None, event: WalletChanged) -> Wallet:
    before = state or Wallet(0, 0)
    return Wallet(before.balance + event.by, before.changes + 1)


WALLET = Aggregate("wallet", Wallet, (WalletChanged,), evolve)


def _changed(state: Wallet | None, by: int, tag: str) -> list[WalletChanged]:
    before = state or Wallet(0, 0)
    if before.balance + by < 0:
        raise TooLittle(before.balance, before.changes)
    return [WalletChanged(by, tag)]


def decide(command: WalletCommand, state: Wallet | None) -> list[WalletChanged]:
    return _changed(state, command.amount if isinstance(command, Put) else -command.amount, command.tag)


def decide_over(command: WalletCommand, states: Mapping[str, Any]) -> Mapping[str, Sequence[Any]]:
    assert isinstance(command, Move)
    source, target = WALLET.stream_of(command.wallet), WALLET.stream_of(command.to)
    taken = _changed(states[source], -command.amount, command.tag)
    return {source: taken, target: _changed(states[target], command.amount, command.tag)}


WALLETS: Decider[WalletCommand, Wallet, WalletChanged] = Decider(
    aggregate=WALLET,
    commands=(Put, Take, Move),
    aggregate_id=lambda command: command.wallet,
    decide=decide,
    begins=frozenset({Put}),
    streams=lambda command: [WALLET.stream_of(command.to)] if isinstance(command, Move) else [],
    decide_over=decide_over,
)


@contextmanager
def wallets_registered() -> Iterator[None]:
    with patch.dict(aggregates.AGGREGATES), patch.dict(aggregates.EVENT_TYPES), patch.dict(domain.DECIDERS):
        aggregates.register(WALLET)
        domain.register(WALLETS)
        yield
