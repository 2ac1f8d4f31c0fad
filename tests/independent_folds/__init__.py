"""What the read models must hold: each recomputed from rows by plain Python, in a module per read model.

They share no code with the product and spell out the names of keys and tables. Slow and simple on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.independent_folds import accounts, catalogue, customers, orders, processes, revenue_by_day, stock
from tests.independent_folds.event_rows import read_log

READ_MODELS = ("orders", "revenue_by_day", "accounts", "customers", "stock", "processes", "catalogue")


async def assert_read_models_equal_the_log(
    database_url: str, redis_url: str, seconds: float = 30.0, read_models: Sequence[str] = READ_MODELS
) -> None:
    """Fails with the first differences unless the read models hold exactly the fold of the log, and nothing else.

    Nothing may be appended meanwhile; the projector has `seconds` to catch up.
    """
    log = await read_log(database_url)
    if "revenue_by_day" in read_models:
        await revenue_by_day.assert_equals(log, database_url, seconds)
    if "orders" in read_models:
        await orders.assert_equals(log, redis_url, seconds)
    if "accounts" in read_models:
        await accounts.assert_equals(log, redis_url, seconds)
    if "customers" in read_models:
        await customers.assert_equals(log, redis_url, seconds)
    if "stock" in read_models:
        await stock.assert_equals(log, redis_url, seconds)
    if "processes" in read_models:
        await processes.assert_equals(log, redis_url, seconds)
    if "catalogue" in read_models:
        await catalogue.assert_equals(database_url, redis_url, seconds)
