"""Owners by the number of their wallets: how many there are, and what they own together."""

from __future__ import annotations

import msgspec

from projector.projection import Contribution, Entry, Projection, RecordedEvent, Rollup
from tests.toy.aggregates.wallet import WalletChanged
from tests.toy.projections.owners import route

WEALTH_LINES = Rollup("wealth", ("wallets",), ("owners", "total"))


class OwnerWealth(msgspec.Struct, frozen=True):
    wallets: tuple[str, ...]  # in order
    total: int
    version: int


def apply(_owner_id: str, document: OwnerWealth | None, recorded: RecordedEvent[WalletChanged]) -> OwnerWealth:
    before = document or OwnerWealth((), 0, 0)
    wallets = tuple(sorted({*before.wallets, recorded.aggregate_id}))
    return OwnerWealth(wallets, before.total + recorded.event.by, before.version + 1)


def entries(document: OwnerWealth) -> frozenset[Entry]:
    return frozenset({(WEALTH_LINES.name, Contribution((str(len(document.wallets)),), (1, document.total)))})


WEALTH = Projection("wealth", OwnerWealth, route, apply, entries, rollups=(WEALTH_LINES,))
