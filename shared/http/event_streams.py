"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), and how one is refused for now.

A browser gives up an event stream for good unless the status is 200. So it gets a stream that holds the problem, says
when to come back, and ends.
"""

from __future__ import annotations

from random import Random

from fastapi import Request
from fastapi.sse import format_sse_event
from starlette.responses import Response

from shared.metrics import EVENT_STREAMS_REFUSED

MEDIA_TYPE = "text/event-stream"
HEADERS = {"X-Accel-Buffering": "no"}  # else nginx buffers events

_random = Random()  # not the shared one: hypothesis controls that in tests


def wants_a_stream(request: Request) -> bool:
    """Whether it asks for events before all else, as a browser's `EventSource` does."""
    return request.method == "GET" and request.headers.get("accept", "").startswith(MEDIA_TYPE)


def refusal(code: str, problem: bytes, seconds: float) -> Response:
    EVENT_STREAMS_REFUSED.labels(code).inc()
    return Response(refusal_block(problem, seconds), headers=HEADERS, media_type=MEDIA_TYPE)


def refusal_block(problem: bytes, seconds: float) -> bytes:
    """The only block of a stream that is refused for now: a browser comes back after that time, and later."""
    retry_ms = round(1_000 * seconds * _random.uniform(1, 1.5))
    return format_sse_event(event="problem", data_str=problem.decode(), retry=retry_ms)
