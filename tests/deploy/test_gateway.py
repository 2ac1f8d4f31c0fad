"""The gateway of the compose file, in front of a running stack; where Caddy is installed (Debian: `caddy`)."""

from __future__ import annotations

import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from cli.stack.embedded_server import HOST, bare_environment
from cli.stack.processes import launch
from shared.settings import Settings
from tests.deploy.test_compose import ROOT, SERVICES
from tests.orders import order_body
from tests.query_service.event_source import following
from tests.running import eventually, free_ports

CADDY = shutil.which("caddy")
CONFIGURATION = ROOT / "deploy" / "gateway" / "Caddyfile"

pytestmark = pytest.mark.skipif(CADDY is None, reason="Caddy is not installed")


@pytest.fixture
async def gateway(stack: Settings, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    assert CADDY is not None
    port, tls_port = free_ports(2)
    environment = {
        **bare_environment(),
        "HOME": str(tmp_path),
        "GATEWAY_HTTP_PORT": str(port),
        "GATEWAY_HTTPS_PORT": str(tls_port),
        "COMMAND_HOST": HOST,
        "COMMAND_PORT": str(stack.command_port),
        "QUERY_HOST": HOST,
        "QUERY_PORT": str(stack.query_port),
    }
    [_, *arguments] = SERVICES["gateway"]["command"]
    arguments = [str(CONFIGURATION) if "Caddyfile" in argument else argument for argument in arguments]
    process = launch([CADDY, *arguments], log=tmp_path / "caddy.log", env=environment, death_signal=signal.SIGTERM)
    try:
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=30) as client:

            async def answers() -> bool:
                try:
                    return (await client.get("/orders")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(answers, seconds=30)
            yield client
    finally:
        process.terminate()
        process.wait()


async def test_commands_and_queries_have_one_address(gateway: httpx.AsyncClient) -> None:
    placed = await gateway.post("/orders", json=order_body(order_id="through-the-gateway"))
    assert placed.status_code == 201, placed.text
    token = {"Consistency-Token": placed.json()["consistency_token"]}
    read = await gateway.get("/orders/through-the-gateway", headers=token)
    assert (read.status_code, read.json()["version"]) == (200, 1)
    assert read.headers["ETag"]
    refused = await gateway.post("/orders/through-the-gateway/delivery", json={})
    assert refused.json()["code"] == "order-not-shipped"


async def test_live_updates_are_not_buffered(gateway: httpx.AsyncClient) -> None:
    await gateway.post("/orders", json=order_body(order_id="followed"))
    async with following(gateway, "/orders/followed/events") as source:
        await source.until_it_began()
        cancelled = await gateway.post("/orders/followed/cancellation", json={"reason": "ordered twice"})
        await source.until_reached(cancelled.json()["position"])


async def test_both_reference_pages_are_there(gateway: httpx.AsyncClient) -> None:
    for path in ("/docs", "/commands/docs"):
        assert "swagger" in (await gateway.get(path)).text
    documents = [(await gateway.get(path)).json() for path in ("/openapi.json", "/commands/openapi.json")]
    assert ["post" in document["paths"]["/orders"] for document in documents] == [False, True]


@pytest.mark.parametrize(
    "path", ["/metrics", "/livez", "/readyz", "/projections", "/commands/metrics", "/commands/readyz"]
)
async def test_what_is_for_operators_is_not_there(gateway: httpx.AsyncClient, path: str) -> None:
    assert (await gateway.get(path)).status_code == 404
