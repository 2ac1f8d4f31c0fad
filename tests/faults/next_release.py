"""The next release of our programs: `python -m tests.faults.next_release RELEASE ARGUMENTS`, with those of `orders`.

RELEASE is one of
    newer-event        it knows one more version of an event
    same-code          it has no projection of accounts
    other-code         nor has this one, and its projection of orders makes other documents
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import msgspec

from cli.main import app
from projector.projection import RecordedEvent
from projector.projections import PROJECTIONS, RegisteredProjection
from projector.projections.accounts import ACCOUNTS
from projector.projections.orders import ORDERS
from shared.aggregates import EVENT_TYPES
from shared.aggregates.order import OrderDocument

NEWER_VERSION = 4  # of OrderPlaced
OTHER_CODE = ORDERS.version + 1
MARK = "2"  # that the other code leaves in a document for each event


def know_newer_event() -> None:
    """Registers the next version of OrderPlaced: it says through which channel the order came."""
    known = EVENT_TYPES["OrderPlaced"]
    upcasters = {**known.upcasters, NEWER_VERSION - 1: lambda payload: {**payload, "channel": "web"}}
    EVENT_TYPES["OrderPlaced"] = replace(known, version=NEWER_VERSION, upcasters=upcasters)


def marked(before: OrderDocument | None) -> str:
    """The tracking number that the other code gives a document: its events, counted. The old code would not go on
    counting, so an event that either applies to a document of the other's shows for ever."""
    so_far = None if before is None else before.tracking_number
    return (so_far or "") + MARK


def fold_otherwise() -> None:
    """Registers the other code."""

    def apply(order_id: str, before: OrderDocument | None, recorded: RecordedEvent[Any]) -> OrderDocument:
        after = ORDERS.apply(order_id, before, recorded)
        return msgspec.structs.replace(after, tracking_number=marked(before))

    other = RegisteredProjection(replace(ORDERS, apply=apply, version=OTHER_CODE), "redis")
    PROJECTIONS[ORDERS.name] = other
    leave_accounts_out()


def leave_accounts_out() -> None:
    """Of two processes, each projects one of the two read models that are left."""
    del PROJECTIONS[ACCOUNTS.name]


RELEASES = {"newer-event": know_newer_event, "other-code": fold_otherwise, "same-code": leave_accounts_out}

if __name__ == "__main__":
    RELEASES[sys.argv[1]]()
    app(args=sys.argv[2:], prog_name="orders")
