"""The journey of an order: its events and those of its processes, each under what led to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cli.failure import CommandFailed
from cli.process_admin.labels import duration, label_of, printable
from cli.process_admin.services import Service
from cli.tables import print_json
from command_service.processes.advance import DEFINITIONS, current_definition
from shared.aggregates.order import ORDER
from shared.aggregates.process import PROCESS, process_id_of

Event = Mapping[str, Any]  # as a history has it, and `stream`: what it is an event of
ADVANCE = "AdvanceProcess"  # the command of a process; every other one is a client's


@dataclass
class Step:
    """A command, an event, or both where one event was all that led to the command. `text` is a line of the trace."""

    text: str
    after: timedelta  # since the first event of all
    children: list[Step] = field(default_factory=list)


def print_trace(queries: Service, order_id: str, *, as_json: bool) -> None:
    """Raises CommandFailed."""
    events = [*_read(queries, order_id)]
    if not any(event["stream"] == ORDER.noun for event in events):
        raise CommandFailed(f"there is no order {order_id!r}")
    roots = journey(events)
    if as_json:
        steps = [
            {"depth": depth, "after_seconds": one.after.total_seconds(), "text": one.text} for depth, one in walk(roots)
        ]
        print_json({ORDER.id_field: order_id, "steps": steps})
    else:
        for line in lines(roots):
            print(line)


def _read(queries: Service, order_id: str) -> Iterator[Event]:
    """Of the order, and of each kind of process that an order can have."""
    quoted = queries.quote(order_id)
    for event in queries.events(f"/{ORDER.collection}/{quoted}/history"):
        yield {**event, "stream": ORDER.noun}
    for kind in DEFINITIONS:
        if current_definition(kind).subject is ORDER:
            process_id = queries.quote(process_id_of(kind, order_id))
            for event in queries.events(f"/{PROCESS.collection}/{process_id}/history"):
                yield {**event, "stream": kind}


def journey(events: Sequence[Event]) -> list[Step]:
    """What no event of these led to, with all that followed from it."""
    events = sorted(events, key=lambda event: event["position"])
    effects = {
        event["data"]["effect_id"]: event["data"]["effect"]
        for event in events
        if event["event_type"] == "EffectRequested"
    }
    known = {event["event_id"] for event in events}
    appended: defaultdict[str, list[Event]] = defaultdict(list)  # by command
    for event in events:
        appended[event["metadata"].get("command_id", event["event_id"])].append(event)
    caused: defaultdict[str | None, list[list[Event]]] = defaultdict(list)  # by the event that led to the command
    for some in appended.values():
        cause = some[0]["metadata"].get("causation_id")
        caused[cause if cause in known else None].append(some)
    began = datetime.fromisoformat(events[0]["recorded_at"]) if events else None

    def after(event: Event) -> timedelta:
        assert began is not None
        return datetime.fromisoformat(event["recorded_at"]) - began

    def step_of(some: list[Event]) -> Step:
        first, *rest = some
        metadata = first["metadata"]
        command = metadata.get("command", "unknown command")
        if command != ADVANCE:
            actor = metadata.get("actor")
            by = f" by {actor['sub']} ({', '.join(actor['roles'])})" if actor else ""
            return Step(printable(f"{command}{by}"), after(first), [child_of(event) for event in some])
        step = child_of(first)
        step.text = f"{first['stream']}: {step.text}"
        step.children += [child_of(event) for event in rest]
        return step

    def child_of(event: Event) -> Step:
        text = label_of(event, effects)
        is_of_order = event["stream"] == ORDER.noun
        return Step(f"{event['stream']}: {text}" if is_of_order else text, after(event), pending(event))

    waiting: list[tuple[list[Step], list[Event]]] = []  # instead of recursion: a journey can be long

    def pending(event: Event) -> list[Step]:
        children: list[Step] = []
        waiting.extend([(children, some) for some in caused[event["event_id"]]])
        return children

    roots: list[Step] = []
    waiting += [(roots, some) for some in caused[None]]
    while waiting:
        children, some = waiting.pop(0)
        children.append(step_of(some))
    return roots


def walk(roots: Sequence[Step]) -> Iterator[tuple[int, Step]]:
    """(depth, step), each above what it led to."""
    stack = [(0, step) for step in reversed(roots)]
    while stack:
        depth, step = stack.pop()
        yield depth, step
        stack += [(depth + 1, child) for child in reversed(step.children)]


def lines(roots: Sequence[Step]) -> Iterator[str]:
    """With the time of each step that came later than what led to it."""
    stack: list[tuple[str, str, Step, timedelta | None]] = [("", "", step, None) for step in reversed(roots)]
    while stack:
        branch, indent, step, led_at = stack.pop()
        time = "" if step.after == led_at else f"+{duration(step.after)} "
        yield f"{branch}{time}{step.text}"
        last = len(step.children) - 1
        stack += [
            (
                f"{indent}{'└─ ' if number == last else '├─ '}",
                f"{indent}{'   ' if number == last else '│  '}",
                child,
                step.after,
            )
            for number, child in reversed([*enumerate(step.children)])
        ]
