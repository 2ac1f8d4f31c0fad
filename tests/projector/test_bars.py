"""The progress bars of a rebuild on a terminal."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from io import StringIO

from redis.asyncio import Redis
from rich.console import Console

from cli.projection_admin.progress import progress_bars
from shared.settings import Settings
from tests.orders import placed
from tests.orders_command import shown_on_a_terminal
from tests.recording import Recorder

ORDERS = 200


async def test_bars_show_how_far_a_rebuild_is_and_how_long_it_will_be(
    projector_settings: Settings, recorder: Recorder, redis: Redis
) -> None:
    await recorder.record_each([f"o-{number}" for number in range(ORDERS)], placed(), datetime.now(UTC))

    shown = await on_a_terminal(projector_settings, "rebuild", "orders", PROJECTOR_BATCH_SIZE="1")

    frames = re.findall(r"building [━╸╺ ]+ (\d+)/(\d+) +0:\d\d:\d\d ([-:0-9]+)", shown)
    assert {total for _, total, _ in frames} == {f"{ORDERS}"}
    assert frames[-1] == (f"{ORDERS}", f"{ORDERS}", "0:00:00")
    assert any(0 < int(done) < ORDERS and re.fullmatch(r"0:\d\d:\d\d", left) for done, _, left in frames)
    for what, total in (("comparing", ORDERS), ("finding others", 1)):
        assert re.search(rf"{what} +━{{40}} {total}/{total} +0:\d\d:\d\d 0:00:00", shown), shown
    assert "queries are answered from generation 2 now" in shown
    assert await redis.hget("{orders.0}.generations", "live") == b"2"

    for command in (("verify", "orders"), ("rebuild", "revenue_by_day")):
        shown = await on_a_terminal(projector_settings, *command)
        assert re.search(rf"comparing +━{{40}} {ORDERS}/{ORDERS} +0:\d\d:\d\d 0:00:00", shown), shown


def test_what_remains_is_told_though_the_log_grows_meanwhile() -> None:
    out = StringIO()
    with progress_bars(Console(file=out, width=120)) as report:
        for position in range(1, 10):
            report("building", position, 100 + position)
    assert re.search(r"building [━╸╺ ]+ 9/109 0:00:00 0:00:0\d", out.getvalue()), out.getvalue()


async def on_a_terminal(settings: Settings, *arguments: str, **added: str) -> str:
    """Everything that `orders projections` shows there."""
    servers = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
    }
    return await asyncio.to_thread(shown_on_a_terminal, "projections", *arguments, env={**servers, **added})
