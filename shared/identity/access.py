"""Which roles may use which route, and the check before the route's endpoint runs.

Every route says it with `@allowed(...)` or `@public`; a service with a route that does not say it does not start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import Unauthenticated
from shared.identity.caller import Caller, ForeignOwner, Role
from shared.identity.key_set import KeySet
from shared.identity.token_verifier import TokenVerifier
from shared.settings import Settings

# After its request, before a customer gets what says that something is not there: the time to find out that another
# customer has it, with a margin. So the time of the answer does not tell the two apart.
CONCEAL_SECONDS = 0.05
ABSENT = {404, 412}  # statuses; 412: also an `If-Match` for what is not there

_ATTRIBUTE = "allowed_roles"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class TokenMissing(Unauthenticated):
    code = "token-missing"
    title = "A bearer token is missing"

    @property
    def detail(self) -> str:
        return "Send `Authorization: Bearer <token>`."


class InsecureSettings(ValueError):
    """The settings of authentication contradict each other, or would let every client do everything."""


class UndeclaredAccess(TypeError):
    """A route does not say which roles may use it."""


def allowed(*roles: Role) -> Callable[[Endpoint], Endpoint]:
    """Below a route's decorator: the roles that may use it. A caller whose only role is `customer` reaches only what
    belongs to it, which the route checks with `limited_to_owner`."""
    assert roles, "a route that needs no role is `public`"

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ATTRIBUTE, frozenset(roles))
        return endpoint

    return declare


def public(endpoint: Endpoint) -> Endpoint:
    """Below a route's decorator: it needs no token."""
    setattr(endpoint, _ATTRIBUTE, frozenset())
    return endpoint


class Access(NamedTuple):
    method: str
    path: str
    roles: frozenset[Role]  # none: public


def access_of(routes: Iterable[Any]) -> Iterator[Access]:
    """Of each route that the OpenAPI document lists, in order. Raises `UndeclaredAccess`."""
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in sorted(route.methods or ()):
                yield Access(method, route.path, _roles_of(route))


def _roles_of(route: APIRoute) -> frozenset[Role]:
    roles: frozenset[Role] | None = getattr(route.endpoint, _ATTRIBUTE, None)
    if roles is None:
        raise UndeclaredAccess(f"{sorted(route.methods or ())} {route.path} does not say which roles may use it")
    return roles


def caller_of(scope: Scope) -> Caller | None:
    """The caller of the request, whom `shared.http.client_middleware` identifies; None while authentication is off."""
    caller: Caller | None = scope.get("caller")
    return caller


def limited_to_owner(scope: Scope) -> str | None:
    """The owner whose data the request may reach; None: that of every owner."""
    owner: str | None = scope.get("limited_to_owner")
    return owner


def check_owner(scope: Scope, noun: str, owner_id: str) -> None:
    """Raises `ForeignOwner` where the request may not reach the data of that owner, a `noun`."""
    if limited_to_owner(scope) not in (None, owner_id):
        raise ForeignOwner(noun, owner_id)


async def conceal(scope: Scope) -> None:
    """Waits until the request is `CONCEAL_SECONDS` old. For a request that `limited_to_owner` limits, before an answer
    that leaves out what is absent or another owner's; `shared.http.middleware` does it before those of `ABSENT`."""
    await asyncio.sleep(scope["came_at"] + CONCEAL_SECONDS - perf_counter())


def check_settings(settings: Settings) -> None:
    """Raises `InsecureSettings`."""
    if settings.auth == "jwt":
        missing = [name for name in ("auth_issuer", "auth_audience", "auth_jwks") if not getattr(settings, name)]
        if missing:
            raise InsecureSettings(f"AUTH=jwt needs {', '.join(missing).upper()}")
    elif not settings.auth_off_anywhere and not settings.is_loopback:
        raise InsecureSettings(
            f"AUTH=off would let every client do everything at HOST={settings.host}; set AUTH=jwt, or"
            " AUTH_OFF_ANYWHERE=yes where something else decides who reaches it"
        )


def secure(app: FastAPI, settings: Settings) -> TokenVerifier | None:
    """Puts a check of the caller's roles in front of every route that is not public; call it when the application has
    all of its routes. Returns the verifier of tokens, to be closed; None while authentication is off. Raises
    `InsecureSettings` and `UndeclaredAccess`."""
    check_settings(settings)
    routes = [route for route in app.router.routes if isinstance(route, APIRoute)]
    roles = [_roles_of(route) for route in routes]
    if settings.auth == "off":
        return None
    verifier = TokenVerifier(KeySet(settings.auth_jwks), issuer=settings.auth_issuer, audience=settings.auth_audience)
    for route, of_route in zip(routes, roles, strict=True):
        if of_route:
            route.app = _secured(route.app, of_route)
    return verifier


def _secured(app: ASGIApp, roles: frozenset[Role]) -> ASGIApp:
    """A route behind the check of its caller."""

    def refuse_or_answer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        caller: Caller | None = scope.get("caller")
        if caller is None:
            raise scope.get("token_error") or TokenMissing()
        scope["limited_to_owner"] = caller.limited_to(roles)
        return app(scope, receive, send)

    return refuse_or_answer
