"""The command service, the query service and the projector as processes of their own, against servers that a test
breaks. They are the real programs; only their time-outs are shorter than in production."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
from redis.asyncio import Redis

from cli.stack.embedded_server import HOST
from cli.stack.processes import last_lines, launch
from cli.stack.service import Service
from projector.projections import PROJECTIONS
from tests.acknowledgements import Acknowledgement, assert_each_can_be_read, assert_the_log_holds_each_once
from tests.independent_folds import assert_read_models_equal_the_log
from tests.key_encryption import SECRET
from tests.orders_command import REPOSITORY
from tests.roles import Role, url_of
from tests.running import eventually, free_ports
from tests.system.customers import Customers

_ROLES: dict[str, Role] = {
    "command": "orders_command",
    "processes": "orders_command",
    "sandbox": "orders_auditor",  # it connects to no database
    "projector": "orders_projector",
    "query": "orders_query",
}
_QUICK = {
    "APPEND_WAIT_SECONDS": "0.5",
    "APPEND_TIMEOUT_SECONDS": "1.0",
    "HEARTBEAT_SECONDS": "0.1",
    "LONG_TRANSACTION_SECONDS": "1.0",
    "HEARTBEAT_STALE_SECONDS": "2.0",
    "PROJECTOR_POLL_SECONDS": "0.05",
}


class Process(Service):
    """One of our processes, of this release or of another of `tests.faults.next_release`."""

    release: str | None = None

    def spawn(self) -> None:
        if self.release is None:
            super().spawn()
            return
        command = [sys.executable, "-P", "-m", "tests.faults.next_release", self.release, "run", self.name]
        self.process = launch(command, log=self.log, env=self._environment, death_signal=signal.SIGTERM)

    async def until_ready(self, seconds: float = 30.0) -> None:
        def said() -> str:
            return f"{self.name} is not ready: {self.state}\n{last_lines(self.log, 10)}"

        deadline = asyncio.get_running_loop().time() + seconds
        while not await asyncio.to_thread(self.ready):
            if self.pid is None and "address already in use" in last_lines(self.log, 10):
                self._take_another_port()
            assert self.pid is not None, said()
            assert asyncio.get_running_loop().time() < deadline, said()

    def _take_another_port(self) -> None:
        """Another program took the port between its choice and the start of the process."""
        (self.port,) = free_ports(1)
        self._environment[f"{self.name.upper()}_PORT"] = str(self.port)
        self.spawn()

    async def until_it_ends(self) -> int:
        """How it ended, as `subprocess` counts."""
        assert self.process is not None
        await eventually(lambda: self.pid is None, seconds=30)
        return int(self.process.returncode)

    async def until_it_is_stopped(self) -> None:
        """By SIGSTOP."""
        assert self.pid is not None
        process = psutil.Process(self.pid)
        await eventually(lambda: process.status() == psutil.STATUS_STOPPED, seconds=30)

    def pause(self) -> None:
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.pid is not None
        os.kill(self.pid, signal.SIGCONT)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@dataclass
class Servers:
    """The addresses of the servers themselves, past any proxy."""

    database_url: str
    redis_url: str


class Shop:
    def __init__(
        self,
        directory: Path,
        servers: Servers,
        through: Mapping[str, Servers] | None = None,
        **environment: str,
    ) -> None:
        """`through` is how the first process of a kind reaches the servers, where that is another way."""
        self.servers = servers
        self._directory = directory
        self._environment = environment
        self._processes: list[Process] = []
        self.command, self.query, self.projector = (
            self.process(kind, through=(through or {}).get(kind)) for kind in ("command", "query", "projector")
        )

    def process(
        self, kind: str, release: str | None = None, through: Servers | None = None, **environment: str
    ) -> Process:
        """One more, not started yet."""
        (port,) = free_ports(1)
        servers = through or self.servers
        log = self._directory / f"{kind}-{len(self._processes)}.log"
        process = Process(
            kind,
            port,
            log,
            {
                **_QUICK,
                **self._environment,
                "DATABASE_URL": url_of(servers.database_url, _ROLES[kind]),
                "REDIS_URL": servers.redis_url,
                "KEY_ENCRYPTION_KEY": SECRET,
                f"{kind.upper()}_PORT": str(port),
                "PYTHONPATH": str(REPOSITORY),
                **environment,
            },
        )
        process.release = release
        self._processes.append(process)
        return process

    async def start(self, *processes: Process) -> None:
        """All three unless some are named. The query service is ready once there is a read model."""
        chosen = processes or (self.command, self.projector, self.query)
        for process in chosen:
            process.spawn()
        for process in chosen:
            await process.until_ready()

    def customers(self, seed: int = 1) -> Customers:
        return Customers(self.command.url, seed=seed)

    def close(self) -> None:
        for process in self._processes:
            process.kill()

    async def position(self) -> int:
        """Of the read model; 0 when there is none."""
        async with Redis.from_url(self.servers.redis_url) as redis:
            return int(await redis.hget("{orders.0}:meta", "position") or 0)

    async def assert_has_reached(self, acknowledgement: Acknowledgement) -> None:
        """The query service has."""
        await assert_each_can_be_read(self.query.url, [acknowledgement])

    async def assert_read_models_equal_the_log(self, seconds: float = 30.0) -> None:
        await assert_read_models_equal_the_log(self.servers.database_url, self.servers.redis_url, seconds)

    async def assert_all_is_well(self, acknowledged: list[Acknowledgement], seconds: float = 30.0) -> None:
        """Read models equal an independent fold of the log, nothing acknowledged is lost, nothing happened twice.

        `acknowledged` must be all commands that were sent.
        """
        assert acknowledged
        await assert_the_log_holds_each_once(self.servers.database_url, acknowledged, and_nothing_else=True)
        await self.assert_read_models_equal_the_log(seconds)
        await assert_each_can_be_read(self.query.url, acknowledged[-20:])


async def until_more(acknowledged: list[Acknowledgement], more: int = 50, seconds: float = 30.0) -> None:
    """Until `more` commands are acknowledged."""
    wanted = len(acknowledged) + more
    await eventually(lambda: len(acknowledged) >= wanted, seconds)


def projects_only(name: str) -> str:
    """The failpoints that keep a projector from the other read models."""
    return ";".join([f"projection.starting:{other}=error" for other in PROJECTIONS if other != name])


def at_port(url: str, port: int) -> str:
    """The same URL at another port."""
    parts = urlsplit(url)
    credentials, _, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}@{HOST}:{port}").geturl()


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def codes(answers: Iterable[httpx.Response]) -> set[tuple[int, str]]:
    """(status, problem code) of each."""
    return {(answer.status_code, answer.json().get("code", "")) for answer in answers}
