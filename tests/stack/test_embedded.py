"""PostgreSQL and Valkey of our own."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli.stack.binaries import postgres_binary
from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_server import ServerError
from cli.stack.embedded_valkey import EmbeddedValkey
from cli.stack.processes import open_log, rotate
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
    with EmbeddedPostgres(directory / "postgres", flush_initial_files=False) as postgres:
        await ask(postgres, "create table kept_too as select 42 as answer")
        first_password = postgres.password
    with EmbeddedPostgres(directory / "postgres") as postgres:
        assert postgres.password != first_password
        assert await ask(postgres, "select answer from kept_too") == 42


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


def test_a_process_number_that_was_given_to_another_program_does_not_stop_postgres(directory: Path) -> None:
    postgres = EmbeddedPostgres(directory / "postgres", flush_initial_files=False).start()
    try:
        pid_file = directory / "postgres" / "postmaster.pid"
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


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's PostgreSQL runs as that user")


@as_root
@pytest.mark.promise("security", "Root's embedded PostgreSQL runs as a user of its own; no directory is opened for it")
async def test_under_root_postgres_has_a_user_of_its_own_and_no_directory_is_opened_for_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0o700)
    modes = {parent: parent.stat().st_mode for parent in (closed / "data" / "postgres").parents}
    for _ in range(2):  # the first start, and another
        with EmbeddedPostgres(closed / "data" / "postgres", flush_initial_files=False) as postgres:
            owner = (closed / "data" / "postgres").stat().st_uid
            assert {parent: parent.stat().st_mode for parent in modes} == modes
            assert psutil.Process(postgres.pid).uids().effective == owner
            with pytest.raises(KeyError):
                pwd.getpwuid(owner)
            await ask(postgres, "do $$ begin perform now() at time zone 'Asia/Tokyo'; end $$")
            seen = [process.info for process in psutil.process_iter(["pid", "ppid", "uids"])]
            first = {p["pid"] for p in seen if p["uids"].effective == owner and p["ppid"] != postgres.pid}
            assert first == {postgres.pid}


@as_root
def test_under_root_postgres_starts_though_its_programs_are_in_a_closed_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = postgres_binary("postgres").parents[2]
    closed = tmp_path / "closed"
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, closed / part.name, symlinks=True)
    closed.chmod(0o700)
    monkeypatch.setattr("cli.stack.binaries._package", lambda name: closed / name)
    with TemporaryDirectory(prefix="orders-test-") as open_directory:
        cache = Path(open_directory)
        monkeypatch.setattr("cli.stack.accounts._CACHE", cache)
        for _ in range(2):  # a first copy, and the copy of before
            with EmbeddedPostgres(tmp_path / "postgres", flush_initial_files=False) as postgres:
                assert Path(psutil.Process(postgres.pid).exe()).is_relative_to(cache)
        assert len(list(cache.iterdir())) == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_server_outlives_the_thread_that_started_it_but_not_the_process(tmp_path: Path) -> None:
    program = """
import os, sys, threading
from pathlib import Path
from tempfile import TemporaryDirectory
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


def test_a_log_that_grows_is_rotated_while_its_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written stays readable, within twice the bound, for its owner alone."""
    monkeypatch.setattr("cli.stack.processes.LOG_BYTES", 50_000)
    log = open_log(tmp_path, "server")
    with log.open("ab", buffering=0) as server:
        for number in range(20_000):
            server.write(b"line %6d\n" % number)
            if number % 100 == 0:
                rotate(log)
                assert log.stat().st_size <= 51_200
    kept = (tmp_path / "server.log.1").read_bytes() + log.read_bytes()
    numbers = [int(line.split()[1]) for line in kept.splitlines()]
    assert numbers == list(range(numbers[0], 20_000))
    assert stat.S_IMODE((tmp_path / "server.log.1").stat().st_mode) == 0o600


@pytest.mark.promise("security", "The logs of a supervised process are rotated while it writes them")
def test_the_log_of_a_process_is_rotated_while_it_is_supervised(tmp_path: Path) -> None:
    """It logs as our services do, faster than one file may hold; the supervisor is a program of its own."""
    writer = """
import time
from shared.logs import configure_logs, get_logger

configure_logs("query", "INFO")
for number in range(30_000):
    get_logger().info("line", number=number)
    if number % 100 == 0:
        time.sleep(0.005)
get_logger().info("last line")
time.sleep(60)
"""
    program = """
import os, signal, sys
from pathlib import Path
from cli.stack import processes
from cli.stack.server import Server
from cli.stack.supervisor import StopRequested, StopSignals, Supervisor

class Writer(Server):
    name, state = "query", "writing"
    log = processes.open_log(Path(sys.argv[1]), "query")

    def spawn(self):
        command = [sys.executable, "-c", sys.argv[2]]
        self.process = processes.launch(
            command, log=self.log, env=os.environ, death_signal=signal.SIGTERM, directory=Path.cwd()
        )

    def ready(self):
        return True

processes.LOG_BYTES = 100_000
supervisor = Supervisor(StopSignals(), print, lambda: None)
try:
    supervisor.start([Writer()])
    supervisor.run()
except StopRequested:
    supervisor.stop([*supervisor.servers])
"""
    log, previous = tmp_path / "query.log", tmp_path / "query.log.1"
    largest = 0

    def has_ended() -> bool:
        nonlocal largest
        largest = max(largest, log.stat().st_size if log.exists() else 0)
        # It may have been moved since.
        return any(b"last line" in file.read_bytes() for file in (log, previous) if file.exists())

    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path), writer], env=environment()) as supervisor:
        try:
            wait_until(has_ended, "the writer has written its last line", seconds=50)
        finally:
            supervisor.terminate()
    written = 30_000 * len(previous.read_bytes().splitlines()[0])
    assert largest < written / 3
    assert log.stat().st_size + previous.stat().st_size < written / 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in (log, previous)} == {0o600}
    entries = [json.loads(line) for file in (previous, log) for line in file.read_bytes().splitlines()]
    numbers = [entry["number"] for entry in entries if entry["message"] == "line"]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 29_999, "what was written last is kept"
