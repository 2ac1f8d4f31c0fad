"""PostgreSQL and Valkey of our own."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_server import ServerError
from cli.stack.embedded_valkey import EmbeddedValkey
from cli.stack.processes import open_to, unprivileged_account
from tests.orders_command import environment
from tests.running import wait_until
from tests.stack.orders_up import living

pytestmark = pytest.mark.subprocess


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


async def ask(postgres: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(postgres.url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_a_killed_postgres_starts_again_on_the_same_port_with_what_was_committed(directory: Path) -> None:
    with EmbeddedPostgres(directory / "postgres", flush_initial_files=False) as postgres:
        await ask(postgres, "create table kept as select 42 as answer")
        url = postgres.url
        postgres.kill()
        assert postgres.start().url == url
        assert await ask(postgres, "select answer from kept") == 42


async def test_postgres_is_as_durable_as_in_production(directory: Path) -> None:
    with EmbeddedPostgres(directory / "postgres", flush_initial_files=False) as postgres:
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert await ask(postgres, f"show {setting}") == "on"


async def test_postgres_takes_no_connection_without_its_password(directory: Path) -> None:
    with EmbeddedPostgres(directory / "postgres", flush_initial_files=False) as postgres:
        guess = postgres.url.replace(postgres.password, "guess")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(guess)


async def test_a_lost_password_is_replaced_and_the_data_kept(directory: Path) -> None:
    with EmbeddedPostgres(directory / "again", flush_initial_files=False) as postgres:
        await ask(postgres, "create table kept as select 42 as answer")
        first_password = postgres.password
    with EmbeddedPostgres(directory / "again") as postgres:
        assert postgres.password != first_password
        assert await ask(postgres, "select answer from kept") == 42


def test_a_first_start_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    unfinished = tmp_path / "postgres.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("half a cluster")
    with EmbeddedPostgres(tmp_path / "postgres", flush_initial_files=False):
        assert not unfinished.exists()
    assert not (tmp_path / "postgres.password").exists()


def test_data_of_another_major_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(ServerError, match=r"written by PostgreSQL 9\.6, but this is postgres \(PostgreSQL\) \d+"):
        EmbeddedPostgres(tmp_path / "postgres").start()


def test_a_process_number_that_was_given_to_another_program_does_not_stop_postgres(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "postgres", flush_initial_files=False).start()
    try:
        pid_file = tmp_path / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        postgres.kill()
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
        postgres.start()
    finally:
        postgres.stop()


def test_a_killed_valkey_starts_again_on_the_same_port_with_its_data(directory: Path) -> None:
    with EmbeddedValkey(directory / "valkey") as valkey, redis.Redis.from_url(valkey.url) as client:
        client.set("kept", "42")
        client.waitaof(1, 0, 5000)
        valkey.kill()
        valkey.start()
        assert client.get("kept") == b"42"


def test_valkey_never_evicts_and_wants_its_password(directory: Path) -> None:
    with EmbeddedValkey(directory / "valkey") as valkey:
        with redis.Redis.from_url(valkey.url) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        no_retry = Retry(NoBackoff(), 0)
        with redis.Redis(port=valkey.port, retry=no_retry) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_a_directory_may_hold_spaces_and_quotes(tmp_path: Path) -> None:
    directory = tmp_path / """it's a "new" place"""
    with EmbeddedPostgres(directory / "postgres", flush_initial_files=False), EmbeddedValkey(directory / "valkey"):
        assert (directory / "valkey" / "appendonlydir").is_dir()


def test_both_are_gone_after_stop(directory: Path) -> None:
    postgres = EmbeddedPostgres(directory / "postgres", flush_initial_files=False).start()
    valkey = EmbeddedValkey(directory / "valkey").start()
    processes = [psutil.Process(valkey.pid), psutil.Process(postgres.pid)]
    processes += processes[1].children()
    valkey.stop()
    postgres.stop()
    assert living(processes) == []


def test_a_directory_is_opened_for_passing_through_and_for_nothing_else(tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "data").mkdir(parents=True)
    private.chmod(0o700)
    said: list[str] = []
    account = unprivileged_account(tmp_path)
    if account is None:
        return  # an ordinary user's PostgreSQL runs as that user: nothing to open
    open_to(account, private / "data", said.append)
    assert stat.S_IMODE(private.stat().st_mode) == 0o701
    assert any(str(private) in line for line in said)


def test_a_server_outlives_the_thread_that_started_it_but_not_the_process(tmp_path: Path) -> None:
    program = """
import os, sys, threading
from pathlib import Path
from cli.stack.embedded_valkey import EmbeddedValkey

valkey = EmbeddedValkey(Path(sys.argv[1]))
starter = threading.Thread(target=valkey.start)
starter.start()
starter.join()
print(valkey.pid, valkey.ready(), flush=True)
sys.stdin.read()
os._exit(1)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "valkey")]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid, answered = process.stdout.readline().split()
        assert answered == b"True"
        server = psutil.Process(int(pid))
        assert server.is_running()
    wait_until(lambda: not living([server]), "Valkey has ended")
