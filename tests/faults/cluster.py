"""A Cluster of three masters, started from the same binary as every other server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from cli.stack.embedded_server import HOST
from cli.stack.embedded_valkey import EmbeddedValkey
from tests.running import eventually

MASTERS = 3
SLOTS = 16_384


class Node(EmbeddedValkey):
    def settings(self) -> dict[str, str]:
        return {**super().settings(), "cluster-enabled": "yes", "cluster-node-timeout": "2000"}


@asynccontextmanager
async def running_cluster(directory: Path) -> AsyncIterator[list[Node]]:
    """Its nodes, once each knows of all."""
    password = secrets.token_urlsafe(12)
    async with AsyncExitStack() as stack:
        nodes = [
            stack.enter_context(Node(directory / f"node-{number}", password=password)) for number in range(MASTERS)
        ]
        clients = [await stack.enter_async_context(Redis.from_url(node.url)) for node in nodes]
        for number, client in enumerate(clients):
            first, end = SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS
            await _do(client, "CLUSTER ADDSLOTSRANGE", first, end - 1)
            await _do(clients[0], "CLUSTER MEET", HOST, nodes[number].port)

        async def complete() -> bool:
            infos = [await _do(client, "CLUSTER INFO") for client in clients]
            return all(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3" for info in infos)

        await eventually(complete, seconds=30)
        yield nodes


def cluster_url(nodes: list[Node]) -> str:
    return nodes[0].url.replace("redis://", "redis+cluster://").removesuffix("/0")


async def _do(client: Redis, *command: object) -> Any:
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]
