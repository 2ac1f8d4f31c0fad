"""The first start with docker compose: its passwords, a start that is killed, and data of an earlier start."""

from __future__ import annotations

import asyncio
import re
import stat
import subprocess
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.stack.addresses import find_database
from cli.stack.descriptor import Role
from cli.stack.embedded_postgres import EmbeddedPostgres
from shared.migrations import BadPassword, migrate
from tests.deploy.test_compose import ROOT, SERVICES
from tools.make_env import write_env

ANY_CHARACTERS = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
ROLES: tuple[Role, ...] = ("command", "projector", "query", "auditor")
DATA = "/var/lib/postgresql"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    (tmp_path / ".env.example").write_text((ROOT / ".env.example").read_text())
    return tmp_path


def test_make_env_fills_in_a_password_of_its_own_for_each_role(example: Path) -> None:
    write_env(example)
    env = example / ".env"
    passwords = re.findall(r"^(?:\w+_PASSWORD|SNAPSHOT_KEY|KEY_ENCRYPTION_KEY)=(.*)$", env.read_text(), re.MULTILINE)
    assert len(passwords) == len(set(passwords)) == 7
    assert min(map(len, passwords)) >= 32
    assert stat.S_IMODE(env.stat().st_mode) == 0o600


def test_make_env_keeps_a_file_that_is_there(example: Path) -> None:
    write_env(example)
    before = (example / ".env").read_text()
    assert "stays as it is" in write_env(example)
    assert (example / ".env").read_text() == before


@pytest.mark.subprocess
async def test_passwords_may_have_any_printable_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", flush_initial_files=False) as server:
        await migrate(server.url, {f"orders_{role}": f"{role}{ANY_CHARACTERS}" for role in ROLES})
        for role in ROLES:
            # As a service of the compose file, …
            monkeypatch.setenv("PGPASSWORD", f"{role}{ANY_CHARACTERS}")
            service = await asyncpg.connect(f"postgresql://orders_{role}@127.0.0.1:{server.port}/orders")
            await service.close()
            monkeypatch.delenv("PGPASSWORD")
            # … and as its `tools`.
            monkeypatch.setenv("DATABASE_URL", f"postgresql://127.0.0.1:{server.port}/orders")
            monkeypatch.setenv(f"{role.upper()}_PASSWORD", f"{role}{ANY_CHARACTERS}")
            tools = await asyncpg.connect(find_database(None, role))
            assert await tools.fetchval("select current_user") == f"orders_{role}"
            await tools.close()


@pytest.mark.parametrize("password", ["pässword", "two\nlines"])
async def test_a_password_that_clients_could_not_use_is_refused_in_words(password: str) -> None:
    with pytest.raises(BadPassword, match="the password of orders_command has other characters"):
        await migrate("postgresql://nowhere.invalid/orders", {"orders_command": password})


async def test_another_password_than_that_of_the_first_start_is_explained(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", re.sub(r"://(\w+):[^@]+@", r"://\1:another@", database_url))
    answer = await asyncio.to_thread(CliRunner().invoke, app, ["migrate"])
    assert answer.exit_code == 1
    assert 'password authentication failed for user "orders". A server keeps the password of its first start' in (
        answer.output
    )


class FirstStart:
    """The entry point of the compose file's PostgreSQL, with a stand-in for that of the image."""

    def __init__(self, directory: Path) -> None:
        self.data, self.unfinished = directory / "18" / "docker", directory / "unfinished"
        self._directory = directory
        image = directory / "docker-entrypoint.sh"
        image.write_text('#!/bin/sh\nmkdir -p "$PGDATA"; echo "$1" > "$PGDATA/started"\n')
        image.chmod(0o755)

    def run(self) -> None:
        [program, option, script, name] = SERVICES["postgres"]["entrypoint"]
        script = script.replace("$$", "$").replace(DATA, str(self._directory))
        command = [program, option, script, name, *SERVICES["postgres"]["command"]]
        environment = {"PATH": f"{self._directory}:/usr/bin:/bin", "PGDATA": str(self.data)}
        subprocess.run(command, env=environment, check=True)
        assert (self.data / "started").read_text() == "postgres\n"

    def becomes_healthy(self) -> None:
        *_, line = SERVICES["postgres"]["healthcheck"]["test"]
        command = line.partition("&& ")[2].replace(DATA, str(self._directory))
        subprocess.run(["sh", "-c", command], check=True)


@pytest.fixture
def first_start(tmp_path: Path) -> FirstStart:
    return FirstStart(tmp_path)


@pytest.mark.subprocess
def test_what_a_first_start_that_was_killed_left_is_removed(first_start: FirstStart) -> None:
    first_start.run()
    (first_start.data / "PG_VERSION").write_text("18\n")  # killed here
    first_start.run()
    assert not (first_start.data / "PG_VERSION").exists()


@pytest.mark.subprocess
def test_data_that_was_served_once_is_kept(first_start: FirstStart) -> None:
    first_start.run()
    (first_start.data / "PG_VERSION").write_text("18\n")
    first_start.becomes_healthy()
    assert not first_start.unfinished.exists()
    first_start.run()
    assert (first_start.data / "PG_VERSION").exists()


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("settings", "addresses"),
    [
        (
            {"COMMAND_PORT": "8001", "QUERY_PORT": "8002", "PROFILES": ""},
            "commands http://127.0.0.1:8001/docs, queries http://127.0.0.1:8002/docs",
        ),
        ({"COMMAND_PORT": "", "QUERY_PORT": "", "PROFILES": "gateway"}, "http://127.0.0.1:8080/docs"),
    ],
)
def test_the_tools_say_ready_with_the_addresses_and_end_when_told_to(settings: dict[str, str], addresses: str) -> None:
    [program, option, script] = SERVICES["tools"]["command"]
    environment = {"PATH": "/usr/bin:/bin", "GATEWAY_PORT": "8080", **settings}
    with subprocess.Popen(
        [program, option, script.replace("$$", "$")], env=environment, stdout=subprocess.PIPE, text=True
    ) as tools:
        assert tools.stdout is not None
        assert tools.stdout.readline() == f"ready: {addresses}\n"
        tools.terminate()
    assert tools.returncode == 0
