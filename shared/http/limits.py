"""Bounds of what a client may send, in bytes. A request that passes one is refused (`shared.http.protocol`)."""

from __future__ import annotations

MAX_REQUEST_LINE_BYTES = 8 * 1024
MAX_HEADER_BYTES = 8 * 1024  # name and value of one header
MAX_HEAD_BYTES = 16 * 1024  # all headers, and trailers
MAX_HEADER_LINES = 100
