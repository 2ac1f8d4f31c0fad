"""The picture of a fulfilment's states in docs/processes.md, drawn from what its code does.

A state is what the process waits for. From the placed order on, every answer that its definition lists, every timer and
the decision of staff are tried in every state. Parcels are packed whole, and the order is not cancelled meanwhile.
`python -m tests.process_states` draws it anew.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

from command_service.gateways import carrier, payment
from command_service.processes.advance import Answer, TimerDue
from command_service.processes.fulfilment import FULFILMENT
from command_service.processes.fulfilment.state import Fulfilment
from command_service.processes.reaction import Reaction
from shared.aggregates.order import OrderHoldReleased
from shared.aggregates.process import Process
from tests.command_service.fulfilments import ORDER_42, PROCESS_42, Log, placed

PAGE = Path(__file__).parents[1] / "docs" / "processes.md"
BEGIN, END = "<!-- states: written by `python -m tests.process_states` -->\n", "<!-- /states -->\n"
MAX_STATES = 1_000


class Move(NamedTuple):
    label: str
    log: Log


def after(log: Log, label: str, give: Any) -> Iterator[Move]:
    """What follows on a copy of the log; nothing where the process would be stuck on the answer."""
    there = copy(log)
    there.states = dict(log.states)
    try:
        appended = give(there)
    except TypeError:  # a replacement in part, which the carrier does not give
        return
    if appended:
        yield Move(label, there)


def moves(log: Log) -> Iterator[Move]:
    process: Process = log.states[PROCESS_42]
    if process.outcome is not None or process.stuck is not None:
        return
    for effect_id, requested in process.effects.items():
        effect = FULFILMENT.message(requested.effect, requested.data)
        for label, outcome in outcomes(effect_id, effect):
            answer = Answer(effect_id, outcome)
            yield from after(log, label, lambda there, answer=answer: there.when(answer))
    for timer, due_at in process.timers.items():

        def fire(there: Log, timer: str = timer, due_at: Any = due_at) -> Any:
            there.now = max(there.now, due_at)
            return there.when(TimerDue(timer))

        yield from after(log, f"{timer} timer", fire)
    if log.states[ORDER_42].hold is not None:

        def release(there: Log) -> Any:
            there.append(OrderHoldReleased())
            return there.see(OrderHoldReleased)

        yield from after(log, "released by staff", release)


def outcomes(effect_id: str, effect: Any) -> Iterator[tuple[str, Any]]:
    for kind in FULFILMENT.effects[type(effect)]:
        name = kind.__name__
        if kind is payment.Authorised:
            yield name, kind()
            yield f"{name} in review", kind(in_review=True)
        elif kind is payment.Declined:
            yield name, kind("no funds")
        elif kind is carrier.ParcelBooked:
            yield name, kind(f"parcel {effect_id}", "carrier", effect.lines)
        else:
            yield name, kind()


def state_of(log: Log) -> str:
    """What the process waits for."""
    process: Process = log.states[PROCESS_42]
    if process.outcome is not None or process.stuck is not None:
        return process.outcome or "stuck"
    if process.effects:
        return "_and_".join(sorted({requested.effect for requested in process.effects.values()}))
    return "_".join(["timer", *sorted(process.timers)])


def known_by(log: Log) -> tuple[Any, ...]:
    """Equal for logs that the process goes on from in the same way."""
    process: Process = log.states[PROCESS_42]
    state: Fulfilment = Reaction(FULFILMENT, "fulfilment-42", "42", log.states, log.now).state
    order = state.order
    payments = frozenset([(one.closed, one.open > 0, one.kept > 0) for one in state.payments])
    parcels = frozenset([one.state for one in state.parcels])
    rest = state.failure is None, state.refused is None, order.status
    return state_of(log), tuple(sorted(process.timers)), payments, parcels, rest


def text() -> str:
    """The picture, as Mermaid."""
    begun = placed()
    labels: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    known, left = {known_by(begun)}, deque([begun])
    while left and len(known) < MAX_STATES:
        log = left.popleft()
        for label, there in moves(log):
            labels[state_of(log), state_of(there)][label] = None
            if (key := known_by(there)) not in known:
                known.add(key)
                left.append(there)
    assert not left, "more states than expected"
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {state_of(begun)}: OrderPlaced"]
    lines += [f"    {one} --> {other}: {', '.join(some)}" for (one, other), some in labels.items()]
    ends = sorted({other for _, other in labels} & {"delivered", "cancelled"})
    return "\n".join([*lines, *[f"    {end} --> [*]" for end in ends], "```", ""])


def page_with(picture: str) -> str:
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}{picture}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(text()), "utf-8")
