"""Registers the toy for the duration of a test, without a line in the product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from command_service import api, domain, processes
from command_service.processes.advance import DEFINITIONS
from projector import projections
from query_service import read_models
from shared import aggregates
from tests.toy.aggregates.wallet import WALLET
from tests.toy.api import wallets
from tests.toy.domain.wallet import WALLETS
from tests.toy.processes.bonus import BONUS
from tests.toy.projections.owners import OWNERS
from tests.toy.projections.wealth import WEALTH
from tests.toy.read_models import owners, wealth

_REGISTRIES = (
    aggregates.AGGREGATES,
    aggregates.EVENT_TYPES,
    domain.DECIDERS,
    DEFINITIONS,
    api.ROUTERS,
    projections.PROJECTIONS,
    read_models.READ_MODELS,
)


@contextmanager
def toy_registered() -> Iterator[None]:
    with ExitStack() as patched:
        for registry in _REGISTRIES:
            patched.enter_context(patch.dict(registry))
        aggregates.register(WALLET)
        domain.register(WALLETS)
        api.register(wallets.router, wallets.DESCRIPTION)
        processes.register(BONUS)
        projections.register(OWNERS, "redis")
        projections.register(WEALTH, "postgresql")
        read_models.register(owners.OWNERS)
        read_models.register(wealth.WEALTH)
        yield
