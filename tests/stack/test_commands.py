"""The messages and exit codes of `orders` commands that fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from cli.main import app
from cli.stack.descriptor import Process, Stack
from cli.stack.embedded_server import free_port
from tests.orders_command import environment, invoke_orders, run_orders

pytestmark = pytest.mark.subprocess


@pytest.mark.parametrize("process", ["command", "processes", "projector", "query"])
def test_run_names_every_setting_that_is_missing(process: str) -> None:
    refused = invoke_orders("run", process)
    assert (refused.returncode, refused.stderr) == (2, "orders: DATABASE_URL is not set; REDIS_URL is not set\n")


def test_run_names_a_setting_that_is_out_of_range() -> None:
    refused = invoke_orders(
        "run", "query", env={"DATABASE_URL": "postgresql://", "REDIS_URL": "redis://", "QUERY_PORT": "70000"}
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("orders: QUERY_PORT: ")
    assert refused.stderr.count("\n") == 1


def test_migrate_wants_a_database(tmp_path: Path) -> None:
    refused = invoke_orders("migrate", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == "orders: no database: set DATABASE_URL, or start a stack (nothing runs in .orders)\n"


# Every command that has the option, with arguments that it would accept.
WITH_DATA_DIR = {
    "migrate": [],
    "import": ["orders.csv"],
    "replay": ["42"],
    "snapshots compact": [],
    "backup": ["copy"],
    "restore": ["copy", "--reason", "x"],
    "log new-id": ["--reason", "x"],
    "audit verify": [],
    "audit seal": ["--seals", "seals.jsonl", "--key", "seal.pem"],
    "audit export": [],
    "projections status": [],
    "projections rebuild": ["orders"],
    "projections verify": ["orders"],
    "projections rollback": ["orders"],
    "projections drop": ["orders"],
    "projections retry": ["orders"],
    "processes list": [],
    "processes show": ["fulfilment-42"],
    "processes retry": ["fulfilment-42"],
    "processes skip": ["fulfilment-42", "--timer", "payment"],
    "processes compensate": ["fulfilment-42"],
    "processes trace": ["42"],
    "erase": ["alice"],
    "keys erasures": [],
    "keys rotate": [],
}


@pytest.mark.promise("command-line", "A command that is given a directory without a stack says so and does nothing")
@pytest.mark.parametrize("command", WITH_DATA_DIR)
def test_a_directory_without_a_stack_is_not_replaced_by_another_stack(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the one of the environment nor by that of the default directory."""
    (tmp_path / "orders.csv").write_text("")
    Stack(
        supervisor=Process.of(os.getpid()),
        database_url="postgresql://127.0.0.1:1/orders",
        redis_url="redis://127.0.0.1:1",
        command_url="http://127.0.0.1:1",
        query_url="http://127.0.0.1:1",
    ).save(_made(tmp_path / ".orders"))
    elsewhere = _made(tmp_path / "elsewhere")
    addresses = {"DATABASE_URL": "postgresql://127.0.0.1:1/orders", "REDIS_URL": "redis://127.0.0.1:1"}
    options = [*command.split(), *WITH_DATA_DIR[command], "--data-dir", str(elsewhere)]
    monkeypatch.chdir(tmp_path)

    refused = CliRunner().invoke(app, options, env={**addresses, "AUDITOR_DATABASE_URL": addresses["DATABASE_URL"]})

    assert refused.exit_code in (1, 2)
    assert refused.output.endswith(f": nothing runs in {elsewhere}; start a stack there, or leave out --data-dir\n")
    assert refused.output.count("\n") == 1


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_no_command_with_a_data_directory_is_missing_above() -> None:
    assert WITH_DATA_DIR.keys() == {name for name, command in _commands() if _has_data_dir(command)} - {"up", "token"}


def _commands(of: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    command = of or typer.main.get_command(app)
    if isinstance(command, TyperGroup):
        for name, part in command.commands.items():
            yield from _commands(part, f"{prefix} {name}")
    else:
        yield prefix.strip(), command


def _has_data_dir(command: Any) -> bool:
    return any("--data-dir" in parameter.opts for parameter in command.params)


def test_a_directory_and_an_address_are_not_both_given(tmp_path: Path) -> None:
    refused = invoke_orders("replay", "42", "--database-url", "postgresql://x", "--data-dir", str(tmp_path))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "orders: --database-url and --data-dir name two databases: give one of them\n"


def test_migrate_reports_a_database_that_does_not_answer() -> None:
    refused = invoke_orders("migrate", env={"DATABASE_URL": f"postgresql://orders@127.0.0.1:{free_port()}/orders"})
    assert refused.returncode == 1
    assert refused.stderr.startswith("orders: ")
    assert "Traceback" not in refused.stderr


def test_projections_status_wants_a_query_service(tmp_path: Path) -> None:
    refused = invoke_orders("projections", "status", cwd=tmp_path)
    assert refused.returncode == 1
    assert "--query-url" in refused.stderr


def test_projections_status_reports_a_query_service_that_does_not_answer() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    refused = invoke_orders("projections", "status", "--query-url", url)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"orders: {url}: ")
    assert "Traceback" not in refused.stderr


def test_projections_verify_refuses_a_malformed_address() -> None:
    settings = {"DATABASE_URL": "postgresql://orders@127.0.0.1/orders", "REDIS_URL": "localhost"}
    refused = invoke_orders("projections", "verify", "orders", env=settings)
    assert refused.returncode == 1
    assert refused.stderr.startswith("orders: REDIS_URL or DATABASE_URL is malformed: ")
    assert "Traceback" not in refused.stderr


def test_help_lists_every_command_without_loading_what_they_need() -> None:
    listed = invoke_orders("--help").stdout
    for command in ("up", "run", "migrate", "import", "projections"):
        assert f" {command} " in listed
    loaded = subprocess.check_output(
        [sys.executable, "-c", "import cli.main, sys; print('asyncpg' in sys.modules, 'fastapi' in sys.modules)"],
        env=environment(),
        text=True,
    )
    assert loaded == "False False\n"


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r"orders \d+\.\d+\.\d+\n", invoke_orders("--version").stdout)


def test_shells_complete_commands() -> None:
    completed = run_orders(env={"_ORDERS_COMPLETE": "complete_bash", "COMP_WORDS": "orders pro", "COMP_CWORD": "1"})
    assert completed.stdout.split() == ["projections", "processes"]


# Every command that prints a table; `orders import` ends with one line of a fixed form.
PRINT_TABLES = {
    "replay",
    "backup",
    "restore",
    "audit verify",
    "audit seal",
    "audit keygen",
    "log new-id",
    "projections status",
    "processes list",
    "processes show",
    "processes retry",
    "processes skip",
    "processes compensate",
    "processes trace",
    "erase",
    "keys rotate",
}


def test_every_command_that_prints_a_table_prints_json_too() -> None:
    with_json = {name for name, command in _commands() if any("--json" in one.opts for one in command.params)}
    assert with_json == PRINT_TABLES


def test_import_has_its_own_help() -> None:
    assert "--rejects" in invoke_orders("import", "--help").stdout
