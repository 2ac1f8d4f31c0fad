"""What a read of a read model returns, and the log position that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from shared.errors import Invalid, Unavailable
from shared.http.etags import etag_of
from shared.http.form_errors import FormError
from shared.read_models.keys import Checkpoint

T = TypeVar("T")


@dataclass
class ReadModelUnavailable(Unavailable):
    server: str = "Redis"
    code = "read-model-unavailable"
    title = "The read model cannot be reached"

    @property
    def detail(self) -> str:
        return f"{self.server}, which stores the read model, does not answer."


@dataclass
class AnswerTooLarge(Invalid):
    most: int
    errors: list[FormError]
    _unit: str
    code = "answer-too-large"
    title = "The answer would be too large"

    @classmethod
    def because(cls, pointer: str, advice: str, most: int, unit: str) -> AnswerTooLarge:
        """Of more than `most` of the unit; the parameter that `pointer` names is to be another, as the advice says."""
        return cls(most, [FormError(pointer, cls.code, advice)], unit)

    @property
    def detail(self) -> str:
        return f"The answer would have more than {self.most} {self._unit}. {self.errors[0].detail}"


class ReadPosition(NamedTuple):
    """The checkpoint that a result shows; `token` is its encoded consistency token, `code` the version of the code that
    made the documents."""

    checkpoint: Checkpoint
    token: str
    code: int = 1

    @classmethod
    def of(cls, checkpoint: Checkpoint, code: int = 1) -> ReadPosition:
        return cls(checkpoint, checkpoint.token.encode(), code)

    def etag(self, document: Document) -> str:
        """Of a document that there is."""
        assert document.version is not None
        return etag_of(document.version.decode(), self.code, self.token)


class ReadResult(NamedTuple, Generic[T]):
    """`at` is None when there is no read model; `value` is then undefined.

    `lagging_partition` is the partition whose checkpoint limits `at`.
    """

    at: ReadPosition | None
    value: T
    lagging_partition: int = 0


class Document(NamedTuple):
    """`body` is JSON that can be served as it is; None when there is no such document.

    `parked` is an encoded `shared.read_models.poison.Poison`: the event that could not be applied to the document. The
    document shows nothing from that event on.
    """

    body: bytes | None
    version: bytes | None
    parked: bytes | None = None


class IndexPage(NamedTuple):
    """Summaries of the documents on one page of an index; `next_entry` starts the next page, None on the last one."""

    next_entry: bytes | None
    summaries: list[bytes]


class RollupLines(NamedTuple):
    """`parked` documents count as they were before an event that could not be applied, or not at all."""

    lines: list[tuple[Any, ...]]  # the columns that were asked for
    parked: int


class LiveGeneration(NamedTuple):
    """The live generation of a read model, how often the live generation has changed, and its partitions."""

    number: int
    switches: int
    partitions: int
