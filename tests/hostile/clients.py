"""Clients of one service, each with an address of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx


@asynccontextmanager
async def client_at(address: str, service: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same service, from an address of the loopback network, such as 127.0.0.2."""
    transport = httpx.AsyncHTTPTransport(local_address=address, limits=httpx.Limits(max_connections=400))
    async with httpx.AsyncClient(base_url=service.base_url, transport=transport, timeout=60) as client:
        yield client
