"""What a carrier with a warehouse is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared.aggregates.order import LineQuantity

# --- effects -------------------------------------------------------------------------------------------------------


class BookParcel(msgspec.Struct, frozen=True, omit_defaults=True):
    """Packs pieces and labels them. Nothing leaves until `HandOver`. `replaces` is the number of a parcel that was
    lost; what replaces it is packed whole, or not at all."""

    order_id: str
    lines: tuple[LineQuantity, ...]
    replaces: str | None = None


class HandOver(msgspec.Struct, frozen=True):
    """Lets the parcel leave."""

    tracking_number: str


class CancelParcel(msgspec.Struct, frozen=True):
    """Unpacks a parcel that has not left."""

    tracking_number: str


class TrackParcel(msgspec.Struct, frozen=True):
    tracking_number: str


# --- outcomes ------------------------------------------------------------------------------------------------------


class ParcelBooked(msgspec.Struct, frozen=True):
    """`lines` may be a part of those that were asked for."""

    tracking_number: str
    carrier: str
    lines: tuple[LineQuantity, ...]


class OutOfStock(msgspec.Struct, frozen=True):
    """Nothing was packed."""


class HandedOver(msgspec.Struct, frozen=True):
    pass


class ParcelCancelled(msgspec.Struct, frozen=True):
    pass


class OnTheWay(msgspec.Struct, frozen=True):
    pass


class Delivered(msgspec.Struct, frozen=True):
    pass


class Lost(msgspec.Struct, frozen=True):
    pass


CarrierEffect = BookParcel | HandOver | CancelParcel | TrackParcel
CarrierOutcome = ParcelBooked | OutOfStock | HandedOver | ParcelCancelled | OnTheWay | Delivered | Lost

# What may answer each effect.
ANSWERS: Mapping[type[Any], tuple[type[Any], ...]] = {
    BookParcel: (ParcelBooked, OutOfStock),
    HandOver: (HandedOver,),
    CancelParcel: (ParcelCancelled,),
    TrackParcel: (OnTheWay, Delivered, Lost),
}
