"""A payment provider and a carrier with a ledger of their own. They decline, delay, fail before and after the deed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from random import Random
from types import coroutine
from typing import Any, NamedTuple

from command_service.gateways import carrier, payment
from command_service.gateways.gateway import GatewayOutcomeUnknown, GatewayUnavailable
from shared.aggregates.order import LineQuantity
from shared.aggregates.process import split_process_id


@coroutine
def pause() -> Generator[None, None, None]:
    """Lets the scheduler go on with another task, or crash this one."""
    yield


class Chances(NamedTuple):
    """Of each request."""

    unavailable: float = 0.15
    unknown: float = 0.15  # the answer is lost, after the deed or before it
    declined: float = 0.1
    review: float = 0.15
    out_of_stock: float = 0.2
    split: float = 0.25
    lost: float = 0.25  # of each parcel


class Provider:
    """Carries out an effect of one id once, after `check` of it. `outcomes` is its ledger."""

    def __init__(self, random: Random, chances: Chances, check: Callable[[str, Any], None]) -> None:
        self.random = random
        self.chances = chances
        self.check = check
        self.outcomes: dict[str, Any] = {}

    async def carry_out(self, effect_id: str, effect: Any) -> Any:
        await pause()
        self._fail(GatewayUnavailable(retry_after=0), self.chances.unavailable)
        self._fail(GatewayOutcomeUnknown(), self.chances.unknown / 2)
        if effect_id not in self.outcomes:
            self.check(effect_id, effect)
            self.outcomes[effect_id] = self.do(effect_id, effect)
        await pause()
        self._fail(GatewayOutcomeUnknown(), self.chances.unknown)
        return self.outcomes[effect_id]

    async def outcome_of(self, effect_id: str) -> Any | None:
        await pause()
        self._fail(GatewayUnavailable(retry_after=0), self.chances.unavailable)
        return self.outcomes.get(effect_id)

    def by_hand(self, effect_id: str, effect: Any) -> Any:
        """The outcome after an operator saw to it at the provider, who declines nothing then."""
        if effect_id not in self.outcomes:
            self.chances, before = self.chances._replace(declined=0), self.chances
            self.outcomes[effect_id] = self.do(effect_id, effect)
            self.chances = before
        return self.outcomes[effect_id]

    def do(self, effect_id: str, effect: Any) -> Any:
        raise NotImplementedError

    def _fail(self, error: Exception, chance: float) -> None:
        if self.random.random() < chance:
            raise error


@dataclass
class Charge:
    order_id: str
    amount: int
    captured: int = 0
    refunded: int = 0
    voided: bool = False

    @property
    def reserved(self) -> int:
        return 0 if self.voided else self.amount - self.captured


def order_of(effect_id: str) -> str:
    return split_process_id(effect_id.rpartition("-")[0])[1]


class PaymentProvider(Provider):
    def __init__(self, random: Random, chances: Chances, check: Callable[[str, Any], None]) -> None:
        super().__init__(random, chances, check)
        self.charges: dict[str, Charge] = {}

    def kept(self, order_id: str) -> int:
        return sum([one.captured - one.refunded for one in self.charges.values() if one.order_id == order_id])

    def do(self, effect_id: str, effect: Any) -> Any:
        declined = self.random.random() < self.chances.declined
        match effect:
            case payment.Authorise(amount):
                if declined:
                    return payment.Declined("no funds")
                self.charges[effect_id] = Charge(order_of(effect_id), amount)
                return payment.Authorised(self.random.random() < self.chances.review)
            case payment.Capture(reference, amount):
                charge = self.charges[reference]
                assert 0 < amount <= charge.reserved, f"{effect} of {charge}"
                if declined:
                    return payment.Declined("expired")
                charge.captured += amount
                return payment.Captured()
            case payment.Void(reference):
                assert self.charges[reference].reserved, f"{effect} of {self.charges[reference]}"
                if declined:
                    return payment.Declined("not now")
                self.charges[reference].voided = True
                return payment.Voided()
            case payment.Refund(reference, amount):
                charge = self.charges[reference]
                assert 0 < amount <= charge.captured - charge.refunded, f"{effect} of {charge}"
                if declined:
                    return payment.Declined("account closed")
                charge.refunded += amount
                return payment.Refunded()
        raise TypeError(effect)


@dataclass
class Parcel:
    order_id: str
    lines: tuple[LineQuantity, ...]
    polls: int  # until its fate is known
    fate: str
    state: str = "booked"
    tracked: int = field(default=0)


class Carrier(Provider):
    def __init__(self, random: Random, chances: Chances, check: Callable[[str, Any], None]) -> None:
        super().__init__(random, chances, check)
        self.parcels: dict[str, Parcel] = {}

    def of(self, order_id: str, *states: str) -> list[Parcel]:
        return [one for one in self.parcels.values() if one.order_id == order_id and one.state in states]

    def do(self, effect_id: str, effect: Any) -> Any:
        match effect:
            case carrier.BookParcel(order_id, lines):
                return self._book(effect_id, order_id, lines, effect.replaces)
            case carrier.HandOver(number):
                return self._move(number, "booked", "on the way", carrier.HandedOver())
            case carrier.CancelParcel(number):
                return self._move(number, "booked", "cancelled", carrier.ParcelCancelled())
            case carrier.TrackParcel(number):
                parcel = self.parcels[number]
                assert parcel.state != "booked", f"{number} has not left"
                parcel.tracked += 1
                if parcel.tracked < parcel.polls:
                    return carrier.OnTheWay()
                parcel.state = parcel.fate
                return carrier.Lost() if parcel.fate == "lost" else carrier.Delivered()
        raise TypeError(effect)

    def _book(self, effect_id: str, order_id: str, lines: tuple[LineQuantity, ...], replaces: str | None) -> Any:
        if self.random.random() < self.chances.out_of_stock:
            return carrier.OutOfStock()
        if replaces is None and self.random.random() < self.chances.split:
            lines = tuple([LineQuantity(one.line_id, self.random.randint(1, one.quantity)) for one in lines])
            lines = lines[: self.random.randint(1, len(lines))]
        fate = "lost" if self.random.random() < self.chances.lost else "delivered"
        number = f"track-{effect_id}"
        self.parcels[number] = Parcel(order_id, lines, self.random.randint(1, 4), fate)
        return carrier.ParcelBooked(number, "simulated", lines)

    def _move(self, number: str, before: str, after: str, outcome: Any) -> Any:
        parcel = self.parcels[number]
        assert parcel.state == before, f"{number} is {parcel.state}, not {before}"
        parcel.state = after
        return outcome
