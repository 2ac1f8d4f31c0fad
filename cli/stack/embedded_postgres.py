"""A PostgreSQL server in a directory of its own, on 127.0.0.1 with a password.

`with EmbeddedPostgres(directory) as postgres: connect(postgres.url)`
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

from cli.stack.accounts import WORKING_DIRECTORY, give, nobody, private_account, reachable
from cli.stack.binaries import postgres_binary
from cli.stack.embedded_server import HOST, EmbeddedServer, ServerError, bare_environment
from cli.stack.processes import ending, launch, works_in

DATABASE = ROLE = "orders"
SHARED_BUFFERS = "512MB"  # holds a log of a million events with its indexes
# Connections: with a password, over TCP, from this machine.
HOST_RULES = f"host all all {HOST}/32 scram-sha-256\n"
IMPOSSIBLE_PID = "4194305"  # Linux counts to 4,194,304, other systems not as far


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL with a role and a database named `orders`, durable as in production."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": rolls back what is open, writes a checkpoint

    def __init__(
        self,
        directory: Path,
        *,
        password: str | None = None,
        log: Path | None = None,
        flush_initial_files: bool = True,
        shared_buffers: str = SHARED_BUFFERS,
    ) -> None:
        """As `EmbeddedServer`. `flush_initial_files=False` makes the first start faster, for data that need not survive
        a power cut. PostgreSQL uses no more of `shared_buffers` than it needs."""
        super().__init__(directory, password=password, log=log)
        self._flush = flush_initial_files
        self._shared_buffers = shared_buffers
        self._password_known = password is not None
        self._account = private_account(self.directory)

    @property
    def url(self) -> str:
        """A libpq URL."""
        return f"postgresql://{ROLE}:{self.password}@{HOST}:{self.port}/{DATABASE}"

    def initialise(self) -> None:
        """Create the cluster, or take over an existing one."""
        if self._account is not None and not WORKING_DIRECTORY.exists():
            raise ServerError("PostgreSQL refuses to run as root: start the stack as another user")
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        if not (self.directory / "PG_VERSION").exists():
            self._create()
        else:
            self._check_version()
            if self._account is not None and self.directory.stat().st_uid != self._account.uid:
                give(self.directory, self._account)
            if not self._password_known:
                self._disown_pid_file()
                self._single_user(self.directory, f"ALTER ROLE {ROLE} PASSWORD '{self.password}'")
        self._password_known = True

    def _create(self) -> None:
        """`initdb` beside the final directory, then one rename: an interrupted first start leaves no half cluster."""
        unfinished = self.directory.with_name(self.directory.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._account is not None:
            give(unfinished, nobody())
        # fmt: off
        self._run(
            "initdb", "-D", self._reached(unfinished), "--username", ROLE, "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C", "--data-checksums", "--no-instructions",
            *([] if self._flush else ["--no-sync"]), directory=unfinished,
        )
        # fmt: on
        (unfinished / "pg_hba.conf").write_text(HOST_RULES)
        self._single_user(unfinished, f"ALTER ROLE {ROLE} PASSWORD '{self.password}'", f"CREATE DATABASE {DATABASE}")
        unfinished.rename(self.directory)

    def _check_version(self) -> None:
        written = (self.directory / "PG_VERSION").read_text().strip()
        running = self._run("postgres", "--version")
        if not re.search(rf"\) {re.escape(written)}(\D|$)", running):
            raise ServerError(f"{self.directory} was written by PostgreSQL {written}, but this is {running.strip()}")

    def _single_user(self, directory: Path, *statements: str) -> None:
        """Run statements without a server, and so without a password."""
        if self._account is not None:
            give(directory, nobody())
        try:
            lines = "".join(f"{statement}\n" for statement in statements)
            arguments = ("--single", "-D", self._reached(directory), "postgres")
            output = self._run("postgres", *arguments, stdin=lines, directory=directory)
        finally:
            if self._account is not None:
                give(directory, self._account)
        if "ERROR" in output or "FATAL" in output:
            raise ServerError(output)

    def _reached(self, directory: Path) -> Path:
        """The path to a directory that a program is started in."""
        return directory if self._account is None else WORKING_DIRECTORY

    def _program(self, name: str) -> Path:
        program = postgres_binary(name)
        return program if self._account is None else reachable(program)

    def _run(self, program: str, *arguments: str | Path, stdin: str = "", directory: Path = Path("/")) -> str:
        """Run a PostgreSQL program to its end, as a user with a name; returns its output. Raises ServerError."""
        uid, gid = (None, None) if self._account is None else nobody()
        ended = subprocess.run(
            [self._program(program), *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=bare_environment(),
            cwd=directory,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            start_new_session=True,  # Ctrl-C must reach this process alone
            check=False,
        )
        if ended.returncode != 0:
            raise ServerError(f"{program}: {ending(ended.returncode)}\n{ended.stdout.strip()}")
        return ended.stdout

    def _launch(self) -> subprocess.Popen[bytes]:
        self._disown_pid_file()
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": self._shared_buffers,
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return launch(
            [self._program("postgres"), "-D", self._reached(self.directory), *options],
            log=self.log,
            env=bare_environment(),
            death_signal=signal.SIGINT,
            account=self._account,
            directory=self.directory,
        )

    def _answers(self) -> bool:
        """Reads the state in the server's pid file, as pg_ctl does."""
        lines = self._pid_file_lines()
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def survivor(self) -> int | None:
        """The process id of a server that an earlier run left running in this directory."""
        lines = self._pid_file_lines()
        return int(lines[0]) if lines and works_in(int(lines[0]), self.directory) else None

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _disown_pid_file(self) -> None:
        """Let PostgreSQL start although a process has the id of the crashed server.

        That process is another program, as in a restarted container that reuses process ids, or the crashed server
        itself, not yet reaped by its parent. PostgreSQL would refuse to start. Only the process id is replaced, by one
        that no process can have: PostgreSQL needs the rest of the file to detect children that still run.
        """
        lines = self._pid_file_lines()
        if lines and self.survivor() is None:
            (self.directory / "postmaster.pid").write_text("\n".join([IMPOSSIBLE_PID, *lines[1:]]) + "\n")
