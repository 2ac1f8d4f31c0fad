"""Runs the stack: its servers and processes, from the first start to the last stop."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path

from cli.failure import CommandFailed
from cli.stack.descriptor import (
    AlreadyRunning,
    Process,
    Role,
    Stack,
    data_dir_lock,
    key_encryption_key_file,
    load_stack,
)
from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_server import HOST, ServerError, free_port, port_is_free
from cli.stack.embedded_valkey import EmbeddedValkey
from cli.stack.local_issuer import LocalIssuer
from cli.stack.migration import MigrationFailed, migrate_stack
from cli.stack.processes import open_log, stop_unrelated
from cli.stack.service import Service
from cli.stack.supervisor import StartFailed, StopRequested, StopSignals, Supervisor
from cli.stack.welcome import welcome
from shared.privacy.key_encryption import new_secret, write_secrets

SURVIVOR_SECONDS = 30.0
# Processes that take requests first, the servers that they need last.
STOP_ORDER = ("query", "processes", "command", "projector", "sandbox", "valkey", "postgres")

# Each process with no more rights in the database than it needs (migrations/0001_roles.sql).
CONNECTS_AS: dict[str, Role] = {
    "command": "command",
    "processes": "command",
    "projector": "projector",
    "query": "query",
    "sandbox": "auditor",  # it connects to no database
}
ROLES: tuple[Role, ...] = ("command", "projector", "query", "auditor")


# Pages that a developer serves from this machine.
LOCAL_ORIGINS = "http://localhost:*,http://127.0.0.1:*"


class CannotStart(CommandFailed):
    """The stack cannot be started; the message says why and what to do."""


def run_stack(
    data_dir: Path, command_port: int, query_port: int, projector_port: int | None, *, fulfilment: str, auth: bool
) -> None:
    """Run the stack until Ctrl-C or SIGTERM; for None, the projector gets any free port. Unless `fulfilment` is off,
    the process runner is part of it, and a sandbox where no gateway is set. With `auth`, its services ask for tokens of
    `orders token`.

    Raises CannotStart, BinaryMissing, with nothing left running.
    """
    data_dir = data_dir.absolute()
    try:
        _create(data_dir)
        with data_dir_lock(data_dir):
            stack = load_stack(data_dir) or Stack()
            _stop_survivors(stack, data_dir)
            projector_port = projector_port or free_port()
            _refuse_taken_ports(
                {"--command-port": command_port, "--query-port": query_port, "--projector-port": projector_port}
            )
            stack.command_url = f"http://{HOST}:{command_port}"
            stack.query_url = f"http://{HOST}:{query_port}"
            stack.projector_url = f"http://{HOST}:{projector_port}"
            runs_processes = fulfilment != "off"
            runs_sandbox = runs_processes and not os.environ.get("PAYMENT_GATEWAY_URL")
            stack.processes_url = f"http://{HOST}:{free_port()}" if runs_processes else ""
            stack.sandbox_url = f"http://{HOST}:{free_port()}" if runs_sandbox else ""
            StackRunner(data_dir, stack, fulfilment=fulfilment, auth=auth).run()
    except AlreadyRunning as error:
        raise CannotStart(_describe_holder(data_dir)) from error
    except OSError as error:
        raise CannotStart(f"cannot use {data_dir}: {error.strerror}. Choose another with --data-dir.") from error


class StackRunner:
    """One run of the stack."""

    def __init__(self, data_dir: Path, stack: Stack, *, fulfilment: str, auth: bool) -> None:
        self._data_dir = data_dir
        self._logs = data_dir / "logs"
        self._stack = stack
        self._had_data = (data_dir / "postgres" / "PG_VERSION").exists()
        self._fulfilment = fulfilment
        self._issuer = LocalIssuer(data_dir) if auth else None
        self._signals = StopSignals()
        self._supervisor = Supervisor(self._signals, tell=say, changed=self._save)

    def run(self) -> None:
        self._stack.supervisor = Process.of(os.getpid())
        self._save()
        try:
            self._start()
            say(welcome(self._stack, self._data_dir))
            self._supervisor.run()
        except StopRequested:
            say("stopping")
        except (StartFailed, ServerError, MigrationFailed) as error:
            raise CannotStart(str(error)) from error
        finally:
            self._stop()
        say("stopped")

    def _start(self) -> None:
        databases = self._databases()
        self._supervisor.start(databases)
        self._stack.database_url = os.environ.get("DATABASE_URL") or _url(databases, "postgres")
        self._stack.redis_url = os.environ.get("REDIS_URL") or _url(databases, "valkey")
        self._stack.snapshot_key = (
            os.environ.get("SNAPSHOT_KEY") or self._stack.snapshot_key or secrets.token_urlsafe(24)
        )
        services = self._services()
        passwords = {f"orders_{role}": password for role, password in self._stack.role_passwords.items()}
        migrate_stack(self._stack.database_url, passwords, self._signals, say)
        self._supervisor.start(services)

    def _databases(self) -> list[EmbeddedPostgres | EmbeddedValkey]:
        """The servers whose address the environment does not give, ready to start."""
        databases: list[EmbeddedPostgres | EmbeddedValkey] = []
        stack = self._stack
        if not os.environ.get("DATABASE_URL"):
            postgres = EmbeddedPostgres(
                self._data_dir / "postgres",
                password=stack.postgres_password,
                log=open_log(self._logs, "postgres"),
            )
            postgres.initialise()
            # The server has this password from now on, so the next run can rely on it.
            stack.postgres_password = postgres.password
            stack.role_passwords = {role: secrets.token_urlsafe(24) for role in ROLES}
            databases.append(postgres)
        if not os.environ.get("REDIS_URL"):
            valkey = EmbeddedValkey(
                self._data_dir / "valkey", password=stack.valkey_password, log=open_log(self._logs, "valkey")
            )
            valkey.initialise()
            stack.valkey_password = valkey.password
            databases.append(valkey)
        return databases

    def _services(self) -> list[Service]:
        stack = self._stack
        urls = {
            "sandbox": stack.sandbox_url,
            "command": stack.command_url,
            "processes": stack.processes_url,
            "projector": stack.projector_url,
            "query": stack.query_url,
        }
        ports = {name: int(url.rpartition(":")[2]) for name, url in urls.items() if url}
        secrets_file, snapshots = self._key_encryption(), {"SNAPSHOT_KEY": stack.snapshot_key}
        keys = {"command": snapshots | secrets_file, "processes": snapshots, "query": secrets_file}
        common = {
            "REDIS_URL": stack.redis_url,
            "HOST": HOST,
            "QUERY_URL": self._stack.query_url,
            "CORS_ORIGINS": os.environ.get("CORS_ORIGINS", LOCAL_ORIGINS),
            "FULFILMENT": self._fulfilment,
            **{f"{name.upper()}_PORT": str(port) for name, port in ports.items()},
        }
        if stack.sandbox_url:
            common |= {
                "PAYMENT_GATEWAY_URL": f"{stack.sandbox_url}/payment",
                "CARRIER_GATEWAY_URL": f"{stack.sandbox_url}/carrier",
                "SANDBOX_LEDGER": str(self._data_dir / "sandbox.sqlite"),
                "SANDBOX_CALLBACK_URL": f"{stack.command_url}/gateways",
                "PAYMENT_GATEWAY_SECRET": _webhook_secret(),
                "CARRIER_GATEWAY_SECRET": _webhook_secret(),
            }
        if self._issuer is not None:
            self._issuer.create()
            common |= self._issuer.environment
        return [
            Service(
                name,
                port,
                open_log(self._logs, name),
                {**common, "DATABASE_URL": stack.database_url_of(CONNECTS_AS[name]), **keys.get(name, {})},
            )
            for name, port in ports.items()
        ]

    def _key_encryption(self) -> dict[str, str]:
        """The setting that names the secrets that wrap the keys of personal data; the first run makes one."""
        if os.environ.get("KEY_ENCRYPTION_KEY") or os.environ.get("KEY_ENCRYPTION_KEY_FILE"):
            return {}
        path = key_encryption_key_file(self._data_dir)
        if not path.exists():
            if self._had_data:  # else new keys would be wrapped with another secret than those that exist
                raise CannotStart(f"{path} is missing: restore your copy of it, or set KEY_ENCRYPTION_KEY_FILE")
            write_secrets(path, [new_secret()])
        return {"KEY_ENCRYPTION_KEY_FILE": str(path)}

    def _save(self) -> None:
        running = {server.name: server.pid for server in self._supervisor.servers}
        self._stack.children = {name: Process.of(pid) for name, pid in running.items() if pid is not None}
        self._stack.save(self._data_dir)

    def _stop(self) -> None:
        self._supervisor.stop(sorted(self._supervisor.servers, key=lambda server: STOP_ORDER.index(server.name)))
        self._stack.supervisor = None
        self._save()


def _webhook_secret() -> str:
    """One that signs the callbacks of the sandbox, in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def say(text: str) -> None:
    """Print a line for the user."""
    with contextlib.suppress(OSError):  # the terminal is closed; an orderly stop matters more than its messages
        print(text, flush=True)


