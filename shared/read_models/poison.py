"""Events that a projection could not apply: what is stored of them for operators."""

from __future__ import annotations

import traceback
from datetime import datetime

import msgspec

LONGEST_ERROR = 500
LONGEST_TRACEBACK = 8_192


class Poison(msgspec.Struct, frozen=True, kw_only=True):
    """An event, the error that it caused in a document, and how many later events of the document wait behind it."""

    document_id: str
    stream_id: str
    position: int
    version: int
    event_type: str
    schema_version: int
    error: str
    traceback: str  # without variables: those hold customers' data
    at: datetime  # when it was last tried
    waiting: int = 0
    several_streams: bool = False  # events of other streams wait as well
    owner: str | None = None  # of the event's stream

    def __str__(self) -> str:
        return f"event {self.position} ({self.event_type}, version {self.version} of {self.stream_id}): {self.error}"


def describe(error: BaseException) -> tuple[str, str]:
    """The error as a line, and its traceback; neither longer than is worth keeping, both fit for UTF-8."""
    line = traceback.format_exception_only(error)[-1].strip()
    return _bounded(line, LONGEST_ERROR), _bounded("".join(traceback.format_exception(error)), LONGEST_TRACEBACK)


def _bounded(text: str, longest: int) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= longest:
        return text
    half = longest // 2 - 1
    return f"{text[:half]}\n…{text[-half:]}"


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Poison).decode
