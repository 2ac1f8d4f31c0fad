"""Which pages of other origins may call a service (CORS), and what they may read of an answer."""

from __future__ import annotations

import re

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from shared.http.response_headers import Headers

# Every response header that a client works with; the browser hides all others from a page.
EXPOSED = (
    "Allow",
    "Consistency-Token",
    "ETag",
    "Idempotent-Replayed",
    "Link",
    "Location",
    "Preference-Applied",
    "Projection-Lag",
    "Projection-Parked",
    "Projection-Parked-Streams",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Correlation-ID",
)
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_PREFLIGHT_SECONDS = 600


def fixed_headers(origins: str) -> Headers:
    """Of an answer below ASGI, which may come before `Origin` was read. It tells of the request alone, so any page that
    made it may read it, where there are `origins` at all."""
    if not origins:
        return ()
    exposed = ", ".join(EXPOSED).encode()
    return ((b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", exposed))


def allow_origins(app: ASGIApp, origins: str) -> ASGIApp:
    """`origins` as in `CORS_ORIGINS`. Without credentials: a page cannot use cookies, and needs none."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=("*",) if origins == "*" else (),
        allow_origin_regex=None if origins == "*" else "|".join(map(_pattern, origins.split(","))),
        allow_methods=_METHODS,
        allow_headers=("*",),
        expose_headers=EXPOSED,
        max_age=_PREFLIGHT_SECONDS,
    )


def _pattern(origin: str) -> str:
    """Of one origin; `:*` at its end is any port, or none."""
    if origin.endswith(":*"):
        return re.escape(origin[:-2]) + r"(?::[0-9]{1,5})?"
    return re.escape(origin)
