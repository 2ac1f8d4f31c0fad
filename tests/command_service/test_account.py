"""Every rule of the account, both ways: pure, no server."""

from __future__ import annotations

from datetime import date, timedelta

import msgspec
import pytest

from command_service.domain.account import (
    MAX_BALANCE,
    AccountAlreadyOpen,
    AccountNotFound,
    AccountNotOpenYet,
    ApplyInterest,
    BalanceTooLarge,
    CurrencyMismatch,
    DayClosed,
    DepositMoney,
    InsufficientFunds,
    InterestPeriodEmpty,
    InterestPeriodNotOver,
    OpenAccount,
    SameAccount,
    TransferAlreadyRecorded,
    TransferMoney,
    WithdrawMoney,
    check_currency,
    deposit,
    withdraw,
)
from shared.aggregates.account import (
    DAYS,
    Account,
    AccountOpened,
    MoneyDeposited,
    MoneyWithdrawn,
    TransferInitiated,
    TransferReceived,
    change_of,
    evolve_at,
)
from shared.aggregates.transfer import TransferRecorded
from tests.accounts import Decision, Entry, account, day, deposited, given, interest, opened, withdrawn

OPENED: list[Entry] = [(day(1, 0), opened())]
HUNDRED: list[Entry] = [*OPENED, (day(1), deposited(100))]
WITH_OVERDRAFT: list[Entry] = [(day(1, 0), opened(overdraft_limit=50)), (day(1), deposited(100))]


def put(amount: int) -> DepositMoney:
    return DepositMoney("main", amount, "salary")


def take(amount: int) -> WithdrawMoney:
    return WithdrawMoney("main", amount, "rent")


def move(amount: int, to: str = "savings") -> TransferMoney:
    return TransferMoney("main", to, "t-1", amount, "savings")


def pay_interest(first: int, until: int, annual_rate_bps: int = 100) -> ApplyInterest:
    return ApplyInterest("main", annual_rate_bps, day(first).date(), day(until).date())


class TestOpening:
    def test_an_account_is_opened_once(self) -> None:
        command = OpenAccount("main", "alice", "GBP", 50)
        given().when(command, day(1)).then(main=AccountOpened("alice", "GBP", 50))
        given(main=OPENED).when(command, day(2)).then_refused(AccountAlreadyOpen, account_id="main")

    @pytest.mark.parametrize("command", [put(1), take(1), move(1), pay_interest(1, 2)])
    def test_nothing_happens_to_an_account_that_was_not_opened(self, command: DepositMoney) -> None:
        given(savings=OPENED).when(command, day(3)).then_refused(AccountNotFound, account_id="main")


class TestEntries:
    def test_money_is_deposited_up_to_the_largest_balance(self) -> None:
        given(main=HUNDRED).when(put(MAX_BALANCE - 100), day(2)).then(main=deposited(MAX_BALANCE - 100))
        given(main=HUNDRED).when(put(MAX_BALANCE - 99), day(2)).then_refused(BalanceTooLarge, maximum=MAX_BALANCE)

    def test_the_whole_balance_is_withdrawn_and_no_more(self) -> None:
        after = given(main=HUNDRED).when(take(100), day(2)).then(main=withdrawn(100))
        assert after["main"].balance == 0
        given(main=HUNDRED).when(take(101), day(2)).then_refused(
            InsufficientFunds, account_id="main", requested=101, available=100, currency="GBP", currency_exponent=2
        )

    def test_the_overdraft_limit_is_used_and_no_more(self) -> None:
        after = given(main=WITH_OVERDRAFT).when(take(150), day(2)).then(main=withdrawn(150))
        assert after["main"].balance == -50
        given(main=WITH_OVERDRAFT).when(take(151), day(2)).then_refused(InsufficientFunds, available=150)


