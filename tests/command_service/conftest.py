from __future__ import annotations

import asyncpg
import httpx
import pytest

from tests.given_when_then import Orders


@pytest.fixture
def orders(commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]) -> Orders:
    return Orders(commands, connection)
