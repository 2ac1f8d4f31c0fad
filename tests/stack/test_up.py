"""`orders up` while all is well."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import socket
import stat
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest

from cli.stack.descriptor import key_encryption_key_file
from cli.stack.embedded_server import free_port
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.privacy.key_encryption import read_secrets
from tests.orders import order_body
from tests.orders_command import environment, invoke_orders, run_orders, shown_on_a_terminal
from tests.running import wait_until
from tests.stack.conftest import StartUp
from tests.stack.orders_up import OrdersUp, living
from tests.system.curl import path_with_curl, path_with_stand_in

pytestmark = pytest.mark.subprocess

READ_MODELS = ["orders", "revenue_by_day", "accounts", "customers", "stock", "processes", "products", "categories"]


def test_it_prints_ready_with_all_addresses_once_the_services_answer(running: OrdersUp) -> None:
    stack = running.descriptor
    for url in (running.command_url, running.query_url, stack.projector_url):
        assert f" {url} " in running.terminal
        for path in ("/livez", "/readyz", "/docs"):
            assert httpx.get(url + path, timeout=30).status_code == httpx.codes.OK
    for url in (stack.database_url, stack.redis_url):
        assert url.rpartition("@")[2] in running.terminal
    assert str(running.data_dir / "stack.json") in running.terminal


def test_the_location_of_an_order_leads_to_the_query_service(running: OrdersUp) -> None:
    placed = httpx.post(f"{running.command_url}/orders", json=order_body(), timeout=30)
    token = {"Consistency-Token": placed.headers["Consistency-Token"], "Prefer": "wait=20"}
    order = httpx.get(placed.headers["Location"], headers=token, timeout=30)
    assert order.json()["order_id"] == placed.json()["aggregate_id"]


def test_the_printed_commands_work_when_pasted_also_twice(running: OrdersUp, tmp_path: Path) -> None:
    place, read = (line for line in running.terminal.splitlines() if line.startswith("curl"))
    for path in (path_with_curl(tmp_path), path_with_stand_in(tmp_path)):

        def pasted(line: str, path: str = path) -> str:
            return subprocess.check_output(["sh", "-c", line], env=environment(PATH=path), text=True)

        assert re.fullmatch(r'{.*"consistency_token".*}\n', pasted(place))
        assert re.fullmatch(r'{.*"total_amount":3564.*}\n', pasted(read))


def test_a_second_one_on_the_same_data_is_refused_with_the_addresses_of_the_first(running: OrdersUp) -> None:
    second = run_orders("up", "--data-dir", str(running.data_dir), "--command-port", str(free_port()))
    assert second.returncode == 1
    assert f"process {running.process.pid}" in second.stderr
    assert running.command_url in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("option", ["--command-port", "--query-port", "--projector-port"])
def test_a_taken_port_is_refused_before_anything_starts(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other_program:
        port = other_program.getsockname()[1]
        ports = {"--command-port": free_port(), "--query-port": free_port(), option: port}
        options = [text for name, number in ports.items() for text in (name, str(number))]
        refused = run_orders("up", "--data-dir", str(tmp_path / "data"), *options)
    assert refused.returncode == 1
    assert refused.stderr == f"orders: port {port} is in use by another program. Choose another with {option}.\n"
    assert not (tmp_path / "data" / "postgres").exists()


def test_no_secret_shows_in_the_process_list_or_the_logs(running: OrdersUp) -> None:
    stack = running.descriptor
    secrets = [stack.postgres_password, stack.valkey_password, stack.snapshot_key, *stack.role_passwords.values()]
    secrets += read_secrets(key_encryption_key_file(running.data_dir))
    assert all(secrets)
    shown = [shlex.join(process.cmdline()) for process in running.processes()]
    shown += [log.read_text() for log in (running.data_dir / "logs").iterdir()]
    shown.append(running.terminal)
    assert [secret for secret in secrets if secret and any(secret in text for text in shown)] == []


def test_what_holds_secrets_is_for_the_owner_only(running: OrdersUp) -> None:
    of_secrets = running.data_dir / "stack.json", key_encryption_key_file(running.data_dir)
    for path in (*of_secrets, *(running.data_dir / "logs").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.data_dir.stat().st_mode) == 0o700


def test_each_process_writes_its_own_log(running: OrdersUp) -> None:
    logs = {log.name for log in (running.data_dir / "logs").iterdir()}
    names = ("command", "query", "projector", "postgres", "valkey")
    assert logs == {f"{name}.log" for name in names}
    assert str(running.data_dir / "logs") in running.terminal


def test_other_commands_find_the_running_stack_by_its_data_dir(running: OrdersUp) -> None:
    migrated = invoke_orders("migrate", "--data-dir", str(running.data_dir))
    assert (migrated.returncode, migrated.stdout) == (0, "nothing to apply\n")


def test_projections_status_shows_the_lag_of_each_read_model(running: OrdersUp) -> None:
    status = invoke_orders("projections", "status", "--data-dir", str(running.data_dir), env={"COLUMNS": "20"})
    assert status.returncode == 0, status.stderr
    heading, *rows = status.stdout.splitlines()
    assert heading.split("  ")[0] == "read model"
    assert [re.split(" {2,}", row)[0] for row in rows] == READ_MODELS
    assert all(re.search(r" (normal|warning|critical|emergency) .* generation 1 ", row) for row in rows)


def test_projections_status_fits_a_terminal_of_80_columns(running: OrdersUp) -> None:
    command = "projections", "status", "--data-dir", str(running.data_dir)
    shown = shown_on_a_terminal(*command, env={"COLUMNS": "80"})
    table = [line for line in shown.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in table] == READ_MODELS
    assert all(len(line) <= 80 and "…" not in line for line in table)
    assert re.search(r"^revenue_by_day: .* active, .* s ago; generation 1; ", shown, re.MULTILINE)


def test_projections_status_as_json_is_what_the_query_service_says(running: OrdersUp) -> None:
    status = invoke_orders("projections", "status", "--json", "--data-dir", str(running.data_dir))
    document = json.loads(status.stdout)
    assert [one["name"] for one in document["projections"]] == READ_MODELS
    assert document.keys() == httpx.get(f"{running.query_url}/projections", timeout=30).json().keys()


@pytest.mark.promise("orders-up", "Ctrl-C stops everything in order, and the next start has the data")
def test_ctrl_c_stops_everything_in_good_order_and_the_next_start_has_the_data(running: OrdersUp) -> None:
    order, processes = running.place_order(), running.processes()
    assert len(processes) > 6  # ourselves, three services, Valkey, PostgreSQL and its workers
    log = running.data_dir / "logs" / "postgres.log"
    before = len(log.read_text())
    try:
        assert running.stop(signal.SIGINT) == 0
        assert living(processes) == []
        assert running.terminal.endswith("stopping\nstopped\n")
        assert "database system is shut down" in log.read_text()[before:]
    finally:
        running.start_again()  # as others found it
    assert running.until_ready().order_total(*order) == 1530
    assert "automatic recovery in progress" not in log.read_text()[before:]


def test_the_key_encryption_keys_of_existing_data_are_not_made_anew(running: OrdersUp) -> None:
    assert running.stop() == 0
    secrets, elsewhere = key_encryption_key_file(running.data_dir), running.data_dir / "elsewhere"
    secrets.rename(elsewhere)
    try:
        running.start_again()
        assert running.process.wait(20) == 1
        assert f"{secrets} is missing: restore your copy of it" in running.terminal
        assert not secrets.exists()
    finally:
        elsewhere.rename(secrets)
        running.start_again()
    running.until_ready()


def test_ctrl_c_during_the_start_leaves_nothing_behind(tmp_path: Path, start_up: StartUp) -> None:
    stack = start_up(tmp_path / "data")
    log = tmp_path / "data" / "logs" / "postgres.log"
    wait_until(lambda: log.exists() and log.stat().st_size, "PostgreSQL is starting")
    processes = stack.processes()
    assert stack.stop(signal.SIGINT) == 0
    assert living(processes) == []
    assert "ready" not in stack.terminal


def test_servers_that_are_named_are_waited_for_and_used_instead_of_embedded_ones(
    tmp_path: Path, start_up: StartUp, database_url: str
) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        valkey.stop()
        stack = start_up(tmp_path / "data", DATABASE_URL=database_url, REDIS_URL=valkey.url)
        stack.until_it_says("waiting for query: ")
        valkey.start()
        stack.until_ready()
        assert sorted(stack.descriptor.children) == ["command", "projector", "query"]
        assert (stack.descriptor.database_url, stack.descriptor.redis_url) == (database_url, valkey.url)
        assert stack.order_total(*stack.place_order()) == 1530
        processes = stack.processes()
        assert stack.stop(signal.SIGTERM) == 0
        assert living(processes) == []


def test_a_database_of_an_earlier_unreleased_version_is_refused(
    tmp_path: Path, start_up: StartUp, database_url: str
) -> None:
    asyncio.run(_rename_first_migration(database_url))
    stack = start_up(tmp_path / "data", DATABASE_URL=database_url)
    assert stack.process.wait(20) == 1
    assert "0001_create_event_log.sql is not one of today's migrations" in stack.terminal
    assert "To start afresh, stop the stack, delete its data directory" in stack.terminal
    assert "Traceback" not in stack.terminal


async def _rename_first_migration(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "update schema_migrations set name = '0001_create_event_log.sql' where name = '0001_roles.sql'"
    )
    await connection.close()


def test_an_unreachable_database_is_reported(tmp_path: Path, start_up: StartUp) -> None:
    url = f"postgresql://orders:secret@127.0.0.1:{free_port()}/orders"
    stack = start_up(tmp_path / "data", DATABASE_URL=url)
    assert stack.process.wait(20) == 1
    assert "migrations failed" in stack.terminal
    assert "Traceback" not in stack.terminal
    assert "secret" not in stack.terminal
