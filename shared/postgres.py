"""Connections to PostgreSQL."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import Any, Literal, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from asyncpg.types import ServerVersion
from pydantic import SecretStr

from shared.settings import Settings

# Errors of a lost or refused connection. Whether a statement had taken effect is for the caller to say.
CONNECTION_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver's state machine, surprised by a server that was killed
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    # There, and not letting us in: while it is restored, renamed, or given a new password.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a server that was demoted
)


def was_refused(error: BaseException) -> bool:
    """Whether nothing was done and the session goes on: the server says so, or the driver could not even send it
    (`DataError`). A fatal error, of whatever kind, may come after all was done."""
    return isinstance(error, asyncpg.DataError) or (
        isinstance(error, asyncpg.PostgresError) and error.severity_en == "ERROR"
    )


CONNECT_SECONDS = 3.0
# For one statement of a pool. A server that vanished does not say so: this is when it is given up. The pool may take as
# long again, asking it to cancel the statement, before the caller goes on.
ANSWER_SECONDS = 5.0
# After which a session that only reads is replaced. Its server may have been demoted, and the address may lead to
# another one by now: no statement of a reader fails because of that.
SESSION_SECONDS = 30.0

# Which servers a session may have (libpq's `target_session_attrs`). `primary` is for roles that only read: their
# transactions are read-only on every server.
Target: TypeAlias = Literal["read-write", "primary", "any"]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

_PID = "select pg_backend_pid()"
_POOLER_SECONDS = 1.0


class ServerDemoted(ConnectionError):
    """The session's server takes no writes any more. Another session may reach the one that does."""

    def __init__(self) -> None:
        super().__init__("the server takes no writes any more: it was demoted")


class TransactionPooling(ConnectionError):
    """A connection pooler gives each transaction of a session another server process."""

    def __init__(self) -> None:
        super().__init__(
            "a connection pooler in transaction or statement mode is between this process and PostgreSQL, and leases,"
            " LISTEN and settings need a session: set pool_mode = session for this database"
        )


def session_settings(version: ServerVersion) -> str:
    """The statements that begin a session. Sent after connecting: poolers, and older servers, refuse connections that
    ask for settings which they do not know.

    The server does not count a client that is stopped between preparing a statement and executing it as idle (the
    driver asks for no end of the transaction there), so only `transaction_timeout` ends it. PostgreSQL 15 and 16 have
    none.
    """
    settings = {
        "jit": "off",  # compiling costs more than these short statements take
        # A client whose requests no longer arrive would otherwise keep its row locks for as long as its socket is open.
        "idle_in_transaction_session_timeout": "5s",
        # A peer that vanished without a word must not hold a lock for two hours.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }
    if version.major >= 17:
        settings["transaction_timeout"] = "10s"
    return "; ".join(f"set {name} = '{value}'" for name, value in settings.items())


def takes_no_writes(connection: Connection) -> bool:
    """Whether the server has said so, of a session that began as `read-write`. Costs no round trip: PostgreSQL reports
    the setting when it changes."""
    return getattr(connection.get_settings(), "default_transaction_read_only", "off") == "on"


async def unbound(connection: Connection) -> None:
    """The transaction that is open may take as long as its statements may."""
    if connection.get_server_version().major >= 17:
        await connection.execute("set local transaction_timeout = 0")


async def backend_pid(connection: Connection) -> int:
    """Of the server process. What the protocol calls so may be a pooler's invention."""
    return int(await connection.fetchval(_PID))


async def refuse_transaction_pooling(connection: Connection, url: str) -> None:
    """Raises `TransactionPooling`. Without a pooler this costs one statement.

    A session has one server process; transaction pooling gives the process that has just become free to the next
    transaction, also to one of another session.
    """
    try:
        pid = await backend_pid(connection)
        if pid == connection.get_server_pid():
            return
        pids = {pid, await backend_pid(connection)}
        with suppress(TimeoutError, asyncpg.InsufficientResourcesError):  # of sessions: then each has its own
            other = await asyncpg.connect(url, timeout=_POOLER_SECONDS)
            try:
                if await _begin_transaction(other) == pid:
                    raise TransactionPooling
                pids.add(await backend_pid(connection))
            finally:
                other.terminate()
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError) as error:
        raise TransactionPooling from error  # another process has the prepared statement
    if len(pids) > 1:
        raise TransactionPooling


