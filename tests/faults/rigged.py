"""The real projector, rigged: `python -m tests.faults.rigged RIG`. The product knows nothing of it.

RIG is one of
    kill:MOMENT        kill -9 of itself at that moment of its second batch
    pause:MOMENT       SIGSTOP of itself then
    newer              it is the next release, which knows one more version of an event
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from projector import crew
from projector.projections import PROJECTIONS
from shared import codec

NEWER_VERSION = 3  # of OrderPlaced


class Moment(NamedTuple):
    """`when` ("before", "after") the `call`-th call of a function; (module, class or "", name)."""

    when: str
    where: tuple[str, str, str]
    call: int


_STORE = ("projector.stores.redis", "RedisStore")
_ENGINE = ("projector.engine", "")
_READ = ("shared.event_store", "", "read_batch")

# Of a projector that begins with an empty Redis: it claims, resets, then steps. Calls are counted from 1, so the second
# is in the second batch, when the first has been applied.
MOMENTS = {
    "before claiming": Moment("before", (*_STORE, "claim"), 1),
    "after claiming": Moment("after", (*_STORE, "claim"), 1),
    "while wiping": Moment("after", (*_STORE, "_wipe_keys"), 1),
    "after the reset": Moment("after", (*_STORE, "reset"), 1),
    "before reading": Moment("before", _READ, 2),
    "after reading": Moment("after", _READ, 2),
    "before loading": Moment("before", (*_STORE, "load"), 2),
    "after loading": Moment("after", (*_STORE, "load"), 2),
    "before folding": Moment("before", (*_ENGINE, "fold"), 2),
    "after folding": Moment("after", (*_ENGINE, "fold"), 2),
    "before applying": Moment("before", (*_STORE, "apply"), 2),
    "after applying": Moment("after", (*_STORE, "apply"), 2),
}


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

    def synchronous(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if due("before"):
            action()
        result = original(*arguments, **named)
        if due("after"):
            action()
        return result

    setattr(place, name, synchronous if place.__name__ == "projector.engine" else asynchronous)


def become_newer() -> None:
    """Registers the next version of OrderPlaced: it says through which channel the order came."""
    codec.CURRENT_VERSIONS["OrderPlaced"] = NEWER_VERSION
    codec.UPCASTERS["OrderPlaced", NEWER_VERSION - 1] = lambda payload: {**payload, "channel": "web"}


def keep_orders_only() -> None:
    """Calls are counted over the whole process, so there must be one projection in it."""
    vars(crew)["PROJECTIONS"] = tuple(one for one in PROJECTIONS if one.projection.name == "orders")


def main(argument: str) -> None:
    what, _, moment = argument.partition(":")
    if moment:
        keep_orders_only()
    match what:
        case "kill":
            rig(MOMENTS[moment], lambda: os.kill(os.getpid(), signal.SIGKILL))
        case "pause":
            rig(MOMENTS[moment], lambda: os.kill(os.getpid(), signal.SIGSTOP))
        case "newer":
            become_newer()
        case _:
            sys.exit(f"no such rig: {argument}")

    from cli.run import run

    run("projector")


if __name__ == "__main__":
    main(sys.argv[1])
