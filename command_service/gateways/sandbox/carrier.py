"""The carrier of the sandbox, with its warehouse: its rules."""

from __future__ import annotations

import sqlite3
from typing import Any

from msgspec.structs import replace

from command_service.gateways.carrier import (
    BookParcel,
    CancelParcel,
    Delivered,
    HandedOver,
    HandOver,
    Lost,
    OnTheWay,
    OutOfStock,
    ParcelBooked,
    ParcelCancelled,
    TrackParcel,
)
from command_service.gateways.sandbox.behaviour import PIECES, Behaviour
from command_service.gateways.sandbox.errors import EffectRefused


class CarrierService:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def behaviour_of(self, effect: Any) -> Behaviour | None:
        """Raises `EffectRefused`."""
        if isinstance(effect, BookParcel):
            return next((PIECES[line.quantity] for line in effect.lines if line.quantity in PIECES), None)
        return self._parcel(effect.tracking_number)[0]

    def carry_out(self, effect_id: str, effect: Any) -> Any:
        """Raises `EffectRefused`."""
        match effect:
            case BookParcel():
                return self._book(effect_id, effect)
            case HandOver(number):
                self._move(number, "on the way")
                return HandedOver()
            case CancelParcel(number):
                self._move(number, "cancelled")
                return ParcelCancelled()
            case TrackParcel(number):
                return self._track(number)
            case _:
                raise TypeError(effect)

    def _book(self, effect_id: str, effect: BookParcel) -> Any:
        behaviour, lines = self.behaviour_of(effect), effect.lines
        if not lines:
            raise EffectRefused("a parcel has at least one line")
        if behaviour is Behaviour.OUT_OF_STOCK:
            return OutOfStock()
        if behaviour is Behaviour.PARTIAL and effect.replaces is None:
            lines = tuple([replace(line, quantity=(line.quantity + 1) // 2) for line in lines])
        number = f"track-{effect_id}"
        self._database.execute(
            "insert into parcels (tracking_number, behaviour, replaces, state) values (?, ?, ?, 'booked')",
            (number, behaviour, effect.replaces),
        )
        return ParcelBooked(number, "sandbox", lines)

    def _track(self, number: str) -> Any:
        behaviour, replaces, state, trackings = self._parcel(number)
        if state in ("booked", "cancelled"):
            raise EffectRefused(f"parcel {number} is {state}")
        self._database.execute("update parcels set trackings = trackings + 1 where tracking_number = ?", (number,))
        if behaviour is Behaviour.LOST or (behaviour is Behaviour.LOST_ONCE and replaces is None):
            return Lost()
        if behaviour is Behaviour.ON_THE_WAY and trackings < 2:
            return OnTheWay()
        return Delivered()

    def _move(self, number: str, after: str) -> None:
        if (state := self._parcel(number)[2]) != "booked":
            raise EffectRefused(f"parcel {number} is {state}")
        self._database.execute("update parcels set state = ? where tracking_number = ?", (after, number))

    def _parcel(self, number: str) -> tuple[Behaviour | None, str | None, str, int]:
        found = self._database.execute(
            "select behaviour, replaces, state, trackings from parcels where tracking_number = ?", (number,)
        ).fetchone()
        if found is None:
            raise EffectRefused(f"there is no parcel {number[:100]!r}")
        behaviour, replaces, state, trackings = found
        return None if behaviour is None else Behaviour(behaviour), replaces, state, trackings