class TestTransfers:
    RECORDED = TransferRecorded("t-1", "main", "savings", 100, "savings")

    def test_again_move_no_more_money_also_when_the_account_is_empty_now(self) -> None:
        again = given(transfer=self.RECORDED, main=OPENED, savings=OPENED).when(move(100), day(2))
        assert again.events() == {}

    @pytest.mark.parametrize(
        "changed", [{"amount": 99}, {"reference": "rent"}, {"from_account_id": "x"}, {"to_account_id": "x"}]
    )
    def test_under_the_id_of_another_one_are_refused(self, changed: dict[str, object]) -> None:
        other = msgspec.structs.replace(self.RECORDED, **changed)
        again = given(transfer=other, main=HUNDRED, savings=OPENED).when(move(100), day(2))
        again.then_refused(TransferAlreadyRecorded, transfer_id="t-1")

    def test_between_accounts_that_are_not_there_are_not_found_whatever_was_recorded(self) -> None:
        """A customer learns nothing of what others transferred."""
        given(transfer=self.RECORDED, savings=OPENED).when(move(100), day(2)).then_refused(AccountNotFound)
        given(transfer=self.RECORDED, main=OPENED).when(move(100), day(2)).then_refused(AccountNotFound)

    def test_what_leaves_one_account_reaches_the_other(self) -> None:
        after = (
            given(main=HUNDRED, savings=OPENED)
            .when(move(100), day(2))
            .then(
                main=TransferInitiated("t-1", "savings", 100, "savings"),
                savings=TransferReceived("t-1", "main", 100, "savings"),
            )
        )
        assert (after["main"].balance, after["savings"].balance) == (0, 100)

    def test_a_transfer_is_covered(self) -> None:
        given(main=HUNDRED, savings=OPENED).when(move(101), day(2)).then_refused(InsufficientFunds, account_id="main")

    def test_both_accounts_exist(self) -> None:
        given(main=HUNDRED).when(move(1), day(2)).then_refused(AccountNotFound, account_id="savings")

    def test_both_accounts_were_open(self) -> None:
        later = [(day(3), opened())]
        given(main=HUNDRED, savings=later).when(move(1), day(2)).then_refused(AccountNotOpenYet, account_id="savings")

    def test_the_accounts_differ(self) -> None:
        given(main=HUNDRED).when(move(1, to="main"), day(2)).then_refused(SameAccount, account_id="main")

    def test_the_accounts_are_in_one_currency(self) -> None:
        euros = [(day(1, 0), opened(currency="EUR"))]
        given(main=HUNDRED, savings=euros).when(move(1), day(2)).then_refused(
            CurrencyMismatch, account_id="savings", expected="EUR", given="GBP"
        )

    def test_the_other_account_has_room(self) -> None:
        full = [*OPENED, (day(1), deposited(MAX_BALANCE))]
        given(main=HUNDRED, savings=full).when(move(1), day(2)).then_refused(BalanceTooLarge, account_id="savings")

    def test_a_day_that_is_closed_in_one_account_is_closed_to_the_transfer(self) -> None:
        paid = [*OPENED, (day(10), interest(1, 10, 0))]
        given(main=HUNDRED, savings=paid).when(move(1), day(9)).then_refused(DayClosed, account_id="savings")