def _create(data_dir: Path) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    if data_dir.stat().st_uid == os.geteuid():
        data_dir.chmod(0o700)


def _describe_holder(data_dir: Path) -> str:
    stack = load_stack(data_dir)
    if stack is None or stack.supervisor is None:
        return f"another `orders up` is starting or stopping in {data_dir}"
    return (
        f"already running in {data_dir} (process {stack.supervisor.pid}): commands at {stack.command_url}, "
        f"queries at {stack.query_url}\nFor a second stack give it another --data-dir and other ports."
    )


def _stop_survivors(stack: Stack, data_dir: Path) -> None:
    """Stop the processes that a killed supervisor left running. On Linux the kernel has stopped most of them."""
    survivors = dict(stack.children)
    if (pid := EmbeddedPostgres(data_dir / "postgres").survivor()) is not None:
        survivors["postgres"] = Process.of(pid)  # found even when the descriptor is lost
    for name in STOP_ORDER:
        child = survivors.get(name)
        stop_signal = EmbeddedPostgres.stop_signal if name == "postgres" else signal.SIGTERM
        if child is not None and stop_unrelated(child.pid, child.identity, stop_signal, SURVIVOR_SECONDS):
            say(f"stopped {name} (process {child.pid}), left over from a run in {data_dir} that was killed")


def _refuse_taken_ports(ports: Mapping[str, int]) -> None:
    if len(set(ports.values())) < len(ports):
        raise CannotStart(f"{', '.join(ports)} must differ")
    for option, port in ports.items():
        if not port_is_free(port):
            raise CannotStart(f"port {port} is in use by another program. Choose another with {option}.")


def _url(databases: list[EmbeddedPostgres | EmbeddedValkey], name: str) -> str:
    return next(database.url for database in databases if database.name == name)
