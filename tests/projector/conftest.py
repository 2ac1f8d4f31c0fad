from __future__ import annotations

import asyncpg
import pytest

from shared.settings import Settings
from tests.recording import Recorder
from tests.roles import settings_of


@pytest.fixture
def recorder(connection: asyncpg.Connection[asyncpg.Record]) -> Recorder:
    return Recorder(connection)


@pytest.fixture
def projector_settings(settings: Settings) -> Settings:
    return settings_of(settings, "orders_projector")
