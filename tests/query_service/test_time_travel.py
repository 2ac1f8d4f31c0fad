"""GET /orders/{order_id}?as_of=&known_at=."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck
from hypothesis import given as for_all
from hypothesis import settings as effort
from hypothesis import strategies as st

from shared.aggregates.order import ShippingAddressChanged
from tests.given_when_then import problem
from tests.lives import EPOCH, MICROSECOND, Happening, bytes_of, included, instants, live, lives, projected
from tests.orders import LAMP, MUG, new_order_id, paid, place, placed, shipped
from tests.query_service.past import Past, past, shared_past
from tests.query_service.reads import etag, token_now

__all__ = ["past", "shared_past"]  # fixtures

# One database and one query service for the module: an order of its own is all that a test needs.
pytestmark = pytest.mark.asyncio(loop_scope="module")

Shop = tuple[httpx.AsyncClient, httpx.AsyncClient]


async def then(past: Past, **times: datetime | None) -> httpx.Response:
    given = {name: time.isoformat() for name, time in times.items() if time is not None}
    return await past.queries.get(past.path, params=given)


@pytest.mark.promise("queries", "Time travel shows an order as it was at every instant of both times")
@for_all(life=lives(), data=st.data())
@effort(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_order_is_shown_as_it_was_at_every_instant(
    life: list[Happening], data: st.DataObject, past: Past
) -> None:
    past = past._replace(order_id=new_order_id())  # each example has its own
    rows = await live(past.recorder, past.order_id, life)
    occurred = instants([row.occurred_at for row in rows])
    recorded = instants([row.recorded_at for row in rows])
    both = data.draw(st.lists(st.tuples(st.sampled_from(occurred), st.sampled_from(recorded)), max_size=10))
    for as_of, known_at in [*((at, None) for at in occurred), *((None, at) for at in recorded), *both]:
        if as_of is None and known_at is None:
            continue
        answer = await then(past, as_of=as_of, known_at=known_at)
        document = projected(past.order_id, included(rows, as_of, known_at))
        if document is None:
            problem(answer, 404, "order-not-found")
        else:
            assert answer.content == bytes_of(document)
            assert answer.headers["etag"] == etag(document.version, answer.headers["consistency-token"])


@pytest.mark.asyncio(loop_scope="function")
async def test_as_of_now_equals_the_document_of_the_read_model_byte_for_byte(shop: Shop) -> None:
    commands, queries = shop
    for steps in (
        [],
        [("items", {"product_id": "PEN", "quantity": 3, "unit_price": 0})],
        [("payment", {"payment_reference": "p", "amount": 3_499}), ("shipment", {"tracking_number": "Grüße"})],
        [("payment", {"payment_reference": "q", "amount": 3_499}), ("cancellation", {"reason": "ordered twice"})],
    ):
        done = await place(commands)
        path = done.headers["location"]
        for step, body in steps:
            done = await commands.post(f"{path}/{step}", json=body)
        token = {"Consistency-Token": done.headers["consistency-token"]}
        now = await queries.get(path, headers=token)
        assert now.status_code == 200
        for name in ("as_of", "known_at"):
            as_of_now = await queries.get(path, params={name: datetime.now(UTC).isoformat()}, headers=token)
            assert as_of_now.content == now.content
            assert as_of_now.headers["etag"] == now.headers["etag"]
            assert as_of_now.headers["content-type"] == now.headers["content-type"]


async def test_what_occurred_at_the_very_instant_has_happened(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(MUG, LAMP), occurred_at=EPOCH)
    await past.recorder.record(past.order_id, paid(), occurred_at=EPOCH + MICROSECOND)

    assert (await then(past, as_of=EPOCH)).json()["status"] == "PENDING"
    assert (await then(past, as_of=EPOCH + MICROSECOND)).json()["status"] == "CONFIRMED"


async def test_before_it_existed_it_is_404_which_says_as_of_when(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(), occurred_at=EPOCH)

    answer = await then(past, as_of=EPOCH - MICROSECOND, known_at=EPOCH)

    detail = problem(answer, 404, "order-not-found")["detail"]
    when = "as of 2026-01-31T14:29:59.999999Z, known at 2026-01-31T14:30:00Z"
    assert detail == f"There was no order {past.order_id!r} {when}."
    assert answer.headers["consistency-token"] == await token_now(past.recorder)


async def test_a_backdated_order_was_not_known_before_it_was_recorded(past: Past) -> None:
    """The shop took the order on paper in January, typed it in today, and got the payment's notice after that."""
    await past.recorder.record(past.order_id, placed(), occurred_at=EPOCH)
    typed_in = await _recorded_at(past)
    await past.recorder.record(past.order_id, paid(), occurred_at=EPOCH + timedelta(days=1))
    noticed = await _recorded_at(past)
    assert typed_in < noticed

    in_february = EPOCH + timedelta(days=20)
    # What we know now of February, and what we knew of it at each time.
    assert (await then(past, as_of=in_february)).json()["status"] == "CONFIRMED"
    answer = await then(past, as_of=in_february, known_at=typed_in)
    assert answer.json()["status"] == "PENDING"
    problem(await then(past, as_of=in_february, known_at=typed_in - MICROSECOND), 404, "order-not-found")
    problem(await then(past, known_at=in_february), 404, "order-not-found")
    # Known by then, but it had not happened by then.
    answer = await then(past, as_of=EPOCH, known_at=noticed)
    assert answer.json()["status"] == "PENDING"


