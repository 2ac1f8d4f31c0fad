"""The published descriptions of both services: committed, complete, and readable without internet."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import jsonschema_rs
import pytest

from shared.errors import OrdersError
from shared.http.problems import status_of
from shared.identity.access import access_of
from shared.settings import Settings
from tests import error_page
from tests.documented import NoExample, body_example, example_of, parameter_examples, problems_of, read_document
from tests.openapi import APPS, NOWHERE, document_of, path_of, text_of

AS_PUBLISHED: dict[str, dict[str, Any]] = {service: json.loads(path_of(service).read_text("utf-8")) for service in APPS}
DOCUMENTS = {service: read_document(service) for service in APPS}
METHODS = {"get", "post", "put", "delete", "patch"}


class Operation(NamedTuple):
    service: str
    method: str
    path: str
    described: dict[str, Any]


def operations() -> Iterator[Operation]:
    for service, document in DOCUMENTS.items():
        for path, item in document["paths"].items():
            for method in sorted(METHODS & set(item)):
                yield Operation(service, method, path, item[method])


ALL = pytest.mark.parametrize(
    "operation",
    [*operations()],
    ids=lambda operation: f"{operation.method.upper()} {operation.path} ({operation.service})",
)


@pytest.mark.parametrize("service", APPS)
def test_the_committed_document_is_what_the_code_says(service: str) -> None:
    committed = path_of(service)
    assert committed.exists() and committed.read_text("utf-8") == text_of(document_of(service)), (  # noqa: PT018
        f"docs/openapi/{service}.json has drifted. If the change is meant, run `python -m tests.openapi` and commit it."
    )


@pytest.mark.parametrize("service", APPS)
def test_the_document_is_of_openapi_3_1_and_every_reference_leads_somewhere(service: str) -> None:
    document = AS_PUBLISHED[service]
    assert document["openapi"].startswith("3.1")
    for kind, name in re.findall(r'"\$ref": "#/components/([a-z]+)/([^"]+)"', text_of(document)):
        assert name in document["components"][kind]
    names = [operation.described["operationId"] for operation in operations() if operation.service == service]
    assert len(names) == len(set(names))


@ALL
def test_an_operation_says_what_it_does(operation: Operation) -> None:
    assert operation.described["summary"]
    assert operation.described["description"]
    assert operation.described["tags"]


@ALL
def test_an_operation_shows_examples(operation: Operation) -> None:
    document = DOCUMENTS[operation.service]
    for place in ("path", "query", "header"):
        parameter_examples(document, operation.described, place)
    for answer in operation.described["responses"].values():
        for media_type, body in answer.get("content", {}).items():
            is_for_machines = (operation.path, media_type) == ("/metrics", "text/plain")
            if not {"example", "examples"} & {*body} and not is_for_machines:
                example_of(document, body["schema"])


@pytest.mark.promise("commands", "Every example of the OpenAPI documents validates against its schema")
@pytest.mark.parametrize("service", APPS)
def test_examples_are_what_their_schemas_describe(service: str) -> None:
    document = DOCUMENTS[service]
    schemas = {"schemas": document["components"]["schemas"]}
    # Most are repeated: what the document shares is resolved where it is used.
    distinct = {
        json.dumps([schema, example]): (where, schema, example)
        for where, schema, example in examples_in(document, service)
    }
    for where, schema, example in distinct.values():
        validator = jsonschema_rs.Draft202012Validator({**schema, "components": schemas})
        errors = [error.message for error in validator.iter_errors(example)]
        assert errors == [], (where, example)
    assert len(distinct) > 100


def examples_in(part: Any, where: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """(where it is, schema, example), of media types, parameters, headers and schemas at any depth."""
    if isinstance(part, list):
        for number, one in enumerate(part):
            yield from examples_in(one, f"{where}/{number}")
    elif isinstance(part, dict):
        schema = part.get("schema", part)
        if "example" in part:
            yield where, schema, part["example"]
        examples = part.get("examples", [])
        for example in examples if isinstance(examples, list) else [one["value"] for one in examples.values()]:
            yield where, schema, example
        for name, one in part.items():
            if name not in ("example", "examples"):
                yield from examples_in(one, f"{where}/{name}")


@ALL
def test_a_body_is_filled_in_with_what_is_required(operation: Operation) -> None:
    """Unless its schema shows an example of its own."""
    if (body := body_example(operation.described)) is not None:
        schema = DOCUMENTS[operation.service]["components"]["schemas"][body_schema(operation.described)]
        assert "examples" in schema or body.keys() == {*schema.get("required", ())}


def test_an_order_is_placed_without_an_id() -> None:
    assert "order_id" not in body_example(DOCUMENTS["command"]["paths"]["/orders"]["post"])


def body_schema(described: dict[str, Any]) -> str:
    reference: str = described["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return reference.rpartition("/")[2]


@pytest.mark.promise("commands", "The OpenAPI documents say which operations need a token, and of which roles")
@pytest.mark.parametrize("service", APPS)
def test_an_operation_says_which_roles_may_use_it(service: str) -> None:
    document = AS_PUBLISHED[service]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for access in access_of(APPS[service](NOWHERE).routes):
        operation = document["paths"][access.path][access.method.lower()]
        assert operation["security"] == ([{"bearer": []}] if access.roles else [])
        assert ("401" in operation["responses"]) == bool(access.roles)
        told = re.search(r"^Roles: (.+?)\.", operation["description"], re.MULTILINE)
        assert {*re.findall("`([a-z]+)`", told[1] if told else "")} == access.roles


@pytest.mark.parametrize("service", APPS)
def test_nothing_is_explained_twice(service: str) -> None:
    told = Counter(paragraph for text in descriptions_in(AS_PUBLISHED[service]) for paragraph in text.split("\n\n"))
    assert [paragraph for paragraph, times in told.items() if times > 1 and len(paragraph) > ONE_LINE] == []


ONE_LINE = 120


def descriptions_in(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for one in part:
            yield from descriptions_in(one)
    elif isinstance(part, dict):
        for name, one in part.items():
            if name == "description" and isinstance(one, str):
                yield one
            else:
                yield from descriptions_in(one)


@pytest.mark.parametrize(
    "silent",
    [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"$ref": "#/components/schemas/Silent"},
        {"properties": {"said": {"example": 1}, "silent": {"type": "string"}}},
    ],
    ids=str,
)
def test_what_a_field_refers_to_is_no_example(silent: dict[str, Any]) -> None:
    document = {"components": {"schemas": {"Silent": {"type": "object", "properties": {"a": {"type": "integer"}}}}}}
    with pytest.raises(NoExample, match="field"):
        example_of(document, {"properties": {"said": {"examples": ["a"]}, "field": silent}})


@ALL
def test_an_operation_lists_its_problems(operation: Operation) -> None:
    refusals = {status: answer for status, answer in operation.described["responses"].items() if status >= "400"}
    if operation.path.startswith(("/orders", "/customers", "/projections", "/readyz")):
        assert refusals
    for status, answer in refusals.items():
        assert answer["description"], status
        assert set(answer["content"]) == {"application/problem+json"}
        problem = answer["content"]["application/problem+json"]
        assert problem["schema"]["allOf"][1]["properties"]["code"]["enum"] == [*problem["examples"]]
        for code, example in problem["examples"].items():
            assert example["value"]["code"] == code
            assert example["value"]["status"] == int(status)
        if status in ("429", "503"):
            assert "Retry-After" in answer["headers"]


# Not of a service's own error tree: what the framework refuses, and what is answered without being raised.
FRAMEWORK = {(421, "misdirected-request"), (422, "invalid-request"), (500, "internal-error")}
NOT_RAISED = {
    "command": {
        *FRAMEWORK,
        (400, "malformed-json"),
        (413, "body-too-large"),
        (415, "unsupported-media-type"),
    },
    "query": {
        *FRAMEWORK,
        (404, "customer-not-found"),
        (404, "order-not-found"),
        (404, "payment-not-found"),
        (404, "account-not-found"),
        (404, "process-not-found"),
        (404, "transfer-not-found"),
        (404, "stock-not-found"),
        (404, "product-not-found"),
    },
}
NEVER_ANSWERED = {
    "command": {
        # It gives tokens and reads none; it seals and opens nothing.
        *("malformed-token", "unknown-log", "token-beyond-log", "unopenable-value"),
        # Processes call gateways, after the request; the sandbox is a service of its own.
        *("gateway-unavailable", "gateway-outcome-unknown", "gateway-refused", "effect-refused"),
    },
    "query": {"no-longer-followed"},  # ends a stream that has begun
}


@pytest.mark.promise("commands", "The OpenAPI documents list exactly the errors that the services can answer")
@pytest.mark.parametrize("service", APPS)
def test_every_error_that_a_service_can_answer_is_documented_and_no_other(service: str) -> None:
    told = [problems_of(operation.described) for operation in operations() if operation.service == service]
    raised = {
        (status_of(error), error.code)
        for error in errors_in("shared", f"{service}_service")
        if error.code not in NEVER_ANSWERED[service]
    }
    assert set().union(*told) == raised | NOT_RAISED[service]
    assert {"no-such-route", "method-not-allowed"} < {*DOCUMENTS[service]["info"]["description"].split("`")}


def errors_in(*packages: str) -> set[type[OrdersError]]:
    """Every error with a code that is defined there."""
    for package in packages:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    found, every = set(), [OrdersError]
    while every:
        error = every.pop()
        every += error.__subclasses__()
        if error.__module__.partition(".")[0] in packages and hasattr(error, "code"):
            found.add(error)
    return found


def test_the_page_of_errors_is_what_the_documents_give() -> None:
    assert error_page.PAGE.read_text("utf-8") == error_page.text(), "docs/errors.md has drifted: run `make errors`"


@pytest.fixture(params=APPS)
async def client(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service whose servers are not needed to read its documentation."""
    transport = httpx.ASGITransport(APPS[request.param](settings))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{request.param}") as client:
        yield client


