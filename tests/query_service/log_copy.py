"""A query service that reads the past from a copy of the log, which may be behind, as a replica may be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg
import httpx

from shared.eventstore.log import read_head
from tests.recording import Recorder
from tests.roles import settings_of
from tests.running import fresh_database, running_query_service, settings_for


class ServedFromCopy(NamedTuple):
    queries: httpx.AsyncClient
    log: Recorder
    copy: Recorder


@asynccontextmanager
async def served_from_copy(server_url: str, redis_url: str) -> AsyncIterator[ServedFromCopy]:
    """The test records the same events in the log and in its copy."""
    async with fresh_database(server_url) as log_url, fresh_database(server_url) as copy_url:
        log, copy = await asyncpg.connect(log_url), await asyncpg.connect(copy_url)
        await copy.execute("update log_head set log_id = $1", (await read_head(log)).log_id)
        copy_settings = settings_of(settings_for(copy_url, redis_url), "orders_auditor")
        settings = settings_for(log_url, redis_url, history_database_url=copy_settings.database_url)
        async with running_query_service(settings) as queries:
            yield ServedFromCopy(queries, Recorder(log), Recorder(copy))
        await log.close()
        await copy.close()
