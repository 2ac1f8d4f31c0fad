"""The state of an aggregate as it was: a fold of its stored events. Pure."""

from __future__ import annotations

from typing import TypeVar

from shared.aggregates.aggregate import Aggregate, PastState
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent

S = TypeVar("S")
E = TypeVar("E")


def advance(aggregate: Aggregate[S, E], past: PastState[S] | None, stored: StoredEvent) -> PastState[S]:
    """The state after the next event; None is the state before the first. Raises what `codec.decode` raises."""
    event = codec.decode(stored.event_type, stored.schema_version, stored.data)
    state = aggregate.evolve(None if past is None else past.state, event)
    began_at, last_at = (stored.occurred_at, {}) if past is None else (past.began_at, past.last_at)
    last_at = {**last_at, stored.event_type: stored.occurred_at}
    return PastState(state, began_at, stored.occurred_at, stored.version, last_at)
