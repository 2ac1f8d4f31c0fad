"""What the bank of the toy is asked for, and what it answers."""

from __future__ import annotations

import msgspec


class AskBonus(msgspec.Struct, frozen=True):
    """Of a share of what was put into a new wallet."""

    amount: int


class BonusGranted(msgspec.Struct, frozen=True):
    amount: int


class BonusDenied(msgspec.Struct, frozen=True):
    pass


ANSWERS = {AskBonus: (BonusGranted, BonusDenied)}
