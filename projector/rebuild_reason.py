"""Whether a read model is a fold of this log, or has to be built from the start."""

from __future__ import annotations

from projector.stores.store import ClaimedCheckpoint
from shared.eventstore.feed import Feed
from shared.eventstore.log import Head
from shared.eventstore.subscription import LogSession


async def rebuild_reason(session: LogSession, feed: Feed, claimed: ClaimedCheckpoint | None, head: Head) -> str | None:
    """Why it cannot be continued at its checkpoint; None where it can."""
    if claimed is None:
        return "there is none"
    checkpoint = claimed.checkpoint
    if checkpoint.log_id != head.log_id:
        return f"it belongs to log {checkpoint.log_id}, this is {head.log_id}"
    if checkpoint.position > head.position:
        return f"it is at {checkpoint.position}, ahead of the log, which was restored to an older state"
    if checkpoint.position > 0:
        # Each hash covers all that went before, so one comparison tells whether the model's past is this log's.
        last = await session.read_one(checkpoint.position, feed)
        if last.hash != claimed.hash:
            return f"the log has another past at {checkpoint.position}; it was restored to an older state"
    return None
