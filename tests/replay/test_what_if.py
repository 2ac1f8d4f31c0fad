"""orders replay --projection MODULE:FUNCTION: a function of one's own over history."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.aggregates.order import ShippingAddressChanged
from shared.eventstore import log as event_log
from tests.orders import LAMP, MUG, cancelled, paid, placed
from tests.orders_command import shown_on_a_terminal
from tests.recording import Recorder
from tests.replay.conftest import Replay
from tests.roles import url_of

ROOT = Path(__file__).parents[2]

COUNT = "def positions(state, past):\n    return [*(state or []), past.position]\n"
EVERYTHING = """
def everything(state, past):
    return [*(state or []), {**past._asdict(), "class": type(past.event).__name__}]
"""


async def test_the_example_tells_what_revenue_would_have_been(replay: Replay, recorder: Recorder) -> None:
    january, february = datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    await recorder.record("small", placed(), paid(100_00), occurred_at=january)
    await recorder.record("large", placed(), paid(100_01), occurred_at=january)
    await recorder.record("huge", placed(), paid(1_000_00), occurred_at=january)
    await recorder.record("euros", placed(currency="EUR"), paid(1_000_00), cancelled(1_000_00), occurred_at=january)
    await recorder.record("unpaid", placed(), cancelled(), occurred_at=february)
    await recorder.record("huge", cancelled(1_000_00), occurred_at=february)

    example = Replay(ROOT, replay.database_url)
    ended = await example("--projection", "docs.examples.discount:revenue_by_month")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == {
        "months": {
            "2026-01": {"revenue": 1_200_01, "with_discount": 100_00 + 95_01 + 950_00},
            "2026-02": {"revenue": -1_000_00, "with_discount": -950_00},
        },
        "not_in_pounds": ["order-euros"],
    }


async def test_the_function_gets_each_event_as_it_is_known_today(replay: Replay, recorder: Recorder) -> None:
    old = '{"customer_id":"a","items":[{"product_id":"M","quantity":1,"unit_price":2}],"shipping_address_id":"h"}'
    await recorder.record_raw("42", "OrderPlaced", 1, old)
    await recorder.record("43", placed(MUG, LAMP))
    await recorder.record("42", paid(2))
    replay.write("mine.py", EVERYTHING)

    events = json.loads((await replay("--projection", "mine:everything")).stdout)

    rows = [row async for row in event_log.read_all(recorder.connection)]
    assert [(e["position"], e["stream_id"], e["version"], e["event_type"], e["class"]) for e in events] == [
        (1, "order-42", 1, "OrderPlaced", "OrderPlaced"),
        (2, "order-43", 1, "OrderPlaced", "OrderPlaced"),
        (3, "order-42", 2, "PaymentConfirmed", "PaymentConfirmed"),
    ]
    assert events[0]["event"]["currency"] == "GBP"
    for name in ("occurred_at", "recorded_at"):
        assert [datetime.fromisoformat(event[name]) for event in events] == [getattr(row, name) for row in rows]
    assert [event["metadata"] for event in events] == [json.loads(row.metadata) for row in rows]


async def test_it_covers_all_of_history_or_the_part_that_was_asked_for_both_ends_included(
    replay: Replay, recorder: Recorder
) -> None:
    for number in range(1, 6):
        await recorder.record(str(number), placed(), occurred_at=datetime(2000, 1, 1, tzinfo=UTC))
    times = [row.recorded_at async for row in event_log.read_all(recorder.connection)]
    before, after = (times[2] + step * timedelta(microseconds=1) for step in (-1, 1))
    replay.write("mine.py", COUNT)

    async def positions(*arguments: str) -> list[int]:
        ended = await replay("--projection", "mine:positions", *arguments)
        assert ended.returncode == 0, ended.stderr
        found: list[int] = json.loads(ended.stdout)
        return found

    assert await asyncio.gather(
        positions(),
        positions("--from", "2", "--to", "4"),
        positions("--from", "5", "--to", "99"),
        positions("--from", times[2].isoformat(), "--to", times[2].isoformat()),
        positions("--to", before.isoformat()),
        positions("--from", after.isoformat()),
        positions("--to", "9999-12-31T23:59:59.999999Z", "--from", "0001-01-01T00:00:00Z"),
    ) == [[1, 2, 3, 4, 5], [2, 3, 4], [5], [3], [1, 2], [4, 5], [1, 2, 3, 4, 5]]


async def test_what_is_recorded_meanwhile_is_not_part_of_it(replay: Replay, recorder: Recorder) -> None:
    """The function has another order placed while it runs; a page is full by then, so that there is a next one."""
    moves = [ShippingAddressChanged(f"address-{number}") for number in range(event_log.PAGE - 1)]
    await recorder.record("42", placed(), *moves)
    replay.write(
        "mine.py",
        """
