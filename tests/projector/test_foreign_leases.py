"""A lease that a session of another program holds: it is found within seconds, and named
in the log, in `/projections` and in `orders projections status`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import asyncpg
import pytest
import structlog

from cli.projection_admin.status import show_status
from projector.foreign_leases import ForeignLeaseMonitor
from shared.eventstore.lease import read_foreign_holders, try_acquire
from shared.eventstore.subscription import open_session
from shared.read_models.keys import lease_name
from shared.settings import Settings
from tests.projector.test_version_mismatch import readiness
from tests.roles import settings_of
from tests.running import eventually, is_ready, running_projector, running_query_service

LEASE = lease_name("orders", 1, 0)
FOREIGN = "lease held by a foreign session"
_TAKE = "select pg_advisory_lock(hashtextextended($1, 0))"


@pytest.fixture(params=["the auditor, as psql", "the auditor, under our name", "the owner, as psql"])
async def foreign(
    request: pytest.FixtureRequest, settings: Settings
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session that is no projector's, on a server that no superuser migrated: any role may take advisory locks."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    await connection.execute("grant execute on function pg_advisory_lock(bigint) to orders_auditor")
    await connection.close()
    holder, _, name = request.param.partition(", ")
    url = (settings_of(settings, "orders_auditor") if holder == "the auditor" else settings).database_url
    application = "psql" if name == "as psql" else "orders-projector"
    connection = await asyncpg.connect(url.get_secret_value(), server_settings={"application_name": application})
    yield connection
    connection.terminate()


@pytest.mark.promise("projectors", "A foreign session that holds a lease is named within 10 s")
async def test_a_foreign_session_that_holds_a_lease_is_named_within_ten_seconds(
    foreign: asyncpg.Connection[asyncpg.Record],
    projector_settings: Settings,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pid = foreign.get_server_pid()
    await foreign.execute(_TAKE, LEASE)
    with structlog.testing.capture_logs() as logged:
        async with running_projector(projector_settings) as projector, running_query_service(settings) as queries:
            began = monotonic()
            await eventually(lambda: any(line["event"] == FOREIGN for line in logged))
            assert monotonic() - began < 10
            named = [line for line in logged if line["event"] == FOREIGN]
            assert f"pid {pid}" in await readiness(projector)

            (shown,) = (await queries.get("/projections")).json()["foreign_leases"]
            await asyncio.to_thread(show_status, str(queries.base_url), None)

            foreign.terminate()
            await eventually(lambda: is_ready(projector))
            assert (await queries.get("/projections")).json()["foreign_leases"] == []

    (line,) = named
    assert (line["lease"], line["pid"], line["user"]) == (LEASE, pid, shown["user"])
    assert line["client"]
    assert line["since"] is not None
    assert (shown["lease"], shown["pid"], shown["application"]) == (LEASE, pid, line["application"])
    assert f"Lease held by a foreign session: {LEASE} by pid {pid}" in capsys.readouterr().out


async def test_sessions_of_projectors_are_not_foreign(
    projector_settings: Settings, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with open_session(projector_settings, lambda: None) as session:
        assert await try_acquire(session, LEASE)

        assert await read_foreign_holders(connection, [LEASE]) == []


async def test_a_shared_lock_on_a_lease_is_found_and_logged_once(
    projector_settings: Settings, connection: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projector.foreign_leases.CHECK_SECONDS", 0.0)
    await connection.execute("select pg_advisory_lock_shared(hashtextextended($1, 0))", LEASE)
    async with open_session(projector_settings, lambda: None) as session:
        monitor = ForeignLeaseMonitor(session)
        with structlog.testing.capture_logs() as logged:
            await monitor.check([LEASE])
            await monitor.check([LEASE])

    assert [holder.pid for holder in monitor.holders] == [connection.get_server_pid()]
    assert [line["event"] for line in logged] == [FOREIGN]
