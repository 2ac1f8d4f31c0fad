"""The transfer: its id belongs to one movement of money between two accounts. Pure.

Its event is decided by the command on accounts, in the same append as theirs.
"""

from __future__ import annotations

import msgspec

from shared.aggregates.aggregate import Aggregate


class TransferRecorded(msgspec.Struct, frozen=True, gc=False):
    transfer_id: str
    from_account_id: str
    to_account_id: str
    amount: int
    reference: str


def evolve(_state: TransferRecorded | None, event: TransferRecorded) -> TransferRecorded:
    """What was recorded is all there is to know."""
    return event


TRANSFER: Aggregate[TransferRecorded, TransferRecorded] = Aggregate(
    category="transfer",
    state=TransferRecorded,
    events=(TransferRecorded,),
    evolve=evolve,
    example=TransferRecorded("rent-2026-01", "alice-main", "alice-savings", 1_200, "savings 2026-01"),
    example_id="rent-2026-01",
)