import asyncio, os, threading
import asyncpg
from tests.orders import placed
from tests.recording import Recorder

async def place():
    connection = await asyncpg.connect(os.environ["OWNER_URL"])
    await Recorder(connection).record("43", placed())
    await connection.close()

def count(state, past):
    if state is None:
        thread = threading.Thread(target=lambda: asyncio.run(place()))
        thread.start()
        thread.join()
    return (state or 0) + 1
""",
    )
    ended = await replay("--projection", "mine:count", OWNER_URL=replay.database_url)
    assert (ended.stdout, ended.stderr) == (f"{event_log.PAGE}\n", "")
    assert (await event_log.read_head(recorder.connection)).position == event_log.PAGE + 1


async def test_an_empty_log_leaves_the_state_as_it_begins(replay: Replay) -> None:
    replay.write("mine.py", COUNT)
    assert (await replay("--projection", "mine:positions")).stdout == "null\n"


async def test_an_event_of_a_newer_program_stops_it_and_is_never_skipped(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed())
    await recorder.record_raw("42", "OrderGiftWrapped", 1, "{}")
    replay.write("mine.py", COUNT)

    message = await replay.refused(1, "--projection", "mine:positions")

    assert message.startswith("orders: stopped at position 2: unknown-event-type: Event type 'OrderGiftWrapped'")
    assert (await replay("--projection", "mine:positions", "--to", "1")).returncode == 0


async def test_a_function_that_fails_is_shown_where_and_how(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed(), paid())
    replay.write("mine.py", "def fail(state, past):\n    return {'PaymentConfirmed': 0}[past.event_type]\n")

    message = await replay.refused(1, "--projection", "mine:fail")

    assert message.startswith("orders: the projection failed at position 1 (OrderPlaced of order-42)\n")
    assert "return {'PaymentConfirmed': 0}[past.event_type]" in message
    assert message.endswith("KeyError: 'OrderPlaced'\n")
    assert "what_if.py" not in message, "the traceback begins in the user's code"


async def test_a_state_that_is_no_json_is_reported(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed())
    replay.write("mine.py", "def opaque(state, past):\n    return object()\n")
    message = await replay.refused(1, "--projection", "mine:opaque")
    assert message.startswith("orders: the final state cannot be written as JSON: ")


async def test_a_function_that_cannot_be_found_is_reported(replay: Replay) -> None:
    replay.write("mine.py", "TAX = 20\n")
    replay.write("broken.py", "def f(:\n")
    replay.write("needy.py", "import no_such_library\n")
    asked = ["mine", "absent.deeper:f", "mine:f", "mine:TAX", "broken:f", "needy:f"]
    messages = await asyncio.gather(
        *(replay.refused(2, "--projection", name) for name in asked),
        replay.refused(2, "--projection", "mine:f", "--from", "0"),
        replay.refused(2, "--projection", "mine:f", "--to", "soon"),
        replay.refused(2, "--projection", "mine:f", "--as-of", "2026-01-31T14:30:00Z"),
    )
    for text, expected in zip(
        messages,
        [
            "'mine' should be MODULE:FUNCTION",
            f"there is no module 'absent.deeper' in {replay.directory}",
            "f is not there in module 'mine'",
            "TAX is not a function in module 'mine'",
            "module 'broken' cannot be imported",
            "module 'needy' cannot be imported",
            "--from: positions begin at 1",
            "--to: 'soon' is not a position or an RFC 3339 time",
            "--as-of goes with ORDER_ID",
        ],
        strict=True,
    ):
        assert text.startswith(f"orders: {expected}")
    assert "SyntaxError" in messages[4]
    assert "No module named 'no_such_library'" in messages[5]


async def test_a_terminal_shows_how_far_it_is_and_a_pipe_only_the_result(replay: Replay, recorder: Recorder) -> None:
    await recorder.record("42", placed())
    replay.write("mine.py", COUNT)
    url = url_of(replay.database_url, "orders_auditor")
    arguments = "replay", "--projection", "mine:positions"
    shown = await asyncio.to_thread(shown_on_a_terminal, *arguments, cwd=replay.directory, env={"DATABASE_URL": url})
    assert "replaying" in shown
    piped = await replay("--projection", "mine:positions")
    assert (json.loads(piped.stdout), piped.stderr) == ([1], "")
