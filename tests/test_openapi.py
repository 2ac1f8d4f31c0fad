"""The published descriptions of both services: committed, complete, and readable without internet."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from shared.settings import Settings
from tests.openapi import APPS, document_of, path_of, text_of

DOCUMENTS = {service: document_of(service) for service in APPS}
METHODS = {"get", "post", "put", "delete", "patch"}


class Operation(NamedTuple):
    service: str
    method: str
    path: str
    described: dict[str, Any]


def operations() -> Iterator[Operation]:
    for service, document in DOCUMENTS.items():
        for path, item in document["paths"].items():
            for method in METHODS & set(item):
                yield Operation(service, method, path, item[method])


ALL = pytest.mark.parametrize(
    "operation",
    [*operations()],
    ids=lambda operation: f"{operation.method.upper()} {operation.path} ({operation.service})",
)


def resolved(service: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, or the one it refers to."""
    if "$ref" not in schema:
        return schema
    return dict(DOCUMENTS[service]["components"]["schemas"][schema["$ref"].rpartition("/")[2]])


@pytest.mark.parametrize("service", APPS)
def test_the_committed_document_is_what_the_code_says(service: str) -> None:
    committed = path_of(service)
    assert committed.exists() and committed.read_text("utf-8") == text_of(DOCUMENTS[service]), (  # noqa: PT018
        f"docs/openapi/{service}.json has drifted. If the change is meant, run `python -m tests.openapi` and commit it."
    )


@pytest.mark.parametrize("service", APPS)
def test_the_document_is_of_openapi_3_1_and_every_reference_leads_somewhere(service: str) -> None:
    document = DOCUMENTS[service]
    assert document["openapi"].startswith("3.1")
    for reference in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', text_of(document)):
        assert reference in document["components"]["schemas"]
    names = [operation.described["operationId"] for operation in operations() if operation.service == service]
    assert len(names) == len(set(names))


@ALL
def test_an_operation_says_what_it_does(operation: Operation) -> None:
    assert operation.described["summary"]
    assert operation.described["description"]
    assert operation.described["tags"]


@ALL
def test_an_operation_shows_examples(operation: Operation) -> None:
    contents = [
        operation.described.get("requestBody", {}).get("content", {}),
        *[answer.get("content", {}) for answer in operation.described["responses"].values()],
    ]
    for content in contents:
        for media_type, body in content.items():
            schema = resolved(operation.service, body["schema"])
            shown = {"example", "examples"} & {*body, *schema}
            fields = schema.get("properties", {}).values()
            by_field = fields and all({"example", "examples", "$ref", "items", "anyOf"} & {*field} for field in fields)
            assert shown or by_field or media_type.startswith("text/"), f"{media_type}: {schema.get('title')}"


@ALL
def test_an_operation_lists_its_problems(operation: Operation) -> None:
    refusals = {status: answer for status, answer in operation.described["responses"].items() if status >= "400"}
    if operation.path.startswith(("/orders", "/customers", "/projections", "/readyz")):
        assert refusals
    for status, answer in refusals.items():
        assert answer["description"], status
        assert set(answer["content"]) == {"application/problem+json"}
        for code, example in answer["content"]["application/problem+json"]["examples"].items():
            assert example["value"]["code"] == code
            assert example["value"]["status"] == int(status)
        if status in ("429", "503"):
            assert "Retry-After" in answer["headers"]


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


async def test_the_served_document_is_the_committed_one(client: httpx.AsyncClient) -> None:
    served = await client.get("/openapi.json")
    assert text_of(served.json()) == path_of(client.base_url.host).read_text("utf-8")
