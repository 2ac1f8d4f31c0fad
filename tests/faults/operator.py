"""`orders projections`, as an operator runs it."""

from __future__ import annotations

import asyncio
import sys

from tests.faults.shop import Servers, Shop
from tests.orders_command import environment
from tests.roles import url_of


class Operator:
    """Of the projections on these servers; `release` is that of the program, see `tests.faults.next_release`."""

    def __init__(self, servers: Servers, release: str | None = None) -> None:
        self._program = ["cli"] if release is None else ["tests.faults.next_release", release]
        self._environment = {
            "DATABASE_URL": url_of(servers.database_url, "orders_projector"),
            "REDIS_URL": servers.redis_url,
        }

    async def start(self, *arguments: str, **added: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", *self._program, "projections", *arguments),
            env=environment(**self._environment, **added),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def __call__(self, *arguments: str, code: int = 0, **added: str) -> str:
        """What it prints."""
        process = await self.start(*arguments, **added)
        output = (await process.communicate())[0].decode()
        assert process.returncode == code, output
        return output


async def projections(shop: Shop, *arguments: str, code: int = 0, **added: str) -> str:
    return await Operator(shop.servers)(*arguments, code=code, **added)
