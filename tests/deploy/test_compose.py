"""No container engine is at hand here, so what docker-compose.yml claims is held against the code it runs."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped]
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from cli.stack.binaries import postgres_binary, valkey_binary
from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.supervisor import STOP_SECONDS
from shared.postgres import ANSWER_SECONDS
from shared.settings import RolePasswords, Settings
from tests.orders_command import invoke_orders
from tests.running import eventually, free_ports

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

# What each of our services runs, and the setting that holds its port.
PORT_SETTINGS = {
    "command": "command_port",
    "query": "query_port",
    "projector": "projector_port",
    "processes": "processes_port",
}
OURS = [*PORT_SETTINGS, "migrate"]
OF_OUR_IMAGE = [*OURS, "tools"]
STORES = ["postgres", "redis"]
LONG_RUNNING = [*STORES, *PORT_SETTINGS]

# Where the official images keep their data, and the variables they read.
DATA_PATHS = {"postgres": "/var/lib/postgresql", "redis": "/data"}
POSTGRES_VARIABLES = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}

VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::?-(?P<default>[^}]*)|:\?[^}]*)?\}")


def interpolated(text: str) -> str:
    """As compose fills it in when only the password is set."""
    return VARIABLE.sub(lambda match: "s3cret-of-24-characters" if match["default"] is None else match["default"], text)


def port_of(service: str) -> int:
    default = Settings.model_fields[PORT_SETTINGS[service]].default
    assert isinstance(default, int)
    return default


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


def test_the_stack_consists_of_the_processes_of_the_architecture() -> None:
    assert set(SERVICES) == {*LONG_RUNNING, "migrate", "tools", "gateway"}
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == ["processes", "gateway"]


def test_all_our_services_share_one_image_which_is_built_once_and_never_pulled() -> None:
    assert len({SERVICES[name]["image"] for name in OF_OUR_IMAGE}) == 1
    assert [name for name in SERVICES if "build" in SERVICES[name]] == ["migrate"]
    assert {SERVICES[name]["pull_policy"] for name in OF_OUR_IMAGE} == {"never"}


@pytest.mark.parametrize("name", [*STORES, "gateway"])
def test_a_foreign_image_is_pinned_to_a_patch_version(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+(\.\d+)?-[a-z0-9.]+", SERVICES[name]["image"])


def test_the_stores_are_of_the_generations_the_project_is_made_for() -> None:
    assert SERVICES["postgres"]["image"].startswith("postgres:18.")
    assert SERVICES["redis"]["image"].startswith("valkey/valkey:9.")


@pytest.mark.subprocess
@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_the_orders_program_knows(name: str, tmp_path: Path) -> None:
    """Without settings each gets as far as asking for DATABASE_URL; an unknown command or process does not."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_URL")}
    answer = subprocess.run(
        [sys.executable, "-m", "cli", *SERVICES[name]["command"]],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.returncode in (1, 2)
    assert "DATABASE_URL" in answer.stderr


@pytest.mark.parametrize("name", PORT_SETTINGS)
def test_a_service_runs_the_process_of_its_name(name: str) -> None:
    assert SERVICES[name]["command"] == ["run", name]


@pytest.mark.parametrize("name", PORT_SETTINGS)
def test_a_service_is_published_on_the_loopback_at_its_default_port(name: str) -> None:
    port = port_of(name)
    assert interpolated(SERVICES[name]["ports"][0]) == f"127.0.0.1:{port}:{port}"


def test_what_is_for_operators_has_a_port_of_its_own_on_the_loopback() -> None:
    published = {name: [interpolated(one) for one in SERVICES[name]["ports"][1:]] for name in PORT_SETTINGS}
    assert published == {"command": ["127.0.0.1::9000"], "query": ["127.0.0.1::9000"], "projector": [], "processes": []}
    assert {SERVICES[name]["environment"]["OPERATIONS_PORT"] for name in ("command", "query")} == {"9000"}


def test_the_stores_are_not_published() -> None:
    assert not [name for name in [*STORES, "migrate", "tools"] if "ports" in SERVICES[name]]


def test_the_gateway_is_published_on_the_loopback_unless_another_address_is_set() -> None:
    ports = [interpolated(published) for published in SERVICES["gateway"]["ports"]]
    assert ports == ["127.0.0.1:8080:8080", "127.0.0.1:8443:8443"]


@pytest.mark.subprocess
@pytest.mark.promise("security", "The gateway of the compose file does not start unless callers identify themselves")
@pytest.mark.parametrize("auth", ["off", "", "jwt"])
def test_the_gateway_starts_only_where_callers_identify_themselves(auth: str) -> None:
    assert SERVICES["gateway"]["environment"]["AUTH"] == SERVICES["command"]["environment"]["AUTH"] == "${AUTH:-off}"
    entrypoint = [part.replace("$$", "$") for part in SERVICES["gateway"]["entrypoint"]]
    started = subprocess.run(
        [*entrypoint, "echo", "started"], env={**os.environ, "AUTH": auth}, capture_output=True, text=True, check=False
    )
    if auth == "jwt":
        assert (started.returncode, started.stdout) == (0, "started\n")
    else:
        assert (started.returncode, started.stdout) == (1, "")
        assert "set AUTH=jwt" in started.stderr


def test_the_settings_of_the_gateway_ask_for_what_authentication_needs() -> None:
    lines = (ROOT / "deploy" / "gateway" / "env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert given["AUTH"] == "jwt"
    for name in ("AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_JWKS"):
        assert given[name] == f"${{{name}:?with the gateway, set {name} in .env}}"


@pytest.mark.parametrize("name", ["command", "query"])
def test_a_file_of_keys_is_where_the_example_says(name: str) -> None:
    assert SERVICES[name]["volumes"] == ["${AUTH_KEYS_FILE:-/dev/null}:/run/keys.json:ro"]
    assert "#AUTH_JWKS=/run/keys.json\n" in (ROOT / ".env.example").read_text()


@pytest.mark.parametrize("name", PORT_SETTINGS)
def test_with_an_empty_port_several_processes_of_a_kind_share_none(name: str) -> None:
    published = SERVICES[name]["ports"][0]
    assert re.sub(r"\$\{[A-Z_]+-\d+\}", "", published) == f"127.0.0.1::{port_of(name)}"


@pytest.mark.parametrize("name", SERVICES)
def test_the_stack_starts_on_one_processor(name: str) -> None:
    """The engine refuses a limit that is larger than what the machine has."""
    assert float(interpolated(SERVICES[name]["deploy"]["resources"]["limits"]["cpus"])) <= 1


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_ours_is_a_setting_and_makes_valid_settings(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {key: interpolated(value) for key, value in SERVICES[name]["environment"].items()}
    settings = RolePasswords if name == "migrate" else Settings
    known = {field.upper() for field in settings.model_fields} | {"DATABASE_URL"}
    assert set(environment) <= known | {"PGPASSWORD"}
    for field in known:
        monkeypatch.delenv(field, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    settings()


@pytest.mark.parametrize("name", PORT_SETTINGS)
def test_a_service_can_be_reached_from_outside_its_container(name: str) -> None:
    assert SERVICES[name]["environment"]["HOST"] == "0.0.0.0"


def test_every_variable_of_postgres_is_one_its_image_reads() -> None:
    assert set(SERVICES["postgres"]["environment"]) == POSTGRES_VARIABLES


def test_the_addresses_lead_to_the_stores() -> None:
    postgres = SERVICES["postgres"]["environment"]
    for name in OF_OUR_IMAGE:
        database = urlsplit(interpolated(SERVICES[name]["environment"]["DATABASE_URL"]))
        assert (database.hostname, database.port) == ("postgres", 5432)
        assert database.path == "/" + postgres["POSTGRES_DB"]
        assert "stores" in SERVICES[name]["networks"]
    for name in [*PORT_SETTINGS, "tools"]:
        redis = urlsplit(SERVICES[name]["environment"]["REDIS_URL"])
        assert (redis.hostname, redis.port) == ("redis", 6379)


def test_the_tools_find_the_services_where_they_listen(tmp_path: Path) -> None:
    tools, query = (SERVICES[name]["environment"] for name in ("tools", "query"))
    assert tools["COMMAND_URL"] == f"http://command:{port_of('command')}"
    assert tools["QUERY_URL"] == f"http://query:{port_of('query')}"
    assert tools["OPERATIONS_URL"] == f"http://query:{query['OPERATIONS_PORT']}"
    importing = invoke_orders("import", __file__, cwd=tmp_path, env=tools | {"QUERY_URL": "query"})
    assert "--query-url" in importing.stderr
    status = invoke_orders("projections", "status", cwd=tmp_path, env=tools | {"OPERATIONS_URL": "http://127.0.0.1:9"})
    assert status.stderr.startswith("orders: http://127.0.0.1:9: ")


def test_each_process_connects_as_its_own_role_with_the_password_that_migrate_gave_it() -> None:
    given = {key: interpolated(value) for key, value in SERVICES["migrate"]["environment"].items()}
    roles = {"command": "command", "processes": "command", "projector": "projector", "query": "query"}
    for name, role in roles.items():
        database = urlsplit(interpolated(SERVICES[name]["environment"]["DATABASE_URL"]))
        assert database.username == f"orders_{role}"
        password = f"${{{role.upper()}_PASSWORD:"
        assert SERVICES[name]["environment"]["PGPASSWORD"].startswith(password)
        assert SERVICES["migrate"]["environment"][f"{role.upper()}_PASSWORD"].startswith(password)
    owner = urlsplit(given["DATABASE_URL"])
    assert owner.username == SERVICES["postgres"]["environment"]["POSTGRES_USER"]
    assert given["PGPASSWORD"] == interpolated(SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"])


def test_no_password_is_part_of_a_url_so_that_it_may_have_any_characters() -> None:
    for name in OF_OUR_IMAGE:
        assert urlsplit(interpolated(SERVICES[name]["environment"]["DATABASE_URL"])).password is None


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_every_long_running_service_has_a_health_check_and_is_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", PORT_SETTINGS)
def test_a_health_check_asks_its_own_service_whether_it_is_ready(name: str) -> None:
    check = SERVICES[name]["healthcheck"]["test"]
    assert check[1:3] == ["python", "-c"]
    assert "'/readyz'" in check[3]
    assert check[4:] == [str(port_of(name))]


async def test_the_health_checks_find_the_running_services_ready_and_a_missing_one_not(stack: Settings) -> None:
    async def exit_code(service: str, port: int) -> int:
        [_, _, *arguments, _] = SERVICES[service]["healthcheck"]["test"]
        command = [sys.executable, *arguments, str(port)]
        return (await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)).returncode

    for service, setting in PORT_SETTINGS.items():
        if "profiles" in SERVICES[service]:
            continue  # not part of every stack

        async def healthy(service: str = service, port: int = getattr(stack, setting)) -> bool:
            return await exit_code(service, port) == 0

        await eventually(healthy)
        assert await exit_code(service, free_ports(1)[0]) != 0


def test_the_health_check_of_postgres_finds_a_running_server_ready_and_a_missing_one_not(
    postgres: EmbeddedPostgres,
) -> None:
    def exit_code(port: int) -> int:
        *_, line = SERVICES["postgres"]["healthcheck"]["test"]
        [program, *options] = shlex.split(line.partition("&&")[0])
        command = [str(postgres_binary(program)), *options, f"--port={port}"]
        return subprocess.run(command, timeout=30, check=False).returncode

    assert exit_code(postgres.port) == 0
    assert exit_code(free_ports(1)[0]) == 2


def test_the_health_check_of_redis_is_the_ping_of_its_images_own_client() -> None:
    """That client is in no wheel. `-e` makes an error, such as LOADING, an exit code."""
    assert SERVICES["redis"]["healthcheck"]["test"] == ["CMD", "valkey-cli", "-e", "ping"]


@pytest.mark.subprocess
def test_redis_runs_as_compose_starts_it(tmp_path: Path) -> None:
    [program, *options] = SERVICES["redis"]["command"]
    assert program == "valkey-server"
    [port] = free_ports(1)
    command = [valkey_binary(), *options, "--port", str(port), "--dir", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            with Redis(port=port, decode_responses=True, retry=Retry(ConstantBackoff(0.05), 100)) as redis:
                settings = redis.config_get("appendonly", "save", "maxmemory", "maxmemory-policy")
        finally:
            server.terminate()
    assert settings == {
        "appendonly": "yes",
        "save": "",
        "maxmemory": str(512 * 1024**2),
        "maxmemory-policy": "noeviction",
    }


@pytest.mark.parametrize("name", PORT_SETTINGS)
def test_a_service_gets_the_time_to_finish_what_it_accepted(name: str) -> None:
    """It answers what it accepted; then the last append and the snapshots may take as long as they are given."""
    given = [Settings.model_fields[field].default for field in ("shutdown_seconds", "append_timeout_seconds")]
    longest = sum(given) + 2 * ANSWER_SECONDS
    assert min(seconds(SERVICES[name]["stop_grace_period"]), STOP_SECONDS) >= longest + 3


def test_each_service_starts_when_what_it_needs_is_ready() -> None:
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert {name: SERVICES[name]["depends_on"] for name in OURS} == {
        "migrate": {"postgres": healthy},
        "command": {"postgres": healthy, "migrate": done},
        "processes": {"postgres": healthy, "migrate": done},
        "projector": {"postgres": healthy, "redis": healthy, "migrate": done},
        "query": {"redis": healthy, "projector": healthy},
    }


def test_the_migration_runs_once() -> None:
    assert SERVICES["migrate"]["restart"] == "no"


@pytest.mark.parametrize("name", STORES)
def test_a_store_keeps_its_data_in_a_named_volume_where_its_image_really_writes(name: str) -> None:
    [mount] = SERVICES[name]["volumes"]
    volume, path = mount.split(":")
    assert volume in COMPOSE["volumes"]
    assert path == DATA_PATHS[name]


def test_every_declared_volume_and_network_is_used() -> None:
    mounts = [interpolated(mount).split(":")[0] for one in SERVICES.values() for mount in one.get("volumes", [])]
    assert sorted(mount for mount in mounts if mount[0] not in "./") == sorted(COMPOSE["volumes"])
    assert [mount for mount in mounts if mount.startswith("./") and not (ROOT / mount).exists()] == []
    assert {network for service in SERVICES.values() for network in service["networks"]} == set(COMPOSE["networks"])


def test_the_stores_can_be_reached_by_our_services_only() -> None:
    assert COMPOSE["networks"]["stores"]["internal"] is True
    assert {name: SERVICES[name]["networks"] for name in STORES} == {name: ["stores"] for name in STORES}


def test_the_client_of_a_request_is_named_by_the_gateway_alone() -> None:
    [subnet] = COMPOSE["networks"]["gateway"]["ipam"]["config"]
    behind = {name for name in SERVICES if "FORWARDED_ALLOW_IPS" in SERVICES[name].get("environment", {})}
    assert behind == {"command", "query"}
    for name in behind:
        assert SERVICES[name]["environment"]["FORWARDED_ALLOW_IPS"] == subnet["subnet"]
    assert {name for name in SERVICES if "gateway" in SERVICES[name]["networks"]} == {"gateway", *behind}


def test_our_services_have_no_way_out() -> None:
    assert COMPOSE["networks"]["stores"]["internal"] is COMPOSE["networks"]["gateway"]["internal"] is True
    assert COMPOSE["networks"]["edge"]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    for name in {*OF_OUR_IMAGE} - {"processes"}:  # it calls a payment service and a carrier
        assert set(SERVICES[name]["networks"]) <= {"stores", "edge", "gateway"}
        assert SERVICES[name]["dns"] == ["127.0.0.1"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_rights_of_root_or_can_change_its_own_files(name: str) -> None:
    service = SERVICES[name]
    assert ("0" in service["user"].split(":")) == (name == "gateway")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "gateway" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])


@pytest.mark.parametrize("name", OF_OUR_IMAGE)
def test_a_service_of_ours_runs_as_the_user_that_the_image_was_made_for(name: str) -> None:
    assert re.findall(r"^USER (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == [SERVICES[name]["user"]]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_bounds(name: str) -> None:
    assert set(SERVICES[name]["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


def test_postgres_can_write_its_socket() -> None:
    assert any(mount.startswith("/var/run/postgresql:") for mount in SERVICES["postgres"]["tmpfs"])


def test_no_password_stands_in_the_files_and_none_has_a_default() -> None:
    files = (ROOT / "docker-compose.yml").read_text(), (ROOT / ".env.example").read_text()
    for text in files:
        literal = VARIABLE.sub("", text)
        assert not re.search(r"(?i)(password|secret|token)[a-z_]*[ \t]*[:=][ \t]*[^\s#]", literal)
        assert not re.search(r"://[^/\s:]+:[^@\s]+@", literal)
    passwords = [match for match in VARIABLE.finditer(files[0]) if "PASSWORD" in match["name"]]
    assert len(passwords) >= len(OURS)
    for match in passwords:
        assert match.group() == f"${{{match['name']}:?set {match['name']}, in the shell or in .env}}"


def test_the_example_names_every_variable_the_compose_file_asks_for() -> None:
    asked = {match["name"] for match in VARIABLE.finditer((ROOT / "docker-compose.yml").read_text())}
    offered = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert offered == asked
