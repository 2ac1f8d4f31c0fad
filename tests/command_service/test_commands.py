"""The eight commands over HTTP: what each is acknowledged with, what it adds to the log, what refuses it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.aggregates.order import (
    OrderCancelled,
    OrderDelivered,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    PaymentConfirmed,
    ShippingAddressChanged,
)
from shared.eventstore import log as event_log
from tests.given_when_then import Orders, assert_acknowledges, events_of, problem, stored
from tests.orders import LAMP, TOTAL, cancelled, delivered, new_order_id, order_body, paid, placed, shipped
from tests.recording import put_in_log

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def order_id() -> str:
    return new_order_id()


class TestPlaceOrder:
    async def test_is_acknowledged_with_where_the_order_is(self, orders: Orders, order_id: str) -> None:
        answer = await orders.client.post("/orders", json=order_body(order_id=order_id))
        assert answer.status_code == 201
        assert answer.headers["location"] == f"/orders/{order_id}"
        [event] = await stored(orders.connection, order_id)
        log_id = (await event_log.read_head(orders.connection)).log_id
        assert_acknowledges(answer, event, log_id.hex)
        assert await events_of(orders.connection, order_id) == [placed()]

    async def test_makes_an_id_unless_given_one(self, orders: Orders) -> None:
        first, second = [await orders.client.post("/orders", json=order_body()) for _ in range(2)]
        ids = [answer.json()["aggregate_id"] for answer in (first, second)]
        assert ids == sorted(set(ids)), "UUIDv7 sort by time"
        assert [answer.headers["location"] for answer in (first, second)] == [f"/orders/{name}" for name in ids]
        assert await events_of(orders.connection, ids[1]) == [placed()]

    async def test_happens_once(self, orders: Orders, order_id: str) -> None:
        place = order_body(order_id=order_id)
        assert (await orders.client.post("/orders", json=place)).status_code == 201
        for _ in range(2):
            answer = await orders.client.post("/orders", json=place)
            body = problem(answer, 409, "order-already-placed")
            assert body["order_id"] == order_id
        assert len(await stored(orders.connection, order_id)) == 1

    @pytest.mark.parametrize("lines", [1, 1_114, 2_000])
    async def test_of_many_lines_works(self, orders: Orders, order_id: str, lines: int) -> None:
        """1,114 lines has the largest real invoice."""
        items = [
            {"product_id": f"P {number}", "product_name": "WHITE HANGING HEART T-LIGHT HOLDER", "quantity": 1}
            | {"unit_price": number}
            for number in range(lines)
        ]
        answer = await orders.client.post("/orders", json=order_body(order_id=order_id, items=items))
        assert answer.status_code == 201
        [event] = await events_of(orders.connection, order_id)
        assert isinstance(event, OrderPlaced)
        assert event.items == tuple(
            OrderLine(f"P {number}", 1, number, "WHITE HANGING HEART T-LIGHT HOLDER") for number in range(lines)
        )

    async def test_of_more_than_2000_lines_is_refused(self, orders: Orders) -> None:
        items = [{"product_id": "P", "quantity": 1, "unit_price": 1}] * 2_001
        body = problem(await orders.client.post("/orders", json=order_body(items=items)), 422, "invalid-request")
        assert [error["pointer"] for error in body["errors"]] == ["#/items"]

    async def test_of_a_laptop_in_rupiah_is_placed(self, orders: Orders, order_id: str) -> None:
        laptop = {"product_id": "LAPTOP", "quantity": 1_000, "unit_price": 1_000_000_000_000}
        answer = await orders.client.post("/orders", json=order_body(order_id=order_id, currency="IDR", items=[laptop]))
        assert answer.status_code == 201
        [event] = await events_of(orders.connection, order_id)
        assert isinstance(event, OrderPlaced)
        assert event.items == (OrderLine("LAPTOP", 1_000, 10**12),)

    async def test_for_a_total_that_no_double_holds_is_refused_with_its_digits(self, orders: Orders) -> None:
        dearest = {"product_id": "GOLD", "quantity": 1_000_000, "unit_price": 1_000_000_000_000}
        answer = await orders.client.post("/orders", json=order_body(currency="KWD", items=[dearest] * 2_000))
        body = problem(answer, 422, "order-total-too-large")
        assert (body["total"], body["maximum"]) == (str(2_000 * 10**18), 2**53 - 1)
        assert (body["currency"], body["currency_exponent"]) == ("KWD", 3)

    async def test_for_a_total_of_2_to_the_53_is_refused(self, orders: Orders, order_id: str) -> None:
        items = [{"product_id": "GOLD", "quantity": 1_000_000, "unit_price": 1_000_000_000}] * 10
        body = problem(
            await orders.client.post("/orders", json=order_body(order_id=order_id, items=items)),
            422,
            "order-total-too-large",
        )
        assert body["maximum"] == 2**53 - 1
        assert await stored(orders.connection, order_id) == []


class TestAddOrderItem:
    async def test_adds_a_line(self, orders: Orders) -> None:
        body = {"product_id": "PEN 2", "product_name": "Pen", "quantity": 3, "unit_price": 120}
        await (
            orders.given(placed())
            .when("POST", "/items", body)
            .then_acknowledged(OrderItemAdded(OrderLine("PEN 2", 3, 120, "Pen")))
        )

    async def test_twice_adds_two_lines(self, orders: Orders) -> None:
        body = {"product_id": "MUG", "quantity": 1, "unit_price": 0}
        line = OrderItemAdded(OrderLine("MUG", 1, 0))
        await orders.given(placed(), line).when("POST", "/items", body).then_acknowledged(line)

    async def test_beyond_2000_lines_is_refused(self, orders: Orders) -> None:
        body = {"product_id": "MUG", "quantity": 1, "unit_price": 0}
        full = orders.given(placed(*[LAMP] * 2_000))
        await full.when("POST", "/items", body).then_refused(422, "too-many-lines", maximum=2_000)

    async def test_is_refused_once_paid(self, orders: Orders) -> None:
        body = {"product_id": "MUG", "quantity": 1, "unit_price": 0}
        await orders.given(placed(), paid()).when("POST", "/items", body).then_refused(409, "order-not-pending")


class TestRemoveOrderItem:
    async def test_takes_every_line_of_the_product(self, orders: Orders) -> None:
        line = OrderItemAdded(OrderLine("85123A X", 1, 5))
        past = orders.given(placed(), line, line)
        await past.when("DELETE", "/items/85123A%20X").then_acknowledged(OrderItemRemoved("85123A X"))

    async def test_leaves_one_product(self, orders: Orders) -> None:
        await (
            orders.given(placed(LAMP))
            .when("DELETE", "/items/LAMP")
            .then_refused(409, "order-needs-a-line", product_id="LAMP")
        )

    async def test_needs_the_product_to_be_there(self, orders: Orders) -> None:
        await orders.given(placed()).when("DELETE", "/items/PEN").then_refused(404, "item-not-found", product_id="PEN")

    async def test_is_refused_once_paid(self, orders: Orders) -> None:
        await orders.given(placed(), paid()).when("DELETE", "/items/MUG").then_refused(409, "order-not-pending")


class TestChangeShippingAddress:
    async def test_sends_the_order_elsewhere(self, orders: Orders) -> None:
        body = {"shipping_address_id": "office", "reason": "moved house"}
        moved = ShippingAddressChanged("office", "moved house")
        await orders.given(placed()).when("PUT", "/shipping-address", body).then_acknowledged(moved)

    async def test_to_where_it_goes_already_changes_nothing(self, orders: Orders) -> None:
        await (
            orders.given(placed()).when("PUT", "/shipping-address", {"shipping_address_id": "home"}).then_acknowledged()
        )

    async def test_is_refused_once_shipped(self, orders: Orders) -> None:
        past = orders.given(placed(), paid(), shipped())
        body = {"shipping_address_id": "home"}
        await past.when("PUT", "/shipping-address", body).then_refused(409, "order-not-pending")


class TestConfirmPayment:
    async def test_confirms_the_order(self, orders: Orders) -> None:
        body = {"payment_reference": "pay-2", "amount": TOTAL}
        payment = PaymentConfirmed("pay-2", TOTAL)
        await orders.given(placed()).when("POST", "/payment", body).then_acknowledged(payment)

    async def test_again_changes_nothing(self, orders: Orders) -> None:
        body = {"payment_reference": "pay-1", "amount": TOTAL}
        await orders.given(placed(), paid(), shipped()).when("POST", "/payment", body).then_acknowledged()

    async def test_must_equal_the_total(self, orders: Orders) -> None:
        body = {"payment_reference": "pay-1", "amount": TOTAL - 1}
        payment = orders.given(placed()).when("POST", "/payment", body)
        await payment.then_refused(409, "payment-amount-mismatch", expected=TOTAL, given=TOTAL - 1)

    async def test_of_a_paid_order_by_other_means_is_refused(self, orders: Orders) -> None:
        body = {"payment_reference": "pay-2", "amount": TOTAL}
        await orders.given(placed(), paid()).when("POST", "/payment", body).then_refused(409, "order-not-pending")


class TestShipOrder:
    async def test_ships_a_paid_order(self, orders: Orders) -> None:
        body = {"tracking_number": "track-1", "carrier": "Royal Mail"}
        await orders.given(placed(), paid()).when("POST", "/shipment", body).then_acknowledged(shipped())

    async def test_needs_no_carrier(self, orders: Orders) -> None:
        body = {"tracking_number": "track-1"}
        await orders.given(placed(), paid()).when("POST", "/shipment", body).then_acknowledged(OrderShipped("track-1"))

    async def test_again_changes_nothing(self, orders: Orders) -> None:
        body = {"tracking_number": "track-1", "carrier": "Royal Mail"}
        await orders.given(placed(), paid(), shipped()).when("POST", "/shipment", body).then_acknowledged()

    async def test_is_refused_before_payment(self, orders: Orders) -> None:
        body = {"tracking_number": "track-1"}
        await orders.given(placed()).when("POST", "/shipment", body).then_refused(409, "order-not-confirmed")


class TestConfirmDelivery:
    async def test_delivers_a_shipped_order(self, orders: Orders) -> None:
        past = orders.given(placed(), paid(), shipped())
        await past.when("POST", "/delivery", {}).then_acknowledged(OrderDelivered())

    async def test_needs_no_body(self, orders: Orders) -> None:
        past = orders.given(placed(), paid(), shipped())
        await past.when("POST", "/delivery").then_acknowledged(OrderDelivered())

    async def test_without_a_body_is_the_same_request_as_with_an_empty_one(self, orders: Orders) -> None:
        request = orders.given(placed(), paid(), shipped()).when("POST", "/delivery", Idempotency_Key="without-body")
        first = await request.then_acknowledged(OrderDelivered())
        path, headers = f"/orders/{request.order_id}/delivery", request.headers
        again = await orders.client.post(path, json={}, headers=headers)
        assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")

    async def test_again_changes_nothing(self, orders: Orders) -> None:
        past = orders.given(placed(), paid(), shipped(), delivered())
        await past.when("POST", "/delivery", {}).then_acknowledged()

    async def test_is_refused_before_shipment(self, orders: Orders) -> None:
        await orders.given(placed(), paid()).when("POST", "/delivery", {}).then_refused(409, "order-not-shipped")


class TestCancelOrder:
    async def test_owes_nothing_back_before_payment(self, orders: Orders) -> None:
        body = {"reason": "changed my mind"}
        after = OrderCancelled("changed my mind", 0)
        await orders.given(placed()).when("POST", "/cancellation", body).then_acknowledged(after)

    async def test_owes_back_what_was_paid(self, orders: Orders) -> None:
        body = {"reason": "changed my mind"}
        after = OrderCancelled("changed my mind", TOTAL)
        await orders.given(placed(), paid()).when("POST", "/cancellation", body).then_acknowledged(after)

    async def test_again_changes_nothing(self, orders: Orders) -> None:
        body = {"reason": "ordered twice"}
        cancel = orders.given(placed()).when("POST", "/cancellation", body)
        await cancel.then_acknowledged(cancelled())
        again = await orders.client.post(f"/orders/{cancel.order_id}/cancellation", json=body)
        assert again.status_code == 200
        assert await events_of(orders.connection, cancel.order_id) == [placed(), cancelled()]

    async def test_is_refused_once_shipped(self, orders: Orders) -> None:
        past = orders.given(placed(), paid(), shipped())
        await past.when("POST", "/cancellation", {"reason": "late"}).then_refused(409, "order-not-cancellable")


ON_AN_ORDER: list[tuple[str, str, Any]] = [
    ("POST", "/items", {"product_id": "MUG", "quantity": 1, "unit_price": 0}),
    ("DELETE", "/items/MUG", None),
    ("PUT", "/shipping-address", {"shipping_address_id": "office"}),
    ("POST", "/payment", {"payment_reference": "pay-1", "amount": TOTAL}),
    ("POST", "/shipment", {"tracking_number": "track-1"}),
    ("POST", "/delivery", {}),
    ("POST", "/cancellation", {"reason": "late"}),
    ("PUT", "/lines/1", {"quantity": 1}),
    ("POST", "/payments", {"payment_reference": "pay-1", "amount": TOTAL}),
    ("POST", "/payments/pay-1/capture", {}),
    ("POST", "/payments/pay-1/void", {}),
    ("POST", "/refunds", {"payment_reference": "pay-1", "amount": 1, "reason": "late"}),
    ("POST", "/shipments", {"tracking_number": "track-1", "lines": [{"line_id": "1", "quantity": 1}]}),
    ("POST", "/shipments/1/delivery", {}),
    ("POST", "/returns", {"lines": [{"line_id": "1", "quantity": 1}], "reason": "broken"}),
    ("POST", "/returns/1/receipt", {"lines": [{"line_id": "1", "quantity": 1, "restock": True}]}),
    ("POST", "/hold", {"reason": "late"}),
    ("DELETE", "/hold", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ON_AN_ORDER, ids=lambda value: str(value)[:20])
async def test_an_order_that_was_never_placed_is_not_found(orders: Orders, method: str, path: str, body: Any) -> None:
    await orders.given().when(method, path, body).then_refused(404, "order-not-found")


class TestExpectedVersion:
    async def test_of_now_is_accepted(self, orders: Orders) -> None:
        past = orders.given(placed(), paid())
        answer = await past.when("POST", "/shipment", {"tracking_number": "t"}, If_Match='"2"').then_acknowledged(
            OrderShipped("t")
        )
        assert answer.headers["etag"] == '"3"'

    async def test_of_now_in_an_entity_tag_of_the_query_service_is_accepted(self, orders: Orders) -> None:
        head = await event_log.read_head(orders.connection)
        past = orders.given(placed(), paid())
        shipment = past.when("POST", "/shipment", {"tracking_number": "t"}, If_Match=f'"2-7-{head.log_id.hex}"')
        await shipment.then_acknowledged(OrderShipped("t"))

    async def test_of_another_log_is_refused(self, orders: Orders) -> None:
        past = orders.given(placed(), paid())
        shipment = past.when("POST", "/shipment", {"tracking_number": "t"}, If_Match=f'"2-1-{"0" * 32}"')
        await shipment.then_refused(412, "stale-version", expected=2)

    @pytest.mark.parametrize("bad", ['"2-1"', '"2-1-"', '"2-0-{log}"', '"2-1-{log}0"', '"-1-{log}"', '"{log}"'])
    async def test_in_what_is_no_entity_tag_is_malformed(self, orders: Orders, bad: str) -> None:
        tag = bad.format(log="5f0c6f5e0d3c4e0fb7a1d0f8f2d0a9c4")
        answer = await orders.client.post("/orders/1/delivery", json={}, headers={"If-Match": tag})
        assert problem(answer, 400, "malformed-header")["header"] == "If-Match"

    async def test_any_is_accepted(self, orders: Orders) -> None:
        past = orders.given(placed(), paid())
        await past.when("POST", "/shipment", {"tracking_number": "t"}, If_Match="*").then_acknowledged(
            OrderShipped("t")
        )

    @pytest.mark.promise("commands", "`If-Match` is always checked, also where an order is placed")
    @pytest.mark.parametrize("stale", [0, 1, 3, 9_999_999_999])
    async def test_of_another_time_is_refused(self, orders: Orders, stale: int) -> None:
        past = orders.given(placed(), paid())
        shipment = past.when("POST", "/shipment", {"tracking_number": "t"}, If_Match=f'"{stale}"')
        await shipment.then_refused(412, "stale-version", expected=stale, current=2)

    async def test_of_another_time_is_refused_where_nothing_would_change(self, orders: Orders) -> None:
        move = {"shipping_address_id": "home"}
        stale = orders.given(placed()).when("PUT", "/shipping-address", move, If_Match='"7"')
        await stale.then_refused(412, "stale-version", current=1)

    async def test_is_compared_with_the_log_not_with_what_is_remembered(self, orders: Orders) -> None:
        order_id = (await orders.client.post("/orders", json=order_body())).json()["aggregate_id"]
        # The service has version 1 in its cache; another writes version 2.
        await put_in_log(orders.connection, f"order-{order_id}", paid(), after=1)
        url = f"/orders/{order_id}/shipment"
        stale = await orders.client.post(url, json={"tracking_number": "t"}, headers={"If-Match": '"1"'})
        assert problem(stale, 412, "stale-version")["current"] == 2
        fresh = await orders.client.post(url, json={"tracking_number": "t"}, headers={"If-Match": '"2"'})
        assert fresh.status_code == 200

    @pytest.mark.parametrize("malformed", ["2", '"2', '"two"', '"-1"', '"02"', '"1", "2"', '""', '"99999999999"'])
    async def test_that_cannot_be_read_is_said_so(self, orders: Orders, malformed: str) -> None:
        past = orders.given(placed(), paid())
        shipment = past.when("POST", "/shipment", {"tracking_number": "t"}, If_Match=malformed)
        await shipment.then_refused(400, "malformed-header", header="If-Match")


class TestExpectedVersionOfANewOrder:
    """It is at version 0. What If-Match asks for is never passed over."""

    async def test_of_none_is_accepted_once(self, orders: Orders, order_id: str) -> None:
        place, new = order_body(order_id=order_id), {"If-Match": '"0"'}
        assert (await orders.client.post("/orders", json=place, headers=new)).status_code == 201
        again = problem(await orders.client.post("/orders", json=place, headers=new), 412, "stale-version")
        assert (again["expected"], again["current"]) == (0, 1)
        assert await events_of(orders.connection, order_id) == [placed()]

    @pytest.mark.promise("commands", "`If-Match` is always checked, also where an order is placed")
    @pytest.mark.parametrize("other", ['"1"', '"7"', "*"])
    async def test_of_one_that_is_there_is_refused(self, orders: Orders, order_id: str, other: str) -> None:
        for place in (order_body(order_id=order_id), order_body()):
            answer = await orders.client.post("/orders", json=place, headers={"If-Match": other})
            problem(answer, 412, "stale-version")
        assert await stored(orders.connection, order_id) == []

    async def test_that_fits_one_that_is_there_does_not_place_it_again(self, orders: Orders, order_id: str) -> None:
        place = order_body(order_id=order_id)
        assert (await orders.client.post("/orders", json=place)).status_code == 201
        answer = await orders.client.post("/orders", json=place, headers={"If-Match": '"1"'})
        problem(answer, 409, "order-already-placed")

    @pytest.mark.parametrize("malformed", ["0", "none", '"0", "1"'])
    async def test_that_cannot_be_read_is_said_so(self, orders: Orders, malformed: str) -> None:
        answer = await orders.client.post("/orders", json=order_body(), headers={"If-Match": malformed})
        assert problem(answer, 400, "malformed-header")["header"] == "If-Match"

    async def test_belongs_to_the_request_that_a_key_stands_for(self, orders: Orders, order_id: str) -> None:
        place, headers = order_body(order_id=order_id), {"If-Match": '"0"', "Idempotency-Key": order_id}
        first, again = [await orders.client.post("/orders", json=place, headers=headers) for _ in range(2)]
        assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        bare = await orders.client.post("/orders", json=place, headers={"Idempotency-Key": order_id})
        problem(bare, 422, "idempotency-key-reused")


class TestBusinessTime:
    LONG_AGO = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)

    async def test_is_kept_with_the_event_in_utc(self, orders: Orders, order_id: str) -> None:
        body = order_body(order_id=order_id, occurred_at="2010-12-01T10:26:00.1234567+02:00")
        assert (await orders.client.post("/orders", json=body)).status_code == 201
        [event] = await stored(orders.connection, order_id)
        assert event.occurred_at == datetime(2010, 12, 1, 8, 26, 0, 123456, tzinfo=UTC)
        assert event.recorded_at > event.occurred_at
        assert "occurred_at" not in json.loads(event.data)

    async def test_is_now_unless_given(self, orders: Orders, order_id: str) -> None:
        before = datetime.now(UTC)
        await orders.client.post("/orders", json=order_body(order_id=order_id))
        [event] = await stored(orders.connection, order_id)
        assert before <= event.occurred_at <= datetime.now(UTC)

    @pytest.mark.parametrize(
        ("method", "path", "body", "past"),
        [
            ("POST", "/items", {"product_id": "MUG", "quantity": 1, "unit_price": 0}, [placed()]),
            ("PUT", "/shipping-address", {"shipping_address_id": "office"}, [placed()]),
            ("POST", "/payment", {"payment_reference": "pay-1", "amount": TOTAL}, [placed()]),
            ("POST", "/shipment", {"tracking_number": "t"}, [placed(), paid()]),
            ("POST", "/delivery", {}, [placed(), paid(), shipped()]),
            ("POST", "/cancellation", {"reason": "late"}, [placed()]),
        ],
        ids=lambda value: str(value)[:20],
    )
    async def test_comes_with_every_command(
        self, orders: Orders, method: str, path: str, body: dict[str, Any], past: list[Any]
    ) -> None:
        order = orders.given(*past, at=self.LONG_AGO)
        later = self.LONG_AGO + timedelta(days=1)
        command = order.when(method, path, {**body, "occurred_at": later.isoformat()})
        assert (await command.answer()).status_code == 200
        assert (await stored(orders.connection, command.order_id))[-1].occurred_at == later
        early = {**body, "occurred_at": "2010-12-01T08:25:59Z"}
        if "payment_reference" in body:  # it belongs to the first order now
            early["payment_reference"] = "pay-early"
        too_early = order.when(method, path, early)
        await too_early.then_refused(409, "occurred-before-previous-event")

    async def test_may_be_that_of_the_previous_event(self, orders: Orders) -> None:
        body = {"tracking_number": "t", "occurred_at": self.LONG_AGO.isoformat()}
        past = orders.given(placed(), paid(), at=self.LONG_AGO)
        await past.when("POST", "/shipment", body).then_acknowledged(OrderShipped("t"))

    async def test_of_a_repeated_command_may_lie_before_what_followed(self, orders: Orders) -> None:
        """It changes nothing, so nothing happened out of order."""
        past = orders.given(placed(), paid(), shipped(), delivered(), at=self.LONG_AGO)
        body = {"tracking_number": "track-1", "carrier": "Royal Mail", "occurred_at": "2010-12-01T08:00:00Z"}
        await past.when("POST", "/shipment", body).then_acknowledged()

    async def test_may_be_half_a_minute_ahead_and_not_two(self, orders: Orders) -> None:
        ahead = {"reason": "late", "occurred_at": (datetime.now(UTC) + timedelta(seconds=30)).isoformat()}
        await orders.given(placed()).when("POST", "/cancellation", ahead).then_acknowledged(OrderCancelled("late", 0))
        far = {"reason": "late", "occurred_at": (datetime.now(UTC) + timedelta(minutes=2)).isoformat()}
        await orders.given(placed()).when("POST", "/cancellation", far).then_refused(422, "occurred-in-the-future")

    async def test_does_not_run_backwards_after_an_event_from_a_faster_clock(self, orders: Orders) -> None:
        ahead = datetime.now(UTC) + timedelta(seconds=50)
        command = orders.given(placed(), at=ahead).when("POST", "/cancellation", {"reason": "late"})
        await command.then_acknowledged(OrderCancelled("late", 0))
        assert [event.occurred_at for event in await stored(orders.connection, command.order_id)] == [ahead, ahead]


class TestMetadata:
    async def test_says_who_relates_to_whom(self, orders: Orders, order_id: str) -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        headers = {"X-Correlation-ID": "checkout/42", "traceparent": trace}
        answer = await orders.client.post("/orders", json=order_body(order_id=order_id), headers=headers)
        [event] = await stored(orders.connection, order_id)
        assert json.loads(event.metadata) == {
            "command_id": answer.json()["command_id"],
            "command": "PlaceOrder",
            "correlation_id": "checkout/42",
            "causation_id": answer.json()["command_id"],
            "traceparent": trace,
        }

    async def test_names_what_led_to_the_command(self, orders: Orders) -> None:
        cause = "01977f6e-5c3a-7d21-9f0b-2f6f0c1f7a55"  # the id of an event, say
        past = orders.given(placed(), paid())
        shipment = past.when("POST", "/shipment", {"tracking_number": "t"}, X_Causation_ID=cause)
        answer = await shipment.then_acknowledged(OrderShipped("t"))
        metadata = json.loads((await stored(orders.connection, shipment.order_id))[-1].metadata)
        assert metadata["causation_id"] == cause
        assert metadata["command_id"] == answer.json()["command_id"]

    @pytest.mark.parametrize("unfit", ["", "with space", "x" * 129, "é"])
    async def test_that_would_name_no_cause_is_refused(self, orders: Orders, order_id: str, unfit: str) -> None:
        headers = [(b"X-Causation-ID", unfit.encode())]
        answer = await orders.client.post("/orders", json=order_body(order_id=order_id), headers=headers)
        assert problem(answer, 400, "malformed-header")["header"] == "X-Causation-ID"
        assert await stored(orders.connection, order_id) == []

    async def test_holds_a_correlation_id_of_ours_where_none_was_sent(self, orders: Orders, order_id: str) -> None:
        answer = await orders.client.post("/orders", json=order_body(order_id=order_id))
        [event] = await stored(orders.connection, order_id)
        assert json.loads(event.metadata)["correlation_id"] == answer.headers["x-correlation-id"]

    @pytest.mark.parametrize(
        "trace",
        [
            "nonsense",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ],
    )
    async def test_leaves_out_a_trace_that_is_none(self, orders: Orders, order_id: str, trace: str) -> None:
        await orders.client.post("/orders", json=order_body(order_id=order_id), headers={"traceparent": trace})
        [event] = await stored(orders.connection, order_id)
        assert "traceparent" not in json.loads(event.metadata)


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [("checkout-42", True), ("!" * 128, True), ("!" * 129, False), ("with space", False), ("", False), ("é", False)],
)
async def test_a_correlation_id_is_echoed_and_an_unfit_one_replaced(orders: Orders, sent: str, echoed: bool) -> None:
    for path in ("/livez", "/nowhere"):
        answer = await orders.client.get(path, headers=[(b"X-Correlation-ID", sent.encode())])
        [correlation_id] = answer.headers.get_list("x-correlation-id")
        assert (correlation_id == sent) is echoed
        assert correlation_id
