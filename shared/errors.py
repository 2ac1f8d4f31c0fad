"""The tree of errors. A stable code, a sentence and data; `shared/http/application.py` maps them to HTTP.

Each branch says what the caller can do about it. Leaves live beside the code that raises them.
"""

from __future__ import annotations

from typing import ClassVar


class OrdersError(Exception):
    """Root of every error that this project raises on purpose.

    Subclasses are dataclasses: their fields are the data, `detail` is the sentence. `code` never changes once
    published; clients switch on it.
    """

    code: ClassVar[str]
    title: ClassVar[str]

    @property
    def detail(self) -> str:
        """One sentence for the person who has to act on it."""
        return self.title

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Malformed(OrdersError):
    """The request cannot be understood; sending it again will not help."""


class Unauthenticated(OrdersError):
    """The caller is not known: send a bearer token that is accepted."""


class Forbidden(OrdersError):
    """The caller may not do this, whatever it sends."""


class NotFound(OrdersError):
    """There is no such thing."""


class Rejected(OrdersError):
    """A rule of the domain refuses; the state of the aggregate has to change first."""


class Stale(OrdersError):
    """The caller's expected version is not the current one; read again and decide again."""


class Invalid(OrdersError):
    """Well-formed, but a value is not acceptable."""


class Unavailable(OrdersError):
    """Not now; nothing was done. `retry_after` seconds is a fair time to try again."""

    retry_after: float = 1.0


class Limited(Unavailable):
    """The client has too much open, or asks too often; nothing was done."""


class OutcomeUnknown(OrdersError):
    """It may or may not have happened. Repeat with the same Idempotency-Key to learn which."""


class Corrupt(OrdersError):
    """What is stored cannot be read by this version of the program; stop rather than skip."""
