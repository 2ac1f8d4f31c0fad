"""What a command appends to the event log, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from shared.eventstore.token import ConsistencyToken


class NewEvent(NamedTuple):
    event_id: UUID
    event_type: str
    schema_version: int
    data: str
    metadata: str
    occurred_at: datetime


class StreamAppend(NamedTuple):
    """What a command appends to one stream that is still at `expected_version` (0: no stream yet).

    Without events, only the version is checked; for version 0, that costs an index lookup. `owner` counts where the
    first event is among them: every event of the stream then carries it.
    """

    stream_id: str
    expected_version: int
    events: Sequence[NewEvent] = ()
    owner: str | None = None


class AppendRequest(NamedTuple):
    """What one command appends, to all of its streams or to none of them.

    `streams` begins with the command's own stream and names each stream once. Their events get consecutive positions in
    this order. `log_id` is the log that the command was decided under: a log with another id answers `CONFLICT`.
    """

    streams: Sequence[StreamAppend]
    command_id: UUID
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    log_id: UUID | None = None

    @classmethod
    def of_stream(
        cls,
        stream_id: str,
        expected_version: int,
        command_id: UUID,
        events: Sequence[NewEvent] = (),
        idempotency_key: str | None = None,
        fingerprint: bytes | None = None,
        log_id: UUID | None = None,
        owner: str | None = None,
    ) -> AppendRequest:
        """The request of a command that names its own stream alone."""
        own = StreamAppend(stream_id, expected_version, events, owner)
        return cls((own,), command_id, idempotency_key, fingerprint, log_id)


class AppendStatus(StrEnum):
    APPENDED = "appended"
    CONFLICT = "conflict"
    REPLAYED = "replayed"
    KEY_REUSED = "key_reused"


class AppendResult(NamedTuple):
    """What became of one `AppendRequest`.

    `stream_id` is the command's own stream and `version` that of its last event. `position` is that of the request's
    last event, or of the own stream's where the request appended none. For a replay, all of them and `command_id` are
    those of the first acknowledgement. `log_id` is that of the log that answered.
    """

    status: AppendStatus
    command_id: UUID
    stream_id: str
    version: int
    position: int
    log_id: UUID

    @property
    def token(self) -> ConsistencyToken:
        return ConsistencyToken(self.log_id, self.position)