class TestBackdating:
    """`SPENT` had 100 from day 1, 30 from day 5 and 80 from day 9."""

    SPENT: tuple[Entry, ...] = (*HUNDRED, (day(5), withdrawn(70)), (day(9), deposited(50)))

    @pytest.mark.parametrize(("number", "available"), [(2, 30), (4, 30), (5, 30), (7, 30), (10, 80)])
    def test_a_backdated_withdrawal_is_covered_on_its_day_and_ever_since(self, number: int, available: int) -> None:
        past = given(main=self.SPENT)
        past.when(take(available), day(number)).then(main=withdrawn(available))
        past.when(take(available + 1), day(number)).then_refused(InsufficientFunds, available=available)

    def test_a_balance_of_before_its_day_does_not_count(self) -> None:
        grown = [*OPENED, (day(2), deposited(10)), (day(5), deposited(90))]
        given(main=grown).when(take(10), day(3)).then(main=withdrawn(10))
        given(main=grown).when(take(11), day(3)).then_refused(InsufficientFunds, available=10)
        given(main=grown).when(take(10), day(4)).then(main=withdrawn(10))

    def test_within_its_day_it_is_covered_from_midnight_on(self) -> None:
        busy = [*OPENED, (day(2, 10), deposited(100)), (day(2, 15), deposited(1))]
        given(main=busy).when(take(1), day(2, 14)).then_refused(InsufficientFunds, available=0)
        given(main=busy).when(take(101), day(2, 15)).then(main=withdrawn(101))

    def test_a_backdated_deposit_covers_the_days_after_its_own(self) -> None:
        late = [*HUNDRED, (day(9), withdrawn(100)), (day(5), deposited(40))]
        given(main=late).when(take(40), day(9, 13)).then(main=withdrawn(40))
        given(main=late).when(take(40), day(6)).then(main=withdrawn(40))
        given(main=late).when(take(1), day(4)).then(main=withdrawn(1))

    def test_what_a_backdated_withdrawal_took_cannot_be_taken_again(self) -> None:
        taken = [*self.SPENT, (day(2), withdrawn(30))]
        state = account(taken)
        assert state is not None
        assert state.balance == 50
        given(main=taken).when(take(1), day(3)).then_refused(InsufficientFunds, available=0)
        given(main=taken).when(take(50), day(9)).then(main=withdrawn(50))

    def test_the_overdraft_limit_counts_in_the_past_too(self) -> None:
        spent = [*WITH_OVERDRAFT, (day(5), withdrawn(100))]
        given(main=spent).when(take(50), day(2)).then(main=withdrawn(50))
        given(main=spent).when(take(51), day(2)).then_refused(InsufficientFunds, available=50)

    def test_it_is_not_of_before_the_account_was_opened(self) -> None:
        given(main=HUNDRED).when(put(1), day(1, 0)).then(main=deposited(1))
        given(main=HUNDRED).when(put(1), day(1, 0) - timedelta(microseconds=1)).then_refused(AccountNotOpenYet)

    def test_it_is_of_one_of_the_last_four_hundred_days(self) -> None:
        old = [*HUNDRED, (day(1 + DAYS + 10), deposited(1))]
        given(main=old).when(take(1), day(11, 0)).then(main=withdrawn(1))
        given(main=old).when(take(1), day(10, 23)).then_refused(DayClosed, open_from=day(11).date())

    def test_a_backdated_deposit_has_room_ever_since(self) -> None:
        full = [*OPENED, (day(3), deposited(MAX_BALANCE)), (day(5), withdrawn(MAX_BALANCE))]
        given(main=full).when(put(1), day(6)).then(main=deposited(1))
        given(main=full).when(put(1), day(2)).then_refused(BalanceTooLarge)


class TestInterest:
    YEAR: tuple[Entry, ...] = (*OPENED, (day(1), deposited(10_000)))

    def test_a_year_of_a_hundred_pounds_at_one_per_cent_is_a_pound(self) -> None:
        given(main=self.YEAR).when(pay_interest(1, 366), day(366)).then(main=interest(1, 366, 100))

    def test_what_is_less_than_a_minor_unit_is_carried(self) -> None:
        state, paid = account(self.YEAR), 0
        for first in range(1, 366, 5):
            [decided] = Decision(pay_interest(first, first + 5), day(366), {"main": state}).events()["main"]
            state, paid = evolve_at(state, decided, day(366)), paid + change_of(decided)
        assert state is not None
        # The interest of each period was booked on day 366, so none of it bore interest.
        assert (paid, state.remainder) == (100, 0)

    def test_a_leap_year_has_a_day_more_of_interest(self) -> None:
        leap = day(731 + 366)  # 2028
        many: list[Entry] = [(day(731, 0), opened()), (day(731), deposited(3_650_000))]
        command = ApplyInterest("main", 100, day(731).date(), leap.date())
        given(main=many).when(command, leap).then(main=interest(731, 731 + 366, 36_600))

    def test_each_day_bears_interest_on_its_closing_balance(self) -> None:
        moved = [*OPENED, (day(2), deposited(1_000)), (day(2, 13), deposited(2_650)), (day(4), withdrawn(3_650))]
        # 3,650 on days 2 and 3
        given(main=moved).when(pay_interest(1, 10, 10_000), day(10)).then(main=interest(1, 10, 20, 0, 10_000))

    def test_a_backdated_entry_counts_for_its_day(self) -> None:
        late = [*OPENED, (day(8), deposited(1)), (day(3), deposited(3_650))]
        given(main=late).when(pay_interest(3, 5, 10_000), day(10)).then(main=interest(3, 5, 20, 0, 10_000))

    def test_a_negative_balance_bears_none(self) -> None:
        overdrawn: list[Entry] = [(day(1), opened(overdraft_limit=3_650)), (day(1), withdrawn(3_650))]
        given(main=overdrawn).when(pay_interest(1, 5, 10_000), day(5)).then(main=interest(1, 5, 0, 0, 10_000))

    def test_days_before_the_account_was_opened_bear_none(self) -> None:
        given(main=self.YEAR).when(pay_interest(-30, 366), day(366)).then(main=interest(-30, 366, 100))

    def test_the_period_has_days(self) -> None:
        given(main=self.YEAR).when(pay_interest(5, 5), day(9)).then_refused(InterestPeriodEmpty)
        given(main=self.YEAR).when(pay_interest(5, 4), day(9)).then_refused(InterestPeriodEmpty)

    def test_the_days_of_the_period_are_over(self) -> None:
        given(main=self.YEAR).when(pay_interest(1, 9, 0), day(9, 0)).then(main=interest(1, 9, 0, 0, 0))
        given(main=self.YEAR).when(pay_interest(1, 10), day(9, 23)).then_refused(InterestPeriodNotOver)

    def test_a_day_bears_interest_once(self) -> None:
        paid = [*self.YEAR, (day(20), interest(1, 10, 2))]
        given(main=paid).when(pay_interest(9, 12), day(20)).then_refused(DayClosed, day=day(9).date())
        given(main=paid).when(pay_interest(10, 11, 0), day(20)).then(main=interest(10, 11, 0, 0, 0))

    @pytest.mark.parametrize("command", [put(1), take(1), move(1)])
    def test_days_with_interest_take_no_entry(self, command: DepositMoney) -> None:
        past = given(main=[*self.YEAR, (day(20), interest(1, 10, 2))], savings=OPENED)
        past.when(command, day(9, 23)).then_refused(DayClosed, day=day(9).date(), open_from=day(10).date())
        assert past.when(command, day(10, 0)).events()

    def test_days_that_are_no_longer_known_bear_none(self) -> None:
        old = [*HUNDRED, (day(1 + DAYS + 10), deposited(1))]
        given(main=old).when(pay_interest(10, 20), day(DAYS + 20)).then_refused(DayClosed)
        given(main=old).when(pay_interest(11, 20, 0), day(DAYS + 20)).then(main=interest(11, 20, 0, 0, 0))

    def test_interest_has_room(self) -> None:
        full = [*OPENED, (day(1), deposited(MAX_BALANCE))]
        given(main=full).when(pay_interest(1, 2), day(3)).then_refused(BalanceTooLarge)


