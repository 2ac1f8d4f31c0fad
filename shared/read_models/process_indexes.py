"""The names of the indexes of the processes read model. Kinds hold no colon, so the names cannot collide."""

from __future__ import annotations


def name_of(kind: str | None, state: str | None) -> str:
    """None: of any."""
    return f"kind:{kind or ''}:state:{state or ''}"
