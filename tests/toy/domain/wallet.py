"""The wallet: its commands, its refusal, and the rule that a wallet never owes anything. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from command_service.domain.decider import Decider, EventsByStream, States
from shared.errors import Rejected
from tests.toy.aggregates.wallet import WALLET, Wallet, WalletChanged


@dataclass(frozen=True)
class Deposit:
    """Opens the wallet where there is none."""

    wallet_id: str
    amount: int
    note: str = ""
    owner_id: str = "ann"


@dataclass(frozen=True)
class Withdraw:
    wallet_id: str
    amount: int
    note: str = ""


@dataclass(frozen=True)
class Transfer:
    """To a wallet, which is opened for the owner of the first where there is none."""

    wallet_id: str
    to: str
    amount: int
    note: str = ""


WalletCommand = Deposit | Withdraw | Transfer


@dataclass
class TooLittle(Rejected):
    """`balance` is that after so many `changes`."""

    balance: int
    changes: int
    code = "too-little-in-wallet"
    title = "There is too little in the wallet"

    @property
    def detail(self) -> str:
        return f"The wallet holds {self.balance}."


def decide(command: WalletCommand, state: Wallet | None) -> Sequence[WalletChanged]:
    if isinstance(command, Deposit):
        owner_id = command.owner_id if state is None else state.owner_id
        return [WalletChanged(owner_id, command.amount, command.note)]
    if state is None or state.balance < command.amount:
        raise TooLittle(0, 0) if state is None else TooLittle(state.balance, state.changes)
    return [WalletChanged(state.owner_id, -command.amount, command.note)]


def decide_over(command: WalletCommand, states: States, _at: datetime) -> EventsByStream:
    assert isinstance(command, Transfer)
    source, target = WALLET.stream_of(command.wallet_id), WALLET.stream_of(command.to)
    (taken,) = decide(Withdraw(command.wallet_id, command.amount, command.note), states[source])
    put = decide(Deposit(command.to, command.amount, command.note, taken.owner_id), states[target])
    return {source: [taken, *put]} if source == target else {source: [taken], target: put}


WALLETS: Decider[WalletCommand, Wallet, WalletChanged] = Decider(
    aggregate=WALLET,
    commands=(Deposit, Withdraw, Transfer),
    aggregate_id=lambda command: command.wallet_id,
    decide=decide,
    begins=frozenset({Deposit}),
    streams=lambda command: [WALLET.stream_of(command.to)] if isinstance(command, Transfer) else [],
    decide_over=decide_over,
)