class TestOrders:
    """What an order's payment and its refund do to an account."""

    def test_an_order_is_paid_from_an_account_that_covers_it(self) -> None:
        paid = MoneyWithdrawn(100, "pay-1", "order-1")
        assert withdraw("main", account(HUNDRED), day(2), paid) is paid
        with pytest.raises(InsufficientFunds):
            withdraw("main", account(HUNDRED), day(2), MoneyWithdrawn(101, "pay-1", "order-1"))
        with pytest.raises(AccountNotFound):
            withdraw("main", None, day(2), paid)

    def test_a_refund_returns_to_the_account(self) -> None:
        refunded = MoneyDeposited(100, "refund-1", "order-1")
        assert deposit("main", account(HUNDRED), day(2), refunded) is refunded
        with pytest.raises(AccountNotFound):
            deposit("main", None, day(2), refunded)

    def test_it_is_in_the_currency_of_the_order(self) -> None:
        check_currency("main", account(HUNDRED), "GBP")
        with pytest.raises(CurrencyMismatch):
            check_currency("main", account(HUNDRED), "EUR")
        with pytest.raises(AccountNotFound):
            check_currency("main", None, "GBP")


class TestBounds:
    @staticmethod
    def grown(entries: int, step: timedelta) -> Account:
        state = account(OPENED)
        for number in range(entries):
            state = evolve_at(state, deposited(1), day(1) + number * step)
        assert state is not None
        return state

    def test_the_state_does_not_grow_with_the_entries_of_a_day(self) -> None:
        few, many = (self.grown(entries, timedelta(seconds=1)) for entries in (1, 10_000))
        assert len(few.days) == len(many.days) == 1

    @pytest.mark.promise("commands", "An account's state has a bound, however many entries and days it has")
    @pytest.mark.bound("command", "days in the state of an account")
    def test_the_state_holds_the_days_that_can_change_and_one_before_them(self) -> None:
        state = self.grown(3 * DAYS, timedelta(days=1))
        assert len(state.days) == DAYS + 1
        assert state.days[0].day == state.open_from
        assert len(msgspec.json.encode(state)) < 20_000

    def test_the_first_days_of_all_time_have_days_before_them(self) -> None:
        ancient = day(1).replace(year=1)
        given(main=[(ancient, opened())]).when(put(1), ancient).then(main=deposited(1))
        state = account([(ancient, opened()), (ancient, deposited(1))])
        assert state is not None
        assert state.open_from == date(1, 1, 1)
