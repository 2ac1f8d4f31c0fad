"""The message that announces a checkpoint: the consistency token of the position that a read model has reached."""

from __future__ import annotations

from shared.eventstore.token import ConsistencyToken


def decode(text: bytes) -> ConsistencyToken:
    """Raises `MalformedToken` and `ValueError`."""
    return ConsistencyToken.decode(text.decode())
