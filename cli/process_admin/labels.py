"""How the trace of an order tells an event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any


def printable(text: str) -> str:
    """The text, with every control character escaped."""
    return text if text.isprintable() else ascii(text)


_LABELS = {
    "ProcessStarted": "begins {kind}, version {code_version}",
    "EventReceived": "sees {event_type}",
    "EffectRequested": "asks for {effect}{values}",
    "EffectAnswered": "{effect} is answered: {outcome}{values}",
    "StepSkipped": "skips {effect}{values}: {outcome}",
    "TimerSet": "sets timer {timer}, due in {due_in}",
    "TimerCancelled": "cancels timer {timer}",
    "TimerFired": "timer {timer} is due",
    "CommandDispatched": "gives {command}",
    "CommandRefused": "gives {command}, which is refused: {code}",
    "ProcessStuck": "is stuck: {reason}",
    "ProcessRetried": "goes on",
    "CompensationRequested": "gives back what it took",
    "ProcessEnded": "ends: {outcome}",
}


def label_of(event: Mapping[str, Any], effects: Mapping[str, str]) -> str:
    """`effects`: what was asked for, by the ids of effects. An event without a label is told by its type."""
    data = event["data"]
    if (label := _LABELS.get(event["event_type"])) is None:
        return printable(event["event_type"])
    told = {"effect": effects.get(data.get("effect_id"), ""), **data, "values": _values(data.get("data", {}))}
    if "due_at" in data:
        due_in = datetime.fromisoformat(data["due_at"]) - datetime.fromisoformat(event["occurred_at"])
        told["due_in"] = duration(due_in)
    return printable(label.format(**told))


def _values(data: Mapping[str, Any]) -> str:
    values = [f"{name} {value}" for name, value in data.items() if not isinstance(value, dict | list)]
    return f" ({', '.join(values)})" if values else ""


def duration(time: timedelta) -> str:
    """Two units at most."""
    seconds = time.total_seconds()
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"
    if hours:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{minutes} min"
