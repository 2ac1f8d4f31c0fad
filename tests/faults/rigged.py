"""The real projector or command service, rigged: `python -m tests.faults.rigged PROCESS RIG`; with `cli RIG ARGUMENTS`
the command `orders`. The product knows nothing of it.

RIG is one of
    kill:MOMENT        kill -9 of itself at that moment of its second batch; MOMENT is one of the Redis store's, or
                       one of the PostgreSQL store's after "postgres, "; it projects nothing else
    pause:MOMENT       SIGSTOP of itself then, or at one of the moments within a statement
    newer              it is the next release, which knows one more version of an event
    other-code         it is the next release, whose projection of orders makes other documents
    busy:SECONDS       each command holds the event loop for so long, as work would, but on any machine
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, cast

import asyncpg
import msgspec

from cli.run import ProcessName, run
from command_service import handler
from projector import crew
from projector.projection import Recorded
from projector.projections import PROJECTIONS, Registered
from projector.projections.orders import ORDERS, OrderDocument
from projector.stores import postgres
from projector.verification import orders as verification
from projector.verification import plain
from shared.eventstore import codec
from shared.eventstore import log as event_log

NEWER_VERSION = 3  # of OrderPlaced
OTHER_CODE = 2  # version of the projection of orders
MARK = "2"  # that the other code leaves in a document for each event


class Moment(NamedTuple):
    """`when` ("before", "after") the `call`-th call of a function; (module, class or "", name)."""

    when: str
    where: tuple[str, str, str]
    call: int


_STORE = ("projector.stores.redis", "RedisStore")
_POSTGRES = ("projector.stores.postgres", "PostgresStore")
_SUMS = ("projector.stores.postgres", "SumsTable")
_ENGINE = ("projector.engine", "")
_READ = ("shared.eventstore.log", "", "read_batch")


def _moments(store: tuple[str, str]) -> dict[str, Moment]:
    """Of a projector that begins with an empty store: it claims, resets, then steps. Calls are counted from 1, so the
    second is in the second batch: it is read and folded while the first is applied. A document is loaded where it is
    not in memory yet, so by a projector that finds a store it has not written to."""
    return {
        "before claiming": Moment("before", (*store, "claim"), 1),
        "after claiming": Moment("after", (*store, "claim"), 1),
        "after the reset": Moment("after", (*store, "reset"), 1),
        "before reading": Moment("before", _READ, 2),
        "after reading": Moment("after", _READ, 2),
        "before loading": Moment("before", (*store, "load"), 1),
        "after loading": Moment("after", (*store, "load"), 1),
        "before folding": Moment("before", (*_ENGINE, "digest"), 2),
        "after folding": Moment("after", (*_ENGINE, "digest"), 2),
        "before applying": Moment("before", (*store, "apply"), 2),
        "after applying": Moment("after", (*store, "apply"), 2),
    }


MOMENTS = {**_moments(_STORE), "while wiping": Moment("after", (*_STORE, "_wipe_keys"), 1)}
POSTGRES = "postgres, "
# In one transaction each: wiping and beginning; documents, sums and checkpoint, which are one statement, and removing
# lines that count no order any more. The second batch is the first that may leave such lines.
POSTGRES_MOMENTS = {
    POSTGRES + name: moment
    for name, moment in {
        **_moments(_POSTGRES),
        "while wiping": Moment("after", (*_POSTGRES, "clear"), 1),
        "before writing": Moment("before", (*_POSTGRES, "_write"), 2),
        "between writing and removing lines": Moment("before", (*_SUMS, "remove_empty"), 1),
        "after removing lines": Moment("after", (*_SUMS, "remove_empty"), 1),
    }.items()
}

# How statements begin. One is prepared when it is first used. Until it is executed the server waits for it, within a
# transaction.
PREPARED = {
    POSTGRES + "reading, prepared": vars(event_log)["_READ_ALL"],
    POSTGRES + "applying, prepared": vars(postgres)["_APPLY"],
}


def pause_when_prepared(statement: str) -> None:
    connection: Any = asyncpg.Connection
    original = connection._get_statement
    paused = False

    async def get_statement(self: Any, query: str, *arguments: Any, **named: Any) -> Any:
        nonlocal paused
        prepared = await original(self, query, *arguments, **named)
        if query.startswith(statement) and not paused:
            paused = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return prepared

    connection._get_statement = get_statement


def rig(moment: Moment, action: Callable[[], None]) -> None:
    """Wraps the function where its caller looks it up."""
    module, owner, name = moment.where
    place: Any = importlib.import_module(module)
    if owner:
        place = getattr(place, owner)
    original = getattr(place, name)
    calls = 0

    def due(when: str) -> bool:
        return when == moment.when and calls == moment.call

    async def asynchronous(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if due("before"):
            action()
        result = await original(*arguments, **named)
        if due("after"):
            action()
        return result

    setattr(place, name, asynchronous)


def become_newer() -> None:
    """Registers the next version of OrderPlaced: it says through which channel the order came."""
    codec.CURRENT_VERSIONS["OrderPlaced"] = NEWER_VERSION
    codec.UPCASTERS["OrderPlaced", NEWER_VERSION - 1] = lambda payload: {**payload, "channel": "web"}


def marked(before: OrderDocument | None) -> str:
    """The tracking number that the other code gives a document: its events, counted. The old code would not go on
    counting, so an event that either applies to a document of the other's shows for ever."""
    so_far = None if before is None else before.tracking_number
    return (so_far or "") + MARK