async def _begin_transaction(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """The process that executes it. Raises `TransactionPooling` where a pooler refuses it, as in statement mode."""
    try:
        await connection.execute("begin", timeout=_POOLER_SECONDS)
    except (asyncpg.ProtocolViolationError, asyncpg.PostgresConnectionError) as error:  # it closes the connection
        raise TransactionPooling from error
    return await backend_pid(connection)


def history_server(settings: Settings) -> tuple[SecretStr, Target]:
    """Where history and live updates are read: a server of any kind, if one is named for them."""
    if settings.history_database_url is not None:
        return settings.history_database_url, "any"
    return settings.database_url, "primary"


def _arguments(settings: Settings, role: str, target: Target, url: SecretStr | None) -> dict[str, Any]:
    dsn = (url or settings.database_url).get_secret_value()
    return {
        "dsn": dsn,
        "timeout": CONNECT_SECONDS,
        "server_settings": {"application_name": f"orders-{role}", "timezone": "UTC"},  # poolers know these two
        "target_session_attrs": None if "target_session_attrs=" in dsn else target,
    }


async def _begin(connection: Connection) -> None:
    await connection.execute(session_settings(connection.get_server_version()), timeout=CONNECT_SECONDS)


async def connect(
    settings: Settings, role: str, *, target: Target = "read-write", url: SecretStr | None = None
) -> asyncpg.Connection[asyncpg.Record]:
    """One connection, a session of its own; to `database_url` unless another is given. `role` shows as the
    application's name. Of several hosts in the URL, the first that is a `target`.

    Raises what is in `CONNECTION_LOST`.
    """
    arguments = _arguments(settings, role, target, url)
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(**arguments)
    try:
        await _begin(connection)
        await refuse_transaction_pooling(connection, arguments["dsn"])
    except BaseException:  # cancelled, too: nothing else has a reference to the connection yet
        connection.terminate()
        raise
    return connection


async def create_pool(
    settings: Settings,
    role: str,
    *,
    min_size: int = 0,
    max_size: int = 8,
    target: Target = "read-write",
    url: SecretStr | None = None,
) -> asyncpg.Pool[asyncpg.Record]:
    """A pool of connections, as those of `connect`; with `min_size` 0 it connects when first used and so starts without
    the server. A session is replaced after `SESSION_SECONDS`, and at once when its server turns out to take no writes.
    """
    arguments = _arguments(settings, role, target, url)
    checked = False
    expires_at = monotonic() + SESSION_SECONDS

    async def begin(connection: Connection) -> None:
        nonlocal checked
        await _begin(connection)
        if not checked:
            await refuse_transaction_pooling(connection, arguments["dsn"])
            checked = True

    async def expire(connection: Connection) -> None:
        # Nothing is left to undo on a connection that the pool has back: what we set is set for a transaction (`set
        # local`), locks on rows end with it, and a session that listens or locks has a connection of its own. So there
        # is no reset query, which would cost each statement a round trip.
        nonlocal expires_at
        if monotonic() >= expires_at or (target == "read-write" and takes_no_writes(connection)):
            expires_at = monotonic() + SESSION_SECONDS
            await pool.expire_connections()

    pool = await asyncpg.create_pool(
        **arguments,
        min_size=min_size,
        max_size=max_size,
        max_inactive_connection_lifetime=SESSION_SECONDS,
        command_timeout=ANSWER_SECONDS,
        init=begin,
        reset=expire,
    )
    return pool
