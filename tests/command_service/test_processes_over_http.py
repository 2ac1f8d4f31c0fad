"""What operators do about processes, over HTTP."""

from __future__ import annotations

import httpx

from shared.aggregates.order import ORDER, Order, OrderStatus
from shared.aggregates.process import PROCESS, Process, ProcessStarted, ProcessStuck
from shared.eventstore.snapshots import Snapshots
from shared.eventstore.store import PostgresEventStore
from tests.given_when_then import problem
from tests.orders import place
from tests.recording import Connection, put_in_log

LONG = "x" * 64  # as long as the id of an order may be


async def stuck(commands: httpx.AsyncClient, connection: Connection, order_id: str = LONG) -> str:
    """The id of a fulfilment that failed when it began."""
    await place(commands, order_id=order_id)
    process_id = f"fulfilment-{order_id}"
    started = ProcessStarted("fulfilment", order_id, 1)
    await put_in_log(connection, PROCESS.stream_of(process_id), started, ProcessStuck("SubjectChanged: KeyError"))
    return process_id


async def process_of(connection: Connection, process_id: str) -> Process:
    loaded = await Snapshots(PostgresEventStore(connection), None).load(PROCESS, PROCESS.stream_of(process_id))
    assert isinstance(loaded.state, Process)
    return loaded.state


async def order_of(connection: Connection, order_id: str = LONG) -> Order:
    loaded = await Snapshots(PostgresEventStore(connection), None).load(ORDER, ORDER.stream_of(order_id))
    assert isinstance(loaded.state, Order)
    return loaded.state


async def test_a_stuck_process_is_retried_once(commands: httpx.AsyncClient, connection: Connection) -> None:
    process_id = await stuck(commands, connection)
    path, key = f"/processes/{process_id}/retry", {"Idempotency-Key": "retry-1"}

    answers = [await commands.post(path, headers=key) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["aggregate_id"] == process_id
    process = await process_of(connection, process_id)
    assert (process.stuck, [one.effect for one in process.effects.values()]) == (None, ["Authorise"])
    refused = problem(await commands.post(path), 409, "process-not-stuck")
    assert (refused["process_id"], refused["state"]) == (process_id, "running")


async def test_a_skipped_step_moves_the_order(commands: httpx.AsyncClient, connection: Connection) -> None:
    process_id = await stuck(commands, connection)

    skipped = await commands.post(f"/processes/{process_id}/skip", json={"outcome": "Authorised"})

    assert skipped.status_code == 200, skipped.text
    assert (await order_of(connection)).status is OrderStatus.CONFIRMED
    history = await connection.fetch("select event_type, metadata from events where stream_id like 'process-%'")
    told = {row["event_type"]: row["metadata"] for row in history}
    assert '"command":"SkipStep"' in told["StepSkipped"]


async def test_a_compensated_process_cancels_its_order(commands: httpx.AsyncClient, connection: Connection) -> None:
    process_id = await stuck(commands, connection)
    path = f"/processes/{process_id}/compensate"

    assert (await commands.post(path)).status_code == 200

    assert (await order_of(connection)).status is OrderStatus.CANCELLED
    assert problem(await commands.post(path), 409, "process-ended")["outcome"] == "cancelled"
    problem(await commands.post(f"/processes/{process_id}/retry"), 409, "process-not-stuck")


async def test_what_cannot_be_done_is_refused_with_what_can(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    path = f"/processes/{await stuck(commands, connection)}/skip"

    other = problem(await commands.post(path, json={"outcome": "Refunded"}), 422, "outcome-not-offered")
    nothing = problem(await commands.post(path, json={"timer": "payment"}), 409, "step-not-found")

    assert (other["effect"], other["offered"]) == ("Authorise", ["Authorised", "Declined"])
    assert (nothing["effects"], nothing["timers"]) == ({}, [])
    for body in ({}, {"outcome": "Refunded", "timer": "payment"}, {"outcome": ""}, {"outcome": "A B"}):
        problem(await commands.post(path, json=body), 422, "invalid-request")
    for change in ("retry", "compensate"):
        problem(await commands.post(f"/processes/fulfilment-none/{change}"), 404, "process-not-found")
    problem(await commands.post("/processes/none/skip", json={"timer": "payment"}), 404, "process-not-found")


async def test_an_operator_decides_on_the_version_that_it_saw(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    path = f"/processes/{await stuck(commands, connection)}/retry"
    problem(await commands.post(path, headers={"If-Match": '"1"'}), 412, "stale-version")
    assert (await commands.post(path, headers={"If-Match": '"2"'})).status_code == 200