def fold_otherwise() -> None:
    """Registers the other code, and what a plain fold of it is."""

    def apply(order_id: str, before: OrderDocument | None, recorded: Recorded) -> OrderDocument:
        after = ORDERS.apply(order_id, before, recorded)
        return msgspec.structs.replace(after, tracking_number=marked(before))

    async def fold_orders(*arguments: Any) -> dict[str, plain.PlainOrder]:
        orders = await plain.fold_orders(*arguments)
        return {order_id: {**order, "tracking_number": MARK * order["version"]} for order_id, order in orders.items()}

    from cli.projection_admin import admin  # with all that draws progress bars

    other = Registered(replace(ORDERS, apply=apply, version=OTHER_CODE), "redis")
    for module in (crew, admin):
        vars(module)["PROJECTIONS"] = tuple(other if one.projection is ORDERS else one for one in PROJECTIONS)
    vars(verification)["fold_orders"] = fold_orders


def be_busy(seconds: float) -> None:
    decide: Any = vars(handler)["_decide"]

    def slowly(*arguments: Any) -> Any:
        time.sleep(seconds)
        return decide(*arguments)

    vars(handler)["_decide"] = slowly


def keep_only(name: str) -> None:
    """Calls are counted over the whole process, so there must be one projection in it."""
    vars(crew)["PROJECTIONS"] = tuple(one for one in PROJECTIONS if one.projection.name == name)


def main(process: str, argument: str, *arguments: str) -> None:
    what, _, moment = argument.partition(":")
    if what in {"kill", "pause"}:
        keep_only("revenue_by_day" if moment.startswith(POSTGRES) else "orders")
    match what:
        case "kill":
            rig({**MOMENTS, **POSTGRES_MOMENTS}[moment], lambda: os.kill(os.getpid(), signal.SIGKILL))
        case "pause" if moment in PREPARED:
            pause_when_prepared(PREPARED[moment])
        case "pause":
            rig(MOMENTS[moment], lambda: os.kill(os.getpid(), signal.SIGSTOP))
        case "newer":
            become_newer()
        case "other-code":
            fold_otherwise()
        case "busy":
            be_busy(float(moment))
        case _:
            sys.exit(f"no such rig: {argument}")
    if process == "cli":
        from cli.main import app

        app(args=[*arguments], prog_name="orders")
    run(cast(ProcessName, process))


if __name__ == "__main__":
    main(*sys.argv[1:])