async def test_the_documentation_needs_no_internet(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "://" not in page.text
    assets = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert any(asset.endswith(".js") for asset in assets)
    assert any(asset.endswith(".css") for asset in assets)
    for asset in [*assets, *re.findall(r"url: '([^']+)'", page.text)]:
        assert (await client.get(asset)).status_code == 200, asset
    assert (await client.get("/redoc")).status_code == 404


@pytest.mark.promise("commands", "The `type` of an error leads to a page that explains its code")
async def test_the_type_of_an_error_leads_to_what_it_means(client: httpx.AsyncClient) -> None:
    refused = await client.get("/nowhere")
    address, _, code = refused.json()["type"].partition("#")
    assert code == "no-such-route"
    page = await client.get(address)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    of_service = [operation.described for operation in operations() if operation.service == client.base_url.host]
    told = {code for described in of_service for _, code in problems_of(described)}
    assert told | {code} <= {*re.findall(r'<h2 id="([a-z-]+)">', page.text)}
    assert f"\n## {code}\n" in error_page.PAGE.read_text("utf-8")


async def test_the_served_document_is_the_committed_one(client: httpx.AsyncClient) -> None:
    served = await client.get("/openapi.json")
    assert text_of(served.json()) == path_of(client.base_url.host).read_text("utf-8")
