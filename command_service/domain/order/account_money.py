"""What a payment from an account, and its refund, do to the account. Pure."""

from __future__ import annotations

from datetime import datetime

from command_service.domain import account
from command_service.domain.decider import EventsByStream, MoreStreams, States
from command_service.domain.order.commands import RecordPayment, RefundPayment
from shared.aggregates.account import ACCOUNT, MoneyDeposited, MoneyWithdrawn
from shared.aggregates.order import Order


def pay(command: RecordPayment, order: Order, states: States, at: datetime) -> EventsByStream:
    """The withdrawal of a payment; nothing where no account pays. Raises what the account refuses."""
    if (account_id := command.account_id) is None:
        return {}
    stream = ACCOUNT.stream_of(account_id)
    account.check_currency(account_id, states[stream], order.currency)
    withdrawn = MoneyWithdrawn(command.amount, command.payment_reference, command.order_id)
    return {stream: [account.withdraw(account_id, states[stream], at, withdrawn)]}


def refund(command: RefundPayment, order: Order, states: States, at: datetime) -> EventsByStream:
    """The deposit of a refund; nothing where no account paid. Raises `MoreStreams`, and what the account refuses."""
    if (account_id := _paying_account(command, order)) is None:
        return {}
    stream = ACCOUNT.stream_of(account_id)
    if stream not in states:
        raise MoreStreams([stream])
    deposited = MoneyDeposited(command.amount, command.refund_id, command.order_id)
    return {stream: [account.deposit(account_id, states[stream], at, deposited)]}


def _paying_account(command: RefundPayment, order: Order) -> str | None:
    payment = order.payment(command.payment_reference)
    return None if payment is None else payment.account_id
