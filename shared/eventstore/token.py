"""The consistency token: a position in one particular log.

A command's acknowledgement carries the position of its last event; a query that is handed the token waits until its
read model has reached that position. Clients treat it as opaque.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from shared.errors import Malformed

_TOKEN = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,18})", re.ASCII)
_LAST_POSITION = 2**63 - 1


@dataclass
class MalformedToken(Malformed):
    code = "malformed-token"
    title = "The Consistency-Token cannot be read"

    @property
    def detail(self) -> str:
        return "The Consistency-Token is not one of ours; send it exactly as it was received."


@dataclass
class UnknownLog(Malformed):
    """The token names another log: this database was restored or is a different one."""

    log_id: UUID
    code = "unknown-log"
    title = "The Consistency-Token belongs to another event log"

    @property
    def detail(self) -> str:
        return (
            f"The token names log {self.log_id}; the one served here, or of the request's other tokens, is another. "
            "Read without a token to get a current one."
        )


@dataclass
class TokenBeyondLog(Malformed):
    """The token names events that were never acknowledged, or that a restore of the log has lost."""

    position: int
    head: int
    code = "token-beyond-log"
    title = "The log does not reach the Consistency-Token"

    @property
    def detail(self) -> str:
        return f"The token asks for position {self.position}, and the log ends at {self.head}. Read without a token."


@dataclass(frozen=True, slots=True)
class ConsistencyToken:
    """Position `position` (0 = nothing yet) of the log `log_id`."""

    log_id: UUID
    position: int

    def encode(self) -> str:
        return f"{self.log_id.hex}-{self.position}"

    @classmethod
    def decode(cls, text: str) -> ConsistencyToken:
        """Raises `MalformedToken`."""
        match = _TOKEN.fullmatch(text)
        if match is None or int(match[2]) > _LAST_POSITION:
            raise MalformedToken
        return cls(UUID(match[1]), int(match[2]))

    @classmethod
    def newest_of_each(cls, header: str) -> tuple[ConsistencyToken, ...]:
        """Of the tokens that the header lists, separated by commas, the newest of each log. Raises `MalformedToken`."""
        if "," not in header:
            return (cls.decode(header),)
        newest: dict[UUID, ConsistencyToken] = {}
        for each in header.split(","):
            token = cls.decode(each.strip(" \t"))
            known = newest.setdefault(token.log_id, token)
            if token.position > known.position:
                newest[token.log_id] = token
        return tuple(newest.values())

    def position_in(self, log_id: UUID) -> int:
        """The position to wait for in the log `log_id`. Raises `UnknownLog` when the token is of another log."""
        if self.log_id != log_id:
            raise UnknownLog(self.log_id)
        return self.position
