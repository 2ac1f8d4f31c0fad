"""What is published when a checkpoint has moved: how far, and, where they are few, the documents that the batch wrote.

The text is an encoded consistency token; documents follow it as JSON, after a space.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from shared.eventstore.token import ConsistencyToken

# Beyond that, who reads them asks for them: every query process is told everything, and needs next to nothing of it.
MOST_DOCUMENTS = 32
MOST_CHARACTERS = 32_000


class WrittenDocument(NamedTuple):
    id: str
    body: str
    version: str


class Written(NamedTuple):
    """Documents as they are at the announced position, in that generation of the read model. None of them is parked."""

    generation: int
    documents: list[WrittenDocument]


class Announcement(NamedTuple):
    """`written` is None where nothing is said of documents, which may then be any."""

    token: ConsistencyToken
    written: Written | None = None

    @classmethod
    def decode(cls, text: bytes) -> Announcement:
        """Raises `MalformedToken` and `ValueError`."""
        token, _, written = text.partition(b" ")
        try:
            return cls(ConsistencyToken.decode(token.decode()), _decode(written) if written else None)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error


def encode(token: ConsistencyToken, generation: int, documents: Iterable[WrittenDocument] | None) -> str:
    """None: nothing is said of documents; nor is it where they are too many."""
    text = token.encode()
    written = [] if documents is None else [*documents]
    if documents is None or len(written) > MOST_DOCUMENTS or sum(len(one.body) for one in written) > MOST_CHARACTERS:
        return text
    return f"{text} {_encode(Written(generation, written)).decode()}"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Written).decode
