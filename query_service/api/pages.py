"""An answer with one page of an index."""

from __future__ import annotations

from hashlib import blake2b
from urllib.parse import urlencode

from fastapi import Request
from starlette.responses import Response

from query_service.api.requests import encode_cursor, unless_known
from query_service.read_result import IndexPage


def answer_page(request: Request, field: str, page: IndexPage, headers: dict[str, str]) -> Response:
    """The summaries under the name of `field`, and `next_cursor`; a link to the next page is added to the headers."""
    cursor = None if page.next_entry is None else encode_cursor(page.next_entry.decode())
    if cursor is not None:
        headers["Link"] = f'<{_next_page(request, cursor)}>; rel="next"'
    next_cursor = b"null" if cursor is None else b'"%b"' % cursor.encode()
    body = b'{"%b":[%b],"next_cursor":%b}' % (field.encode(), b",".join(page.summaries), next_cursor)
    return unless_known(request, body, etag_of_body(body), headers)


def etag_of_body(body: bytes) -> str:
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def _next_page(request: Request, cursor: str) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return f"{request.url.path}?{urlencode([*kept, ('cursor', cursor)])}"
