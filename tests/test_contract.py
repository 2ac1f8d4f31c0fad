"""Schemathesis sends both services what their OpenAPI documents allow and what they do not.

Never a 5xx, never an answer whose status, content type, headers or body the document does not list.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest
import schemathesis
import uvloop
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core import NOT_SET
from schemathesis.generation import GenerationMode
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from uuid_utils import uuid7

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.http.fields import ID_PATTERN
from shared.settings import Settings
from tests.catalogue import LANTERN
from tests.customers import PERSON
from tests.documented import Document, body_example, parameter_examples, read_document
from tests.openapi import path_of
from tests.orders import TOTAL, order_body
from tests.running import fresh_database, running_stack, settings_for

pytestmark = pytest.mark.timeout(180)  # hundreds of cases of one operation

Case: TypeAlias = "schemathesis.Case[Any]"
Operation: TypeAlias = "APIOperation[Any, Any, Any, Any]"

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
ORDER_ID, CUSTOMER_ID = "contract", "contract-customer"
KNOWN = {
    "order_id": ORDER_ID,
    "customer_id": CUSTOMER_ID,
    "product_id": "MUG",
    "line_id": "1",
    "payment_reference": "pay-1",
    "shipment_id": "parcel-1",
    "return_id": "return-1",
    "address_id": "home",
    "payment_method_id": "card",
}
STEPS: dict[str, dict[str, object]] = {
    "items": {"product_id": "PEN", "quantity": 1, "unit_price": 1},
    "payment": {"payment_reference": "pay-1", "amount": TOTAL},
    "payments": {"payment_reference": "pay-1", "amount": TOTAL, "captured": False},
    "payments/{payment_reference}/capture": {},
    "shipment": {"tracking_number": "track-1"},
    "shipments": {
        "shipment_id": "parcel-1",
        "tracking_number": "track-1",
        "lines": [{"line_id": "1", "quantity": 1}],
    },
    "returns": {"return_id": "return-1", "lines": [{"line_id": "1", "quantity": 1}], "reason": "broken"},
    "hold": {"reason": "checked"},
}
COMMANDS, QUERIES = read_document("command"), read_document("query")
LONG_AGO = {"occurred_at": "0001-01-02T00:00:00Z"}
# What an order must have been through before the command on it is right.
BEFORE = {
    "/orders/{order_id}/items/{product_id}": ["items"],
    "/orders/{order_id}/payments/{payment_reference}/capture": ["payments"],
    "/orders/{order_id}/payments/{payment_reference}/void": ["payments"],
    "/orders/{order_id}/refunds": ["payments", "payments/{payment_reference}/capture"],
    "/orders/{order_id}/shipment": ["payment"],
    "/orders/{order_id}/shipments": ["payment"],
    "/orders/{order_id}/shipments/{shipment_id}/delivery": ["payment", "shipments"],
    "/orders/{order_id}/returns": ["payment", "shipment"],
    "/orders/{order_id}/returns/{return_id}/receipt": ["payment", "shipment", "returns"],
    "/orders/{order_id}/delivery": ["payment", "shipment"],
}
CONFIG = schemathesis.Config.from_dict({"generation": {"mode": "all", "max-examples": 20, "deterministic": True}})


def without_security(service: str) -> dict[str, Any]:
    """The document as far as it concerns a stack with AUTH=off, which reads no token."""
    document: dict[str, Any] = json.loads(path_of(service).read_text("utf-8"))
    for item in document["paths"].values():
        for operation in item.values():
            operation["security"] = []
    return document


command = schemathesis.openapi.from_dict(without_security("command"), config=CONFIG)
query = schemathesis.openapi.from_dict(without_security("query"), config=CONFIG)

BOUNDED = settings(
    max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


@pytest.fixture(scope="module")
def stack(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Iterator[Settings]:
    """A running stack in a thread of its own: schemathesis blocks."""
    started: list[Settings] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with fresh_database(postgres.url) as database_url:
            running = settings_for(database_url, valkey.url, token_wait_seconds=0.1)  # most positions are made up
            async with running_stack(running):
                started.append(running)
                ready.set()
                await stop.wait()

    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    thread = threading.Thread(target=runner.run, args=(run(),))
    thread.start()
    assert ready.wait(20), "the stack did not start"
    [running] = started
    yield running
    runner.get_loop().call_soon_threadsafe(stop.set)
    thread.join(20)
    runner.close()


@pytest.fixture(scope="module", autouse=True)
def customer(stack: Settings) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url_of(stack.command_port), timeout=30) as client:
        place(client, order_id=ORDER_ID)
        registered = client.post("/customers", json={"customer_id": CUSTOMER_ID, **PERSON})
        assert registered.status_code == 201, registered.text
        yield client


def url_of(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def place(customer: httpx.Client, *steps: str, **changes: str) -> str:
    """The id of an order that was taken so far, long ago: what is said of it now has occurred since."""
    body = order_body(customer_id=CUSTOMER_ID, **LONG_AGO, **changes)
    answers = [customer.post("/orders", json=body)]
    order_id = str(answers[0].json()["aggregate_id"])
    for step in steps:
        said = STEPS[step] | LONG_AGO
        if "payment_reference" in said:  # it belongs to one order
            said["payment_reference"] = order_id
        path = step.format(payment_reference=order_id)
        answers.append(customer.post(f"/orders/{order_id}/{path}", json=said))
    assert all(answer.is_success for answer in answers), [answer.text for answer in answers]
    return order_id


def aimed(case: Case) -> Case:
    """Where the case has fit ids, those of an order that is there: an answer is then more often than not a 404."""
    for name in KNOWN.keys() & case.path_parameters.keys():
        if re.fullmatch(ID_PATTERN.replace("$", ""), str(case.path_parameters[name])):
            case.path_parameters[name] = KNOWN[name]
    if case.headers.get("Prefer") == "wait=5":  # the example: no need to wait so long for what never comes
        case.headers["Prefer"] = "wait=1"
    return case


def aimed_at_a_fitting_order(case: Case, customer: httpx.Client) -> Case:
    """The same, with an order of its own that the command is right for: it is carried out more often than refused.

    What the document does not allow is refused whatever the order has been through.
    """
    is_allowed = case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE
    if aimed(case).path_parameters.get("order_id") == ORDER_ID and is_allowed:
        case.path_parameters["order_id"] = order_id = place(customer, *BEFORE.get(case.path, ()))
        if case.path_parameters.get("payment_reference") == KNOWN["payment_reference"]:
            case.path_parameters["payment_reference"] = order_id
    if case.path.endswith("/payment") and isinstance(case.body, dict) and type(case.body.get("amount")) is int:
        case.body["amount"] = TOTAL
    return case


def only_how_streams_begin(response: Any, **_: Any) -> None:
    """An event stream never ends. Schemathesis would read it until its time is over."""
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        response.close()


STREAMS = {"response": only_how_streams_begin}


# As the tour of the README leaves them, with the steps that it takes.
TOURED: dict[str, list[tuple[str, int, int]]] = {
    "tour": [("85123A", 6, 255), ("71053", 1, 339)],
    "536365": [("85123A", 6, 255), ("71053", 6, 339)],
    "536366": [("22633", 6, 185), ("22632", 6, 185)],
    "536369": [("21756", 3, 595)],
    "536372": [("22632", 6, 185), ("22633", 6, 185)],
}


def place_what_the_examples_name(customer: httpx.Client) -> None:
    names = "product_id", "quantity", "unit_price"
    for order_id, lines in TOURED.items():
        items = [dict(zip(names, line, strict=True)) for line in lines]
        customer.post("/orders", json=order_body(order_id=order_id, customer_id="17850", items=items))
    for step, body in (
        ("payment", {"payment_reference": "pay-1", "amount": 1_869}),
        ("shipment", STEPS["shipment"]),
    ):
        taken = customer.post(f"/orders/tour/{step}", json=body)
        assert taken.is_success, taken.text
    for account_id in ("alice-main", "alice-savings"):
        account = {"account_id": account_id, "owner_id": "alice", "currency": "GBP"}
        opened = customer.post("/accounts", json=account | {"occurred_at": "2026-01-01T09:00:00Z"})
        assert opened.is_success, opened.text
    registered = customer.post("/customers", json={"customer_id": "ada", **PERSON})
    assert registered.is_success, registered.text
    saved = customer.put("/products/OLD LANTERN", json=LANTERN)
    assert saved.is_success, saved.text
    deposit = customer.post("/accounts/alice-main/deposits", json={"amount": 5_000, "reference": "salary 2026-01"})
    assert deposit.is_success, deposit.text


@pytest.mark.promise("commands", "The documented examples work")
def test_the_examples_of_commands_are_carried_out_and_those_of_queries_answered(
    stack: Settings, customer: httpx.Client
) -> None:
    """First in this file: schemathesis opens accounts with the ids of the examples, in other currencies."""
    place_what_the_examples_name(customer)
    token = ""
    for path, item in COMMANDS["paths"].items():
        for method, operation in item.items():
            # No gateway signs the example of a callback, and the orders are fulfilled by hand: there is no process.
            if operation["tags"] not in (["operations"], ["gateways"], ["processes"]):
                token = send_example(stack, path, method, operation)
    for path, item in QUERIES["paths"].items():
        parameters = {place: parameter_examples(QUERIES, item["get"], place) for place in ("path", "query", "header")}
        parameters["query"].pop("ids", None)  # instead of a page
        parameters["query"].pop("include", None)  # not of the past
        headers = parameters["header"] | {"Consistency-Token": token}
        headers.pop("Last-Event-ID", None)  # of a longer log
        case = query[path]["GET"].Case(path_parameters=parameters["path"], query=parameters["query"], headers=headers)
        answer = case.call_and_validate(base_url=url_of(stack.query_port), checks=CHECKS, hooks=STREAMS)
        # Not known then; and the tour fulfils its orders by hand.
        missing = "known_at" in parameters["query"] or "process_id" in parameters["path"]
        assert answer.status_code == (404 if missing else 200), (path, answer.text)


def send_example(stack: Settings, path: str, method: str, operation: dict[str, Any]) -> str:
    """The documented example of the command, also of its headers. Answers the token."""
    headers = parameter_examples(COMMANDS, operation, "header") | {"Idempotency-Key": str(uuid7())}
    headers.pop("If-Match", None)  # of another version
    body = body_example(operation)
    case = command[path][method].Case(
        path_parameters=parameter_examples(COMMANDS, operation, "path"),
        headers=headers,
        body=NOT_SET if body is None else body,
        media_type="application/json",
    )
    answer = case.call_and_validate(base_url=url_of(stack.command_port), checks=CHECKS)
    assert answer.status_code in (200, 201), (path, answer.text)
    token = answer.json()["consistency_token"]
    assert isinstance(token, str)
    return token


def operations(document: Document) -> list[tuple[str, str]]:
    """(method, path) of each."""
    return [(method.upper(), path) for path, item in document["paths"].items() for method in item]


def send_all(operation: Operation, send: Callable[[Case], None]) -> None:
    """Calls `send` with every case that schemathesis makes of the operation.

    Made here: what `parametrize` of schemathesis makes at collection, every worker would make of all operations.
    """

    def send_one(case: Case) -> None:
        send(case)

    config = HypothesisTestConfig(
        project=operation.schema.config, modes=[*HypothesisTestMode], explicit_settings=BOUNDED
    )
    create_test(operation=operation, test_func=send_one, config=config)()


@pytest.mark.promise("commands", "The command service answers as its OpenAPI document says")
@pytest.mark.parametrize(("method", "path"), operations(COMMANDS))
def test_the_command_service_answers_as_documented(
    method: str, path: str, stack: Settings, customer: httpx.Client
) -> None:
    def send(case: Case) -> None:
        fitting = aimed_at_a_fitting_order(case, customer)
        fitting.call_and_validate(base_url=url_of(stack.command_port), checks=CHECKS)

    send_all(command[path][method], send)


@pytest.mark.promise("lag", "Every answer of every route, errors included, says how stale it is")
@pytest.mark.parametrize(("method", "path"), operations(QUERIES))
def test_the_query_service_answers_as_documented(method: str, path: str, stack: Settings) -> None:
    def send(case: Case) -> None:
        answer = aimed(case).call(base_url=url_of(stack.query_port), hooks=STREAMS)
        # The introduction of the document lists what the server answers itself, such as 414 to too many ids.
        if answer.status_code != httpx.codes.REQUEST_URI_TOO_LONG:
            case.validate_response(answer, checks=CHECKS)

    send_all(query[path][method], send)
