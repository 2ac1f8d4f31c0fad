"""Sandboxes for tests, and gateways to them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import msgspec

from cli.stack.embedded_server import free_port
from command_service.gateways.carrier import BookParcel
from command_service.gateways.gateway import Gateway
from command_service.gateways.payment import Authorise
from command_service.gateways.registry import open_gateways
from command_service.gateways.sandbox.app import create_app
from command_service.gateways.sandbox.ledger import Entry
from shared.settings import Settings
from tests.running import running_app

SECRET, OLD_SECRET, CARRIER_SECRET, FOREIGN_SECRET = (
    f"whsec_{b64encode(letter * 32).decode()}" for letter in (b"a", b"b", b"c", b"d")
)


class Sandbox(NamedTuple):
    """A running sandbox, as a client of it sees it."""

    settings: Settings
    gateways: Mapping[type[Any], Gateway]
    client: httpx.AsyncClient

    @property
    def payment(self) -> Gateway:
        return self.gateways[Authorise]

    @property
    def carrier(self) -> Gateway:
        return self.gateways[BookParcel]

    async def ledger(self, service: str, process_id: str = "") -> list[Entry]:
        answer = await self.client.get(f"/{service}/ledger", params={"process_id": process_id})
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=list[Entry])


def sandbox_settings(**changes: Any) -> Settings:
    """Of a sandbox on a free port, and of gateways to it, which give up soon."""
    port = free_port()
    return Settings.model_validate(
        {
            "database_url": "postgresql://unused",
            "redis_url": "redis://unused",
            "sandbox_port": port,
            "payment_gateway_url": f"http://127.0.0.1:{port}/payment",
            "carrier_gateway_url": f"http://127.0.0.1:{port}/carrier",
            "gateway_timeout_seconds": 0.5,
            "gateway_failures": 1_000,
            **changes,
        }
    )


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Sandbox]:
    """To a sandbox that runs."""
    url = f"http://127.0.0.1:{settings.sandbox_port}"
    async with open_gateways(settings) as gateways, httpx.AsyncClient(base_url=url) as client:
        yield Sandbox(settings, gateways, client)


@asynccontextmanager
async def running_sandbox(**changes: Any) -> AsyncIterator[Sandbox]:
    settings = sandbox_settings(**changes)
    async with running_app(create_app(settings), settings.sandbox_port), connected(settings) as sandbox:
        yield sandbox
