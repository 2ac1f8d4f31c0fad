"""An account pays an order, and gets its refunds: both change in one append, or neither."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from command_service.domain.account import (
    MAX_BALANCE,
    AccountNotFound,
    AccountNotOpenYet,
    BalanceTooLarge,
    CurrencyMismatch,
    DayClosed,
    InsufficientFunds,
)
from command_service.domain.decider import MoreStreams
from command_service.domain.order import (
    ORDERS,
    OrderCommand,
    OrderNotFound,
    PaymentAlreadyRecorded,
    RecordPayment,
    RefundExceedsPayment,
    RefundPayment,
)
from shared.aggregates.account import ACCOUNT, Account, MoneyDeposited, MoneyWithdrawn
from shared.aggregates.order import (
    Order,
    OrderConfirmed,
    OrderEvent,
    PaymentReceived,
    PaymentRefunded,
)
from shared.aggregates.payment import Payment, PaymentReferenceAssigned, payment_stream
from shared.errors import OrdersError
from tests.accounts import Entry, account, day, deposited, interest, opened
from tests.command_service.test_accounts_over_http import balance_in, entry, open_account
from tests.given_when_then import fold, problem
from tests.orders import TOTAL, cancelled, place, placed, shipped
from tests.recording import Connection

ORDER, REFERENCE, MAIN = "order-42", payment_stream("pay-1"), ACCOUNT.stream_of("main")
PAY = RecordPayment("42", "pay-1", TOTAL, account_id="main")
REFUND = RefundPayment("42", "r-1", "pay-1", 500, "late")
COVERED: list[Entry] = [(day(1, 0), opened()), (day(1), deposited(TOTAL))]
PAID: tuple[OrderEvent, ...] = (placed(), PaymentReceived("pay-1", TOTAL, None, "main"), OrderConfirmed())
OF_THE_ORDER = Payment("pay-1", "42")


def states(order: Order | None, main: Account | None, reference: Payment | None = None) -> dict[str, Any]:
    return {ORDER: order, REFERENCE: reference, MAIN: main}


def refused(error: type[OrdersError], command: OrderCommand, before: Mapping[str, Any], at: int = 2) -> None:
    with pytest.raises(OrdersError) as refusal:
        ORDERS.decide_over(command, before, day(at))
    assert type(refusal.value) is error


class TestPaying:
    def test_withdraws_the_amount_and_confirms_the_order(self) -> None:
        assert ORDERS.streams(PAY) == (REFERENCE, MAIN)
        decided = ORDERS.decide_over(PAY, states(fold(placed()), account(COVERED)), day(2))
        assert decided == {
            ORDER: [PaymentReceived("pay-1", TOTAL, None, "main"), OrderConfirmed()],
            REFERENCE: [PaymentReferenceAssigned("pay-1", "42")],
            MAIN: [MoneyWithdrawn(TOTAL, "pay-1", "42")],
        }

    def test_again_changes_nothing_also_when_the_account_is_empty_now(self) -> None:
        assert ORDERS.decide_over(PAY, states(fold(*PAID), account(COVERED[:1]), OF_THE_ORDER), day(2)) == {}

    @pytest.mark.parametrize("other", ["savings", None])
    def test_again_from_elsewhere_is_refused(self, other: str | None) -> None:
        again = RecordPayment("42", "pay-1", TOTAL, account_id=other)
        streams = {**states(fold(*PAID), account(COVERED), OF_THE_ORDER), "account-savings": account(COVERED)}
        refused(PaymentAlreadyRecorded, again, streams)

    def test_of_a_cancelled_order_is_recorded_and_owed_back(self) -> None:
        decided = ORDERS.decide_over(PAY, states(fold(placed(), cancelled()), account(COVERED)), day(2))
        assert decided[ORDER] == [PaymentReceived("pay-1", TOTAL, None, "main")]
        assert decided[MAIN] == [MoneyWithdrawn(TOTAL, "pay-1", "42")]

    def test_uses_the_overdraft_and_no_more(self) -> None:
        overdrawn: list[Entry] = [(day(1, 0), opened(overdraft_limit=TOTAL))]
        assert MAIN in ORDERS.decide_over(PAY, states(fold(placed()), account(overdrawn)), day(2))
        less: list[Entry] = [(day(1, 0), opened(overdraft_limit=TOTAL - 1))]
        refused(InsufficientFunds, PAY, states(fold(placed()), account(less)))

    @pytest.mark.parametrize(
        ("entries", "at", "error"),
        [
            ([], 2, AccountNotFound),
            ([(day(1), opened(currency="EUR")), (day(1), deposited(TOTAL))], 2, CurrencyMismatch),
            ([(day(1), opened()), (day(1), deposited(TOTAL - 1))], 2, InsufficientFunds),
            ([(day(3), opened()), (day(3), deposited(TOTAL))], 2, AccountNotOpenYet),
            ([*COVERED, (day(5), interest(1, 4, 0))], 2, DayClosed),
            ([*COVERED, (day(5), MoneyWithdrawn(1, "rent"))], 2, InsufficientFunds),
        ],
        ids=["absent", "in euros", "a penny short", "opened later", "interest was paid", "spent since"],
    )
    def test_that_the_account_does_not_take_is_refused(
        self, entries: list[Entry], at: int, error: type[OrdersError]
    ) -> None:
        refused(error, PAY, states(fold(placed()), account(entries)), at)

    def test_an_order_that_is_not_there_is_not_found(self) -> None:
        refused(OrderNotFound, PAY, states(None, account(COVERED)))


class TestRefunding:
    def test_asks_for_the_account_that_paid(self) -> None:
        assert ORDERS.streams(REFUND) == ()
        with pytest.raises(MoreStreams) as more:
            ORDERS.decide_over(REFUND, {ORDER: fold(*PAID)}, day(3))
        assert more.value.streams == [MAIN]

    def test_deposits_what_goes_back(self) -> None:
        before = {ORDER: fold(*PAID, shipped()), MAIN: account(COVERED)}
        assert ORDERS.decide_over(REFUND, before, day(3)) == {
            ORDER: [PaymentRefunded("r-1", "pay-1", 500, "late", 500)],
            MAIN: [MoneyDeposited(500, "r-1", "42")],
        }

    def test_again_changes_nothing(self) -> None:
        refunded = fold(*PAID, PaymentRefunded("r-1", "pay-1", 500, "late", 500))
        assert not any(ORDERS.decide_over(REFUND, {ORDER: refunded}, day(3)).values())

    def test_of_money_that_came_from_elsewhere_changes_no_account(self) -> None:
        past = fold(*PAID, PaymentReceived("pay-2", 500))
        decided = ORDERS.decide_over(RefundPayment("42", "r-2", "pay-2", 500, "late"), {ORDER: past}, day(3))
        assert decided.keys() == {ORDER}

    def test_of_more_than_was_paid_is_refused(self) -> None:
        with pytest.raises(RefundExceedsPayment):
            ORDERS.decide_over(RefundPayment("42", "r-1", "pay-1", TOTAL + 1, "late"), {ORDER: fold(*PAID)}, day(3))

    @pytest.mark.parametrize(
        ("entries", "error"),
        [
            ([*COVERED, (day(5), interest(1, 4, 0))], DayClosed),
            ([(day(1), opened()), (day(1), deposited(MAX_BALANCE))], BalanceTooLarge),
        ],
        ids=["interest was paid", "full"],
    )
    def test_that_the_account_does_not_take_is_refused(self, entries: list[Entry], error: type[OrdersError]) -> None:
        refused(error, REFUND, {ORDER: fold(*PAID), MAIN: account(entries)}, 3)


# --- over HTTP -----------------------------------------------------------------------------------------------------


def payment(amount: int = TOTAL, **more: Any) -> dict[str, Any]:
    return {"payment_reference": "pay-1", "amount": amount, "account_id": "main", **more}


async def appended(connection: Connection, position: int) -> list[tuple[str, str]]:
    """The events of the append that ends at that position."""
    rows = await connection.fetch(
        """
        select stream_id, event_type from events
        where metadata->>'command_id' = (select metadata->>'command_id' from events where position = $1)
        order by position
        """,
        position,
    )
    return [tuple(row) for row in rows]


@pytest.mark.promise("commands", "An order is paid from an account, and refunded to it, in one append")
async def test_an_account_pays_and_gets_its_refund_in_one_append(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    await open_account(commands, "main", balance=TOTAL + 100)
    order_id = (await place(commands)).json()["aggregate_id"]

    paid = await commands.post(f"/orders/{order_id}/payments", json=payment())
    assert (paid.status_code, paid.json()["aggregate_id"]) == (200, order_id), paid.text
    assert await appended(connection, paid.json()["position"]) == [
        (f"order-{order_id}", "PaymentReceived"),
        (f"order-{order_id}", "OrderConfirmed"),
        ("payment-pay-1", "PaymentReferenceAssigned"),
        ("account-main", "MoneyWithdrawn"),
    ]
    assert await balance_in(connection, "main") == 100

    refund = {"refund_id": "r-1", "payment_reference": "pay-1", "amount": 500, "reason": "late"}
    refunded, repeated = [await commands.post(f"/orders/{order_id}/refunds", json=refund) for _ in range(2)]
    assert refunded.status_code == 200, refunded.text
    assert repeated.json()["version"] == refunded.json()["version"]
    again = await commands.post(f"/orders/{order_id}/payments", json=payment())
    assert again.json()["version"] == refunded.json()["version"]
    assert await balance_in(connection, "main") == 600


async def test_a_repeated_payment_with_its_key_is_withdrawn_once(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    await open_account(commands, "main", balance=2 * TOTAL)
    order_id = (await place(commands)).json()["aggregate_id"]
    path, key = f"/orders/{order_id}/payments", {"Idempotency-Key": "once"}
    first, again = await asyncio.gather(*(commands.post(path, json=payment(), headers=key) for _ in range(2)))
    assert first.json() == again.json()
    assert await balance_in(connection, "main") == TOTAL


async def test_every_refusal_changes_neither_the_order_nor_the_account(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    await open_account(commands, "main", balance=TOTAL - 1)
    await open_account(commands, "euros", currency="EUR")
    order_id = (await place(commands)).json()["aggregate_id"]
    head = await connection.fetchval("select position from log_head")
    path = f"/orders/{order_id}/payments"

    short = problem(await commands.post(path, json=payment()), 409, "insufficient-funds")
    assert (short["available"], short["requested"]) == (TOTAL - 1, TOTAL)
    problem(await commands.post(path, json=payment(account_id="none")), 404, "account-not-found")
    problem(await commands.post(path, json=payment(account_id="euros")), 409, "currency-mismatch")
    problem(await commands.post("/orders/none/payments", json=payment()), 404, "order-not-found")
    invalid = problem(await commands.post(path, json=payment(captured=False)), 422, "invalid-request")
    assert invalid["errors"][0]["code"] == "authorised-from-account"

    assert await connection.fetchval("select position from log_head") == head


async def test_orders_that_race_for_the_money_of_an_account_are_paid_as_far_as_it_goes(
    commands: httpx.AsyncClient, other_commands: httpx.AsyncClient, connection: Connection
) -> None:
    await open_account(commands, "main", balance=5 * TOTAL + 100)
    order_ids = [(await place(commands)).json()["aggregate_id"] for _ in range(12)]
    services = itertools.cycle([commands, other_commands])

    async def pay(service: httpx.AsyncClient, order_id: str) -> int:
        while True:
            body = payment(payment_reference=f"of-{order_id}")
            answer = await service.post(f"/orders/{order_id}/payments", json=body)
            if answer.status_code == 200 or answer.json()["code"] == "insufficient-funds":
                return answer.status_code
            assert answer.json()["code"] in {"version-conflict", "overloaded"}

    async def spend(service: httpx.AsyncClient) -> None:
        await service.post("/accounts/main/withdrawals", json=entry(20))

    statuses, _ = await asyncio.gather(
        asyncio.gather(*(pay(next(services), order_id) for order_id in order_ids)),
        asyncio.gather(*(spend(next(services)) for _ in range(5))),
    )

    assert statuses.count(200) == 5
    assert 0 <= await balance_in(connection, "main") <= 100
    paid = await connection.fetch("select stream_id from events where event_type = 'PaymentReceived'")
    assert {row["stream_id"] for row in paid} == {
        f"order-{order_id}" for order_id, status in zip(order_ids, statuses, strict=True) if status == 200
    }
