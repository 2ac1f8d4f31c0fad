"""Owners and what they own: one document an owner, folded from the streams of all the owner's wallets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from projector.projection import Entry, Projection, RecordedEvent
from shared.read_models.keys import sort_key
from tests.toy.aggregates.wallet import WALLET, WalletChanged

ALL = "all"  # the index of all owners


class OwnerDocument(msgspec.Struct, frozen=True):
    owner_id: str
    wallets: dict[str, int]  # wallet -> balance
    total: int
    first_seen_at: datetime
    version: int  # events of all its wallets


def route(event: RecordedEvent[Any]) -> tuple[str, ...]:
    """The owner of the wallet whose event it is."""
    return (event.event.owner_id,) if event.category == WALLET.category else ()


def apply(owner_id: str, document: OwnerDocument | None, recorded: RecordedEvent[WalletChanged]) -> OwnerDocument:
    wallet_id, change = recorded.aggregate_id, recorded.event.by
    if document is None:
        return OwnerDocument(owner_id, {wallet_id: change}, change, recorded.occurred_at, 1)
    wallets = {**document.wallets, wallet_id: document.wallets.get(wallet_id, 0) + change}
    return OwnerDocument(owner_id, wallets, sum(wallets.values()), document.first_seen_at, document.version + 1)


def entries(document: OwnerDocument) -> frozenset[Entry]:
    return frozenset({(ALL, sort_key(document.first_seen_at, document.owner_id))})


class OwnerSummary(msgspec.Struct, frozen=True):
    owner_id: str
    total: int


def summary(document: OwnerDocument) -> OwnerSummary:
    return OwnerSummary(document.owner_id, document.total)


OWNERS = Projection("owners", OwnerDocument, route, apply, entries, summary=summary)
