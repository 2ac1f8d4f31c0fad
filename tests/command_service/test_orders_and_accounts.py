"""Random payments from accounts, refunds, deposits and withdrawals, at the same time through two processes: what orders
took from accounts is what accounts gave to orders, after every append."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import groupby
from typing import Any, NamedTuple

import pytest
import uvloop
from hypothesis import given as for_all
from hypothesis import settings as effort
from hypothesis import strategies as st

from command_service.decision import CommandMetadata
from command_service.domain.account import DepositMoney, OpenAccount, WithdrawMoney
from command_service.domain.order import CancelOrder, PlaceOrder, RecordPayment, RefundPayment
from shared.aggregates.account import MoneyDeposited, MoneyWithdrawn, change_of
from shared.aggregates.order import ORDER, OrderLine, PaymentReceived, PaymentRefunded, State, evolve
from shared.errors import OrdersError
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent
from shared.eventstore.memory import InMemoryEventStore
from tests.accounts import day
from tests.command_service.processes import handling

LIMITS = {"a": 0, "b": 50}
_ACCOUNTS = st.sampled_from(sorted(LIMITS))
_ORDERS = st.sampled_from(["1", "2"])
_REFERENCES = st.sampled_from(["p", "q", "r"])
_AMOUNTS = st.integers(1, 60)
_COMMANDS: st.SearchStrategy[Any] = st.one_of(
    st.builds(DepositMoney, _ACCOUNTS, _AMOUNTS, st.just("in")),
    st.builds(WithdrawMoney, _ACCOUNTS, _AMOUNTS, st.just("out")),
    st.builds(RecordPayment, _ORDERS, _REFERENCES, _AMOUNTS, st.just(True), st.none(), _ACCOUNTS | st.none()),
    st.builds(RecordPayment, _ORDERS, _REFERENCES, _AMOUNTS, st.just(True), st.none(), _ACCOUNTS),
    st.builds(RefundPayment, _ORDERS, st.sampled_from("xyz"), _REFERENCES, st.integers(1, 20), st.just("late")),
    st.builds(CancelOrder, _ORDERS, st.just("changed my mind")),
)


class Sent(NamedTuple):
    """`alone`: it is sent when all before it are answered."""

    command: Any
    process: int
    alone: bool


async def send_all(store: InMemoryEventStore, commands: Sequence[Sent]) -> None:
    """Whatever is refused is refused by a rule."""
    async with AsyncExitStack() as running:
        handlers = [await running.enter_async_context(handling(store, store.open_session)) for _ in range(2)]
        for account_id, limit in LIMITS.items():
            opening = OpenAccount(account_id, "alice", "GBP", limit)
            await handlers[0].handle(opening, CommandMetadata("test", occurred_at=day(1)))
            await handlers[0].handle(DepositMoney(account_id, 40, "in"), CommandMetadata("test"))
        for order_id in ("1", "2"):
            placing = PlaceOrder(order_id, "alice", "GBP", (OrderLine("MUG", 1, 60),), "home")
            await handlers[0].handle(placing, CommandMetadata("test"))
        tasks: list[asyncio.Task[object]] = []
        for command, process, alone in commands:
            if alone:
                await _answered(tasks)
            tasks.append(asyncio.create_task(handlers[process].handle(command, CommandMetadata("test"))))
        await _answered(tasks)


async def _answered(tasks: Sequence[asyncio.Task[object]]) -> None:
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, OrdersError):
            raise outcome


@pytest.mark.promise("commands", "What orders took from accounts is what accounts gave to orders, after every append")
@for_all(commands=st.lists(st.builds(Sent, _COMMANDS, st.sampled_from([0, 1]), st.booleans()), max_size=25))
@effort(deadline=None)
def test_the_money_of_orders_and_accounts_closes_in_every_interleaving(commands: list[Sent]) -> None:
    store = InMemoryEventStore()
    uvloop.run(send_all(store, commands))

    balances: Counter[str] = Counter()
    kept: Counter[str] = Counter()  # by order, of the money that came from accounts
    given: Counter[str] = Counter()  # to orders, by accounts
    external = 0
    orders: defaultdict[str, State] = defaultdict(lambda: None)
    for appended in _appends(store):
        for stored, event in appended:
            if (order_id := ORDER.id_of(stored.stream_id)) is not None:
                orders[order_id] = after = evolve(orders[order_id], event)
                if isinstance(event, PaymentReceived | PaymentRefunded):
                    kept[order_id] = sum(
                        payment.captured - payment.refunded for payment in after.payments if payment.account_id
                    )
            elif isinstance(event, MoneyDeposited | MoneyWithdrawn):
                balances[stored.stream_id] += change_of(event)
                if event.order_id is None:
                    external += change_of(event)
                else:
                    given[event.order_id] -= change_of(event)
        assert kept == given
        assert sum(balances.values()) + kept.total() == external
        assert all(balance >= -LIMITS[stream.removeprefix("account-")] for stream, balance in balances.items())
    for order in orders.values():
        assert order is not None
        assert order.paid == order.payable - order.amount_due + order.refund_due


def _appends(store: InMemoryEventStore) -> Iterator[list[tuple[StoredEvent, Any]]]:
    """The events of each append."""

    async def read() -> list[StoredEvent]:
        return [stored async for stored in store.read_all()]

    for _, together in groupby(asyncio.run(read()), key=lambda stored: json.loads(stored.metadata)["command_id"]):
        yield [(stored, codec.decode(*stored[4:7])) for stored in together]
