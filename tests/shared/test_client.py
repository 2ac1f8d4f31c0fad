"""How limits per client name the client of a request."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from shared.http.client import client_at, client_of
from shared.identity.caller import Caller


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(address: str, client: str) -> None:
    assert client_at(address) == client
    assert client_of({"type": "http", "client": (address, 1234)}) == client


def test_a_caller_is_one_client_wherever_it_is() -> None:
    caller = Caller("alice", frozenset())
    names = {client_of({"type": "http", "client": (address, 1), "caller": caller}) for address in ("::1", "192.0.2.7")}
    assert names == {"caller alice"}


def test_a_connection_without_an_address_has_a_client_too() -> None:
    assert client_of({"type": "http", "client": None}) == client_of({"type": "http"}) == "unknown"


@pytest.mark.parametrize(
    ("peer", "client"),
    [("192.0.2.1", "198.51.100.9"), ("192.0.2.2", "192.0.2.2")],
    ids=["a trusted proxy", "another peer"],
)
async def test_only_a_trusted_proxy_names_another_client(peer: str, client: str) -> None:
    seen: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(client_of(scope))
        await Response()(scope, receive, send)

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        pass

    behind_proxy = ProxyHeadersMiddleware(application, "192.0.2.1")  # type: ignore[arg-type]  # uvicorn's own types of ASGI
    forwarded = [(b"x-forwarded-for", b"203.0.113.5, 198.51.100.9")]
    scope = {"type": "http", "method": "GET", "path": "/", "client": (peer, 1), "headers": forwarded}
    await behind_proxy(scope, receive, send)  # type: ignore[arg-type]
    assert Request(scope).client is not None
    assert seen == [client]
