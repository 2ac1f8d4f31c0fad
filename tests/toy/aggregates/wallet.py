"""The wallet: its events, state and upcasters. Pure. Amounts are in minor units."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from shared.aggregates.aggregate import Aggregate, Owner, Payload


class WalletChanged(msgspec.Struct, frozen=True):
    owner_id: str
    by: int  # below 0: taken out
    note: str


@dataclass(frozen=True)
class Wallet:
    owner_id: str
    balance: int
    changes: int


def evolve(state: Wallet | None, event: WalletChanged) -> Wallet:
    if state is None:
        return Wallet(event.owner_id, event.by, 1)
    return Wallet(state.owner_id, state.balance + event.by, state.changes + 1)


def _wallet_changed_1_to_2(payload: Payload) -> Payload:
    """Version 1 has no note."""
    return {"note": "", **payload}


WALLET: Aggregate[Wallet, WalletChanged] = Aggregate(
    category="wallet",
    state=Wallet,
    events=(WalletChanged,),
    evolve=evolve,
    versions={WalletChanged: 2},
    upcasters={(WalletChanged, 1): _wallet_changed_1_to_2},
    owner=Owner("owner", "owners", WalletChanged, "owner_id"),
    example=WalletChanged("ann", 500, "pocket money"),
)
