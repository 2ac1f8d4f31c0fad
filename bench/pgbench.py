"""The baseline of rows 1 and 6: pgbench with one prepared INSERT per transaction, without global order, hash chain or
expected versions."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from bench.load import LoadFailed
from bench.servers import Connection, Servers, with_connection
from cli.stack.binaries import postgres_binary

CLIENTS = 32
LEAST_SECONDS = 2  # includes connecting, which takes a second on a busy machine
# The same columns, indexes and checks as the log.
_TABLE = """
create table if not exists plain (like events including all);
create sequence if not exists plain_positions cache 32;
"""
# The event is a parameter of each call, as a program sends it. As a literal it would be parsed once, at the prepare.
_SCRIPT = """
insert into plain values (nextval('plain_positions'), 'order-' || gen_random_uuid(), 1, gen_random_uuid(),
    'OrderPlaced', 2, :data, :metadata, now(), now(), decode(:hash, 'hex'), '17850');
"""


class Pgbench:
    def __init__(self, servers: Servers, database_url: str, data: str, metadata: str) -> None:
        """`data` and `metadata` are those of the events that our side appends."""
        self._url = urlsplit(database_url)
        self._script = Path(servers.directory) / f"{self._url.path[1:]}.pgbench"
        self._script.write_text(_SCRIPT)
        values = {"data": data, "metadata": metadata, "hash": "5a" * 32}
        self._values = [f"--define={name}={value}" for name, value in values.items()]

        async def make(connection: Connection) -> None:
            await connection.execute(_TABLE)

        with_connection(database_url, make)

    def per_second(self, seconds: float, clients: int = CLIENTS) -> float:
        """Returns transactions per second. Raises LoadFailed when there was none."""
        url = self._url
        # fmt: off
        command: list[str | Path] = [
            postgres_binary("pgbench"), "--no-vacuum", "--protocol=prepared", "--file", self._script,
            "--client", str(clients), "--jobs", str(min(clients, os.cpu_count() or 1)),
            "--time", str(max(LEAST_SECONDS, round(seconds))), *self._values,
            "--host", url.hostname or "", "--port", str(url.port), "--username", url.username or "", url.path[1:],
        ]
        # fmt: on
        environment = {**os.environ, "PGPASSWORD": url.password or ""}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found = re.search(r"^tps = ([0-9.]+) \(without initial", ended.stdout, re.MULTILINE)
        if not found:  # not one transaction
            raise LoadFailed(ended.stdout)
        return float(found[1])
