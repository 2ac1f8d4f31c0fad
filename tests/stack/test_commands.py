"""The messages and exit codes of `orders` commands that fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.stack.embedded_server import free_port
from tests.orders_command import environment, run_orders

pytestmark = pytest.mark.subprocess


@pytest.mark.parametrize("process", ["command", "projector", "query"])
def test_run_names_every_setting_that_is_missing(process: str) -> None:
    refused = run_orders("run", process)
    assert (refused.returncode, refused.stderr) == (2, "orders: DATABASE_URL is not set; REDIS_URL is not set\n")


def test_run_names_a_setting_that_is_out_of_range() -> None:
    refused = run_orders(
        "run", "query", env={"DATABASE_URL": "postgresql://", "REDIS_URL": "redis://", "QUERY_PORT": "70000"}
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("orders: QUERY_PORT: ")
    assert refused.stderr.count("\n") == 1


def test_migrate_wants_a_database(tmp_path: Path) -> None:
    refused = run_orders("migrate", "--data-dir", str(tmp_path))
    assert refused.returncode == 1
    assert refused.stderr == f"orders: no database: set DATABASE_URL, or start a stack (nothing runs in {tmp_path})\n"


def test_migrate_reports_a_database_that_does_not_answer() -> None:
    refused = run_orders("migrate", env={"DATABASE_URL": f"postgresql://orders@127.0.0.1:{free_port()}/orders"})
    assert refused.returncode == 1
    assert refused.stderr.startswith("orders: ")
    assert "Traceback" not in refused.stderr


def test_projections_status_wants_a_query_service(tmp_path: Path) -> None:
    refused = run_orders("projections", "status", "--data-dir", str(tmp_path))
    assert refused.returncode == 1
    assert "--query-url" in refused.stderr


def test_projections_status_reports_a_query_service_that_does_not_answer() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    refused = run_orders("projections", "status", "--query-url", url)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"orders: {url}: ")
    assert "Traceback" not in refused.stderr


def test_projections_verify_refuses_a_malformed_address() -> None:
    settings = {"DATABASE_URL": "postgresql://orders@127.0.0.1/orders", "REDIS_URL": "localhost"}
    refused = run_orders("projections", "verify", "orders", env=settings)
    assert refused.returncode == 1
    assert refused.stderr.startswith("orders: REDIS_URL or DATABASE_URL is malformed: ")
    assert "Traceback" not in refused.stderr


def test_help_lists_every_command_without_loading_what_they_need() -> None:
    listed = run_orders("--help").stdout
    for command in ("up", "run", "migrate", "import", "projections"):
        assert f" {command} " in listed
    loaded = subprocess.check_output(
        [sys.executable, "-c", "import cli.main, sys; print('asyncpg' in sys.modules, 'fastapi' in sys.modules)"],
        env=environment(),
        text=True,
    )
    assert loaded == "False False\n"


def test_import_has_its_own_help() -> None:
    assert "--rejects" in run_orders("import", "--help").stdout
