"""The state of an aggregate as it was: a fold of its stored events. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from shared.aggregates.aggregate import Aggregate, PastState, split_stream
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent

S = TypeVar("S")
E = TypeVar("E")


def advance(aggregate: Aggregate[S, E], past: PastState[S] | None, stored: StoredEvent) -> PastState[S]:
    """What there is after the next event; None is what there is before the first. Raises what `codec.decode` raises."""
    event = codec.decode(stored.event_type, stored.schema_version, stored.data)
    _, aggregate_id = split_stream(stored.stream_id)
    return after(aggregate, aggregate_id, past, event, stored.occurred_at, stored.version)


def after(
    aggregate: Aggregate[S, E], aggregate_id: str, past: PastState[S] | None, event: E, at: datetime, version: int
) -> PastState[S]:
    """The state after the event `version`, or the document of an aggregate that folds one."""
    before = None if past is None else past.state
    if (fold := aggregate.document_fold) is None:
        state = aggregate.after(before, event, at)
    else:
        state = fold.apply(aggregate_id, before, event, version, at)
    if past is None:
        return PastState(state, at, at, version, {type(event).__name__: at})
    last_at = {**past.last_at, type(event).__name__: at}
    return PastState(state, past.began_at, max(past.last_event_at, at), version, last_at)