async def _recorded_at(past: Past) -> datetime:
    at = await past.recorder.connection.fetchval(
        "select max(recorded_at) from events where stream_id = $1", f"order-{past.order_id}"
    )
    assert isinstance(at, datetime)
    return at


async def test_what_was_known_at_a_time_does_not_change_whatever_is_recorded_later(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(), occurred_at=EPOCH)
    known_at = await _recorded_at(past)
    before = await then(past, as_of=EPOCH, known_at=known_at)
    await past.recorder.record(past.order_id, paid(), shipped(), occurred_at=EPOCH)  # backdated to the same instant

    assert (await then(past, as_of=EPOCH, known_at=known_at)).content == before.content
    assert (await then(past, as_of=EPOCH)).json()["status"] == "SHIPPED"


async def test_any_offset_and_precision_of_rfc_3339_will_do(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(), occurred_at=EPOCH)
    await past.recorder.record(past.order_id, paid(), occurred_at=EPOCH + MICROSECOND)
    for written in ("2026-01-31T14:30:00Z", "2026-01-31t15:30:00.0000009+01:00"):
        answer = await past.queries.get(past.path, params={"as_of": written})
        assert answer.json()["version"] == 1


async def test_a_client_that_has_that_version_need_not_fetch_it_again(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(), occurred_at=EPOCH)
    known = {"If-None-Match": etag(1, await token_now(past.recorder))}
    answer = await past.queries.get(past.path, params={"as_of": EPOCH.isoformat()}, headers=known)
    assert (answer.status_code, answer.content) == (304, b"")


BAD_TIMES = [
    "",
    "yesterday",
    "2026-01-31",
    "2026-01-31T14:30:00",
    "2026-01-31T14:30Z",
    "2026-02-30T14:30:00Z",
    "2026-01-31T14:30:00 01:00",  # a `+` that was not written %2B
    "1769869800",
    "0001-01-01T00:00:00+01:00",
]


async def test_a_time_that_is_not_rfc_3339_is_422(past: Past) -> None:
    for name, bad in itertools.product(["as_of", "known_at"], BAD_TIMES):
        answer = await past.queries.get(past.path, params={name: bad})
        [error] = problem(answer, 422, "invalid-request")["errors"]
        assert error["pointer"] == f"query/{name}", bad
        assert ("%2B" in error["detail"]) == (bad == "2026-01-31T14:30:00 01:00"), bad


async def test_a_time_given_twice_is_400(past: Past) -> None:
    answer = await past.queries.get(f"{past.path}?as_of=2020-01-01T00:00:00Z&as_of=2021-01-01T00:00:00Z")
    assert problem(answer, 400, "malformed-query")["parameter"] == "as_of"


async def test_a_time_in_the_future_is_422(past: Past) -> None:
    for name in ("as_of", "known_at"):
        answer = await past.queries.get(past.path, params={name: "2999-12-31T23:59:59Z"})
        body = problem(answer, 422, "time-in-the-future")
        [error] = body["errors"]
        assert (error["pointer"], error["code"]) == (f"query/{name}", "time-in-the-future")
        assert error["params"]["now"] in error["detail"]
        assert "2999-12-31T23:59:59Z is later than now" in body["detail"]


async def test_clocks_may_differ_by_up_to_a_minute(past: Past) -> None:
    """As for commands: an event may have occurred ahead of our clock, and can be asked for."""
    ahead = datetime.now(UTC) + timedelta(seconds=50)
    await past.recorder.record(past.order_id, placed(), occurred_at=ahead)
    assert (await then(past, as_of=ahead)).status_code == 200
    late = await then(past, as_of=datetime.now(UTC) + timedelta(seconds=70))
    problem(late, 422, "time-in-the-future")


async def test_an_event_that_this_program_cannot_decode_is_an_error_only_from_its_time_on(past: Past) -> None:
    await past.recorder.record(past.order_id, placed(), occurred_at=EPOCH)
    await past.recorder.record_raw(past.order_id, "OrderGiftWrapped", 1, "{}")

    assert (await then(past, as_of=EPOCH)).status_code == 200
    answer = await then(past, as_of=datetime.now(UTC))
    assert "OrderGiftWrapped" in problem(answer, 500, "unknown-event-type")["detail"]


async def test_a_long_stream_is_read_to_its_end(past: Past) -> None:
    moves = [ShippingAddressChanged(f"address-{number}") for number in range(2_500)]
    await past.recorder.record(past.order_id, placed(), *moves, occurred_at=EPOCH)
    document = (await then(past, as_of=EPOCH)).json()
    assert (document["version"], document["shipping_address_id"]) == (2_501, "address-2499")


async def test_one_snapshot_holds_the_answer_and_its_token(past: Past) -> None:
    """While events arrive, the answer shows exactly the version that its token names."""
    before = await past.recorder.record(past.order_id, placed(), occurred_at=EPOCH) - 1

    async def keep_moving() -> None:
        for number in range(100):
            await past.recorder.record(past.order_id, ShippingAddressChanged(f"address-{number}"))

    moving = asyncio.create_task(keep_moving())
    seen: set[int] = set()
    while not moving.done():
        answer = await then(past, as_of=datetime.now(UTC) + timedelta(seconds=30))
        version: Any = answer.json()["version"]
        assert answer.headers["consistency-token"].endswith(f"-{before + version}"), "nothing else is recorded"
        seen.add(version)
    await moving
    assert len(seen) > 1
