"""The bonus: the bank is asked for it when a wallet is opened, and it is put into the wallet. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec
from msgspec.structs import replace

from command_service.processes.definition import (
    Answered,
    Compensate,
    Dispatch,
    Dispatched,
    End,
    Input,
    Output,
    ProcessDefinition,
    Received,
    Refused,
    Request,
    Requested,
    Retried,
    SetTimer,
    Stop,
)
from shared.aggregates.process import TimerFired
from tests.toy.aggregates.wallet import WALLET, Wallet, WalletChanged
from tests.toy.domain.wallet import Deposit, Withdraw
from tests.toy.gateways import bank

TRIAL = timedelta(days=14)  # in which the bonus can be taken back


class WalletView(msgspec.Struct, frozen=True):
    """What the process sees of its wallet."""

    wallet_id: str
    balance: int


def view(wallet_id: str, wallet: Wallet) -> WalletView:
    return WalletView(wallet_id, wallet.balance)


class Bonus(msgspec.Struct, frozen=True):
    wallet: WalletView
    asked: bool = False
    granted: int = 0
    given_up: bool = False


def evolve(state: Bonus | None, given: Input[WalletView]) -> Bonus:
    if state is None:
        assert isinstance(given, Received), "a process begins with an event of its subject"
        return Bonus(given.subject)
    match given:
        case Requested():
            return replace(state, asked=True)
        case Answered(outcome=bank.BonusGranted(amount)):
            return replace(state, granted=amount)
        case Compensate():
            return replace(state, given_up=True)
        case _:
            return state


def react(state: Bonus, given: Input[WalletView]) -> Sequence[Output]:
    wallet_id = state.wallet.wallet_id
    match given:
        case Received() if not state.asked:
            return [Request(bank.AskBonus(state.wallet.balance))]
        case Answered() if state.granted and not state.given_up:
            return [Dispatch(Deposit(wallet_id, state.granted, "bonus")), SetTimer("trial", TRIAL)]
        case Answered():
            return [End("denied")]
        case TimerFired("trial"):
            return [End("kept")]
        case Compensate() | Retried() if state.given_up and state.granted:
            return [Dispatch(Withdraw(wallet_id, state.granted, "bonus taken back"))]
        case Dispatched(Withdraw.__name__):
            return [End("taken back")]
        case Refused(command, code):
            return [Stop(f"{command} refused: {code}")]
        case _:
            return []


BONUS: ProcessDefinition[Bonus, WalletView] = ProcessDefinition(
    kind="bonus",
    subject=WALLET,
    begins=frozenset({WalletChanged}),
    view=view,
    view_type=WalletView,
    effects=bank.ANSWERS,
    evolve=evolve,
    react=react,
    compensable=lambda _: True,
)
