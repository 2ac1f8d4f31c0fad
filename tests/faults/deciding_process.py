"""`python -m tests.faults.deciding_process URL NAME`: gives commands as `tests.deciders` does, until it is killed.

Prints a line for each that it was told of: the command, and whether it was appended.
"""

from __future__ import annotations

import asyncio
import sys
from random import Random

import asyncpg

from command_service.app import create_group_commit
from shared.eventstore.store import PostgresEventStore
from shared.logs import configure_logs
from shared.settings import Settings
from tests.deciders import Deciders


class TellingDeciders(Deciders):
    def told(self, command: str, *, appended: bool) -> None:
        sys.stdout.write(f"{command} {appended}\n")
        sys.stdout.flush()


async def main(database_url: str, name: str) -> None:
    configure_logs("deciding", "CRITICAL")
    settings = Settings.model_validate({"database_url": database_url, "redis_url": "redis://127.0.0.1:1/0"})
    _, group_commit = create_group_commit(settings)
    group_commit.start()
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool:
        deciders = TellingDeciders(PostgresEventStore(pool), group_commit, Random(name), f"{name}-")
        await deciders.give(sys.maxsize, clients=16)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
