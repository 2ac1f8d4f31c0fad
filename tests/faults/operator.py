"""`orders projections`, as an operator of a shop runs it."""

from __future__ import annotations

import asyncio
import sys

from tests.faults.shop import Shop
from tests.roles import url_of
from tests.stack.orders_up import environment


async def projections(shop: Shop, *arguments: str, code: int = 0, **added: str) -> str:
    """What it prints."""
    servers = {
        "DATABASE_URL": url_of(shop.servers.database_url, "orders_projector"),
        "REDIS_URL": shop.servers.redis_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cli", "projections", *arguments),
        env=environment(**servers, **added),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == code, output
    return output
