"""The read model "processes" in Redis: a document a process. Its indexes are compared by the verification."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from tests.independent_folds.event_rows import Log, id_of, time_of
from tests.independent_folds.orders import Document, read_documents


async def assert_equals(log: Log, redis_url: str, seconds: float) -> None:
    """The live generation holds the fold of the log, within the time."""
    found = await read_documents(log, redis_url, "processes", seconds)
    assert found == fold(log.rows)


def fold(rows: list[Any]) -> dict[str, Document]:
    """Process id -> the document after all rows."""
    documents: dict[str, Document] = {}
    for row in rows:
        if (process_id := id_of(row, "process")) is None:
            continue
        data, at = json.loads(row["data"]), time_of(row)
        document = documents.setdefault(process_id, _new(process_id, data, at))
        _change(document, row["event_type"], data, at)
        document["last_event_at"] = max(document["last_event_at"], at, key=datetime.fromisoformat)
        document["version"] = row["version"]
    return documents


def _new(process_id: str, data: dict[str, Any], at: str) -> Document:
    named = {name: data.get(name) for name in ("kind", "subject_id", "code_version")}
    nothing: Document = {"outcome": None, "stuck": None, "stuck_since": None, "effects": {}, "timers": {}}
    return {"process_id": process_id, **named, "state": "running", **nothing, "started_at": at, "last_event_at": at}


def _change(document: Document, event_type: str, data: dict[str, Any], at: str) -> None:
    if event_type == "EffectRequested":
        document["effects"][data["effect_id"]] = {"effect": data["effect"], "since": at}
    elif event_type in ("EffectAnswered", "StepSkipped"):
        document["effects"].pop(data["effect_id"], None)
    elif event_type == "TimerSet":
        document["timers"][data["timer"]] = data["due_at"]
    elif event_type in ("TimerCancelled", "TimerFired"):
        document["timers"].pop(data["timer"], None)
    elif event_type == "ProcessStuck":
        document.update(state="stuck", stuck=data["reason"], stuck_since=at)
    elif event_type in ("ProcessRetried", "CompensationRequested"):
        document.update(state="running", stuck=None, stuck_since=None)
    elif event_type == "ProcessEnded":
        document.update(state="ended", outcome=data["outcome"], effects={}, timers={})
