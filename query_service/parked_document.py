"""Answers from parked documents: they end before an event that the projector could not apply."""

from __future__ import annotations

from dataclasses import dataclass

from query_service.read_result import Document, ReadPosition
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken
from shared.read_models import poison as poisons


@dataclass
class ProjectionParked(Unavailable):
    """The document shows less than the token asks for until the projection is mended; the log has all of it."""

    parked: int
    event_type: str
    retry_after = 30.0
    code = "projection-parked"
    title = "The read model could not apply an event of this document"

    @property
    def detail(self) -> str:
        return f"The document ends before the {self.event_type} at position {self.parked}; the history shows it."


def owner_of_parked(document: Document) -> str | None:
    """Whose stream holds the event that could not be applied; None where the document is not parked."""
    return None if document.parked is None else poisons.decode(document.parked).owner


def parked_headers(document: Document, at: ReadPosition, token: str | None) -> dict[str, str]:
    """The headers of an answer from that document; empty when it is not parked.

    The Consistency-Token among them names only what the document shows. Raises `ProjectionParked` where it shows less
    than the request's `token` asks for, or nothing.
    """
    if document.parked is None:
        return {}
    poison = poisons.decode(document.parked)
    log_id = at.checkpoint.log_id
    asked = 0
    if token is not None:
        asked = max([one.position for one in ConsistencyToken.newest_of_each(token) if one.log_id == log_id], default=0)
    if document.body is None or asked >= poison.position:
        raise ProjectionParked(poison.position, poison.event_type)
    shown = log_id, poison.position - 1
    return {"Projection-Parked": str(poison.position), "Consistency-Token": ConsistencyToken(*shown).encode()}
