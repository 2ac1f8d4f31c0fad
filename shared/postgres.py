"""Connections to PostgreSQL."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from asyncpg.types import ServerVersion
from pydantic import SecretStr

from shared.settings import Settings

# What a lost or refused connection looks like. Whether a statement had taken effect is for the caller to say.
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


def _server_settings(role: str) -> dict[str, str]:
    return {
        "application_name": f"orders-{role}",
        "jit": "off",  # compiling costs more than these short statements take
        "timezone": "UTC",
        # A client whose requests no longer arrive would otherwise keep its row locks for as long as its socket is open.
        "idle_in_transaction_session_timeout": "5s",
        # A peer that vanished without a word must not hold a lock for two hours.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }


def bounds(version: ServerVersion) -> str:
    """What to set after connecting, because older servers refuse connections that ask for it.

    The server does not count a client that is stopped between preparing a statement and executing it as idle (the
    driver asks for no end of the transaction there), so only `transaction_timeout` ends it. PostgreSQL 15 and 16 have
    none.
    """
    return "set transaction_timeout = '10s'" if version.major >= 17 else ""


class _Pooled(asyncpg.Connection):
    """Nothing is left to undo on one that a pool has back: what we set is set for a transaction (`set local`), locks on
    rows end with it, and a session that listens or locks has a connection of its own (`connect`). A transaction
    that is still open is rolled back all the same."""

    def get_reset_query(self) -> str:
        # What asyncpg would ask for costs a round trip and five statements, for each statement of ours.
        return ""


Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"


async def _bound(connection: Connection) -> None:
    if statement := bounds(connection.get_server_version()):
        await connection.execute(statement, timeout=CONNECT_SECONDS)


async def unbound(connection: Connection) -> None:
    """The transaction that is open may take as long as its statements may."""
    if bounds(connection.get_server_version()):
        await connection.execute("set local transaction_timeout = 0")


async def connect(settings: Settings, role: str, url: SecretStr | None = None) -> asyncpg.Connection[asyncpg.Record]:
    """One connection, a session of its own; to `database_url` unless another is given. `role` shows
    as the application's name."""
    connection = await asyncpg.connect(
        (url or settings.database_url).get_secret_value(),
        timeout=CONNECT_SECONDS,
        server_settings=_server_settings(role),
    )
    try:
        await _bound(connection)
    except BaseException:  # cancelled, too: nothing else has a reference to the connection yet
        connection.terminate()
        raise
    return connection


async def create_pool(
    settings: Settings, role: str, *, min_size: int = 0, max_size: int = 8, url: SecretStr | None = None
) -> asyncpg.Pool[asyncpg.Record]:
    """A pool of connections, to `database_url` unless another is given; with `min_size` 0 it connects when first used
    and so starts without the server."""
    return await asyncpg.create_pool(
        (url or settings.database_url).get_secret_value(),
        min_size=min_size,
        max_size=max_size,
        command_timeout=ANSWER_SECONDS,
        timeout=CONNECT_SECONDS,
        server_settings=_server_settings(role),
        connection_class=_Pooled,
        init=_bound,
    )
