"""What goes over HTTP between this program and a gateway: effects, outcomes, and callbacks with outcomes, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

CALLBACK_TYPE = "effect.answered"

T = TypeVar("T", bound=msgspec.Struct)


class UnreadableMessage(ValueError):
    """It is not JSON, or has another shape."""


class EffectMessage(msgspec.Struct, frozen=True):
    """The body of `POST /effects`; its id is the `Idempotency-Key`."""

    effect: str  # the name of its type
    data: dict[str, Any]


class OutcomeMessage(msgspec.Struct, frozen=True):
    """What `POST /effects` and `GET /effects/{effect_id}` answer with status 200."""

    effect_id: str
    outcome: str  # the name of its type
    data: dict[str, Any]


class CallbackMessage(msgspec.Struct, frozen=True):
    """The body of a callback, with the members that Standard Webhooks proposes."""

    type: str
    timestamp: datetime
    data: OutcomeMessage


def message_of(effect: msgspec.Struct) -> EffectMessage:
    return EffectMessage(type(effect).__name__, msgspec.to_builtins(effect))


def read_message(content: bytes, kind: type[T]) -> T:
    """Raises `UnreadableMessage`."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableMessage(str(error)) from None


def read_typed(name: str, data: Mapping[str, Any], types: Iterable[type[Any]]) -> Any:
    """The value of one of these types. Raises `UnreadableMessage`."""
    kind = next((one for one in types if one.__name__ == name), None)
    if kind is None:
        raise UnreadableMessage(f"{name[:100]!r} is not expected here")
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UnreadableMessage(str(error)) from None
