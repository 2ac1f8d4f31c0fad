"""Tables of processes, and of the events of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.process_admin.labels import printable
from cli.process_admin.services import Service
from cli.tables import print_fields, print_json, print_table


def show_list(queries: Service, chosen: Mapping[str, Any], *, as_json: bool) -> None:
    document = queries.get("/processes", chosen)
    if as_json:
        print_json(document)
        return
    rows = [
        [
            one["process_id"],
            one["outcome"] or one["state"],
            one["started_at"],
            one["next_due_at"] or "",
            printable(one["stuck"] or ", ".join(one["waits_for"])),
        ]
        for one in document["processes"]
    ]
    print_table(["process", "state", "started", "next due", "waits for"], rows)


def show_one(queries: Service, process_id: str, *, as_json: bool) -> None:
    path = f"/processes/{queries.quote(process_id)}"
    process = queries.get(path)
    events = [*queries.events(f"{path}/history")]
    if as_json:
        print_json({"process": process, "events": events})
        return
    effects = [f"{one['effect']} ({effect_id}) since {one['since']}" for effect_id, one in process["effects"].items()]
    timers = [f"{timer}, due {due_at}" for timer, due_at in process["timers"].items()]
    stuck = process["stuck"] and f"{printable(process['stuck'])} (since {process['stuck_since']})"
    kept = {name: process[name] for name in ("process_id", "state", "outcome", "started_at", "version")}
    fields = {**kept, "stuck": stuck, "waits for": effects, "timers": timers}
    print_fields({name: value for name, value in fields.items() if value is not None}, as_json=False)
    rows = [
        [str(one["version"]), one["recorded_at"], one["event_type"], printable(_actor(one)), printable(_detail(one))]
        for one in events
    ]
    print_table([">version", "recorded", "event", "by", "what"], rows)


def _actor(event: Mapping[str, Any]) -> str:
    return str(event["metadata"].get("actor", {}).get("sub", ""))


def _detail(event: Mapping[str, Any]) -> str:
    names = ("event_type", "command", "code", "effect", "effect_id", "outcome", "timer", "due_at", "reason")
    return ", ".join([str(event["data"][name]) for name in names if name in event["data"]])
