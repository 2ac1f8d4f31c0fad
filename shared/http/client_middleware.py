"""Identifies the client of each request and limits how many it sends, before the request is routed."""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import OrdersError
from shared.http.client import client_of
from shared.http.problems import answer_error
from shared.http.protocol import protocol_of
from shared.http.rate_limit import RateLimit, TooManyRequests
from shared.http.request_headers import headers_of
from shared.identity.token_verifier import TokenVerifier, is_bearer
from shared.logs import get_logger
from shared.metrics import RATE_LIMITED

PAUSE_SECONDS = 1.0  # of a connection whose request is refused, as `Retry-After` says: a flood costs little then
UNLIMITED = ("/livez", "/readyz", "/metrics")  # orchestrators and Prometheus decide how often they ask

_log = get_logger()


class ClientMiddleware:
    """Leaves in the scope what `caller_of` and routes read: `caller`, or `token_error`; and `rate_limit`, headers of
    the answer."""

    def __init__(
        self, app: ASGIApp, verifier: TokenVerifier | None, limit: RateLimit | None, root_path: str = ""
    ) -> None:
        """Without a `verifier` a client is an address; without a `limit` it may send any number of requests."""
        self._app = app
        self._verifier = verifier
        self._limit = limit
        self._unlimited = frozenset(root_path + path for path in UNLIMITED)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        try:
            if self._verifier is not None and (given := headers_of(scope).get(b"authorization")) is not None:
                if (caller := self._verifier.known(given)) is not None:
                    scope["caller"] = caller
                elif is_bearer(given):
                    # A token that may be forged costs a signature, so its request counts for the address until then.
                    self._count(scope, always=True)
                    return self._verify(self._verifier, given, scope, receive, send)
            if self._limit is not None:
                self._count(scope)
        except TooManyRequests as error:
            return self._refuse(error, scope, receive, send)
        return self._app(scope, receive, send)

    async def _verify(self, verifier: TokenVerifier, given: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            caller = await verifier.verify(given)
            if self._limit is not None:
                self._limit.give_back(client_of(scope))
            scope["caller"] = caller
            self._count(scope)
        except TooManyRequests as error:
            await self._refuse(error, scope, receive, send)
            return
        except OrdersError as error:
            scope["token_error"] = error
        await self._app(scope, receive, send)

    async def _refuse(self, error: TooManyRequests, scope: Scope, receive: Receive, send: Send) -> None:
        RATE_LIMITED.inc()
        assert self._limit is not None
        scope["rate_limit"] = self._limit.headers(0)
        protocol_of(scope).pause_after_answer(PAUSE_SECONDS)
        response = await answer_error(Request(scope), error)
        await response(scope, receive, send)

    def _count(self, scope: Scope, *, always: bool = False) -> None:
        """Raises `TooManyRequests`."""
        limit = self._limit
        if limit is None or (scope["path"] in self._unlimited and not always):
            return
        client = client_of(scope)
        left = limit.take(client)
        if left == 0:
            _log.warning("rate limit reached", client=client)
        scope["rate_limit"] = limit.headers(left)
