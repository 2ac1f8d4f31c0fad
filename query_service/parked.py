"""Answers from documents that are parked: what they show ends before an event that could not be applied to them."""

from __future__ import annotations

from dataclasses import dataclass

from query_service.reading import At, Document
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken
from shared.read_models import poison as poisons


@dataclass
class ProjectionParked(Unavailable):
    """Nobody can say what is asked for before the projection has been mended; the log has it."""

    parked: int
    event_type: str
    retry_after = 30.0
    code = "projection-parked"
    title = "The read model could not apply an event of this order"

    @property
    def detail(self) -> str:
        return f"It shows nothing of the order from position {self.parked} on, a {self.event_type}; the history does."


def headers_of(document: Document, at: At, token: str | None) -> dict[str, str]:
    """What the headers of an answer from that document say of it.

    Its token is of what it shows, so that it claims no more. Raises `ProjectionParked` where it shows less than the
    request's `token` asks for, or nothing.
    """
    if document.parked is None:
        return {}
    poison = poisons.decode(document.parked)
    if document.body is None or (token is not None and ConsistencyToken.decode(token).position >= poison.position):
        raise ProjectionParked(poison.position, poison.event_type)
    shown = at.checkpoint.token.log_id, poison.position - 1
    return {"Projection-Parked": str(poison.position), "Consistency-Token": ConsistencyToken(*shown).encode()}
