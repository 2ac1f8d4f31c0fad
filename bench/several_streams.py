"""Row 15: appends over 26 streams against appends to one stream, in events per second, 32 writers in one process.

One command appends an event to each of 26 new streams, as an order does that reserves the stock of its 25 products. The
baselines append to one new stream: one event per command, and 26.
"""

from __future__ import annotations

import sys
from functools import partial

import uvloop
from uuid_utils.compat import uuid7

from bench import append, group_sizes
from bench.interleave import interleave
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers
from shared.eventstore.append_request import AppendRequest, StreamAppend

STREAMS = 26


def measure(servers: Servers, scale: Scale) -> list[Result]:
    before = group_sizes.of_this_process()
    database = servers.database()

    def events_per_second(request: append.NewRequest, events: int, seconds: float) -> float:
        servers.checkpoint()
        count, took = uvloop.run(append.append(database, seconds, request))
        return count * events / took

    sides = [(_over_streams, STREAMS), (append.one_event, 1), (_one_stream, STREAMS)]
    for request, events in sides:
        events_per_second(request, events, scale.warm_up)
    short = scale.short if scale.rounds > 1 else scale
    over_streams, *baselines = interleave(
        short.rounds, *(partial(events_per_second, request, events, short.seconds) for request, events in sides)
    )
    grouped = group_sizes.of_this_process().summary(before)
    return [
        Result(
            row=15,
            label=f"append over {STREAMS} streams / {label}",
            measure=f"appends over {STREAMS} streams, {append.WRITERS} writers",
            unit="events/s",
            ours=over_streams,
            against=against,
            theirs=theirs,
            goal=Goal("at least", 0.8),
            notes=[f"all sides together: {grouped}"],
        )
        for label, against, theirs in (
            ("one event", "appends to one stream, 1 event each", baselines[0]),
            (f"{STREAMS} events", f"appends to one stream, {STREAMS} events each", baselines[1]),
        )
    ]


def _over_streams() -> AppendRequest:
    events = [append.new_event() for _ in range(STREAMS)]
    return AppendRequest([StreamAppend(f"order-{event.event_id}", 0, (event,)) for event in events], uuid7())


def _one_stream() -> AppendRequest:
    events = [append.new_event() for _ in range(STREAMS)]
    return AppendRequest.of_stream(f"order-{events[0].event_id}", 0, uuid7(), events)


if __name__ == "__main__":
    sys.exit(run_row(measure))
