"""Both services behind a reverse proxy that serves each below a path prefix (`ROOT_PATH`, `QUERY_URL`)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from command_service.admission import Limit
from shared.settings import Settings
from tests.orders import order_body, place
from tests.prefix_proxy import prefix_proxy
from tests.query_service.event_source import following
from tests.running import (
    eventually,
    free_ports,
    is_ready,
    running_command_service,
    running_projector,
    running_query_service,
)

COMMANDS, QUERIES = "/shop/commands", "/shop/queries"
BOTH = pytest.mark.parametrize("prefix", [COMMANDS, QUERIES])


@pytest.fixture
async def proxy(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the proxy."""
    [port] = free_ports(1)
    changed = {"root_path": COMMANDS, "query_url": f"http://127.0.0.1:{port}{QUERIES}"}
    commanding = settings.model_copy(update=changed)
    async with (
        running_command_service(commanding) as commands,
        running_projector(settings),
        running_query_service(settings, root_path=QUERIES) as queries,
        prefix_proxy(port, {COMMANDS: commands, QUERIES: str(queries.base_url)}) as proxy,
    ):
        await eventually(lambda: is_ready(queries))
        yield proxy


def resolved(answer: httpx.Response, address: str) -> httpx.URL:
    """The address as a client resolves it."""
    return answer.url.join(address)


@BOTH
@pytest.mark.promise("browsers", "Behind a path prefix the reference page, its files and its requests work")
async def test_the_reference_and_all_that_it_loads_are_below_the_prefix(proxy: httpx.AsyncClient, prefix: str) -> None:
    page = await proxy.get(f"{prefix}/", follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, f"{prefix}/docs")
    loaded = re.findall(r'(?:src|href|data-document)="([^"]+)"', page.text)
    assert len(loaded) > 4
    for address in loaded:
        assert (await proxy.get(resolved(page, address))).status_code == 200, address
    document = await proxy.get(f"{prefix}/openapi.json")
    assert document.json()["servers"], "without them a client takes the origin"
    for server in document.json()["servers"]:
        base = str(resolved(document, server["url"])).rstrip("/")
        assert (await proxy.get(f"{base}/livez")).status_code == 200, server


@pytest.mark.promise("browsers", "A command's `Location` leads to the query service, also behind a path prefix")
async def test_the_location_of_an_order_leads_to_the_query_service(proxy: httpx.AsyncClient) -> None:
    placed = await proxy.post(f"{COMMANDS}/orders", json=order_body(order_id="1"))
    assert placed.status_code == 201
    token = {"Consistency-Token": placed.headers["Consistency-Token"]}
    order = await proxy.get(resolved(placed, placed.headers["Location"]), headers=token)
    assert (order.status_code, order.json()["order_id"]) == (200, "1")


async def test_without_query_url_the_location_has_the_prefix(settings: Settings) -> None:
    below = settings.model_copy(update={"root_path": "/shop"})
    async with running_command_service(below) as url, httpx.AsyncClient(base_url=url) as commands:
        placed = await place(commands, order_id="1")
        assert placed.headers["Location"] == "/shop/orders/1"


async def test_the_link_to_the_next_page_has_the_prefix(proxy: httpx.AsyncClient) -> None:
    await proxy.post(f"{COMMANDS}/orders", json=order_body())
    placed = await proxy.post(f"{COMMANDS}/orders", json=order_body())
    token = {"Consistency-Token": placed.headers["Consistency-Token"]}
    for path, found in (("/orders?limit=1", "order_id"), ("/events?limit=1", "event_id")):
        first = await proxy.get(f"{QUERIES}{path}", headers=token)
        second = await proxy.get(resolved(first, first.links["next"]["url"]), headers=token)
        pages = [next(iter(page.json().values())) for page in (first, second)]
        assert len({one[found] for page in pages for one in page}) == 2


@BOTH
async def test_an_error_leads_to_its_page_and_names_addresses_as_clients_see_them(
    proxy: httpx.AsyncClient, prefix: str
) -> None:
    refused = await proxy.get(f"{prefix}/nowhere")
    problem = refused.json()
    assert problem["instance"] == f"{prefix}/nowhere"
    assert f"{prefix}/docs" in problem["detail"]
    page = await proxy.get(resolved(refused, problem["type"]))
    assert f'id="{problem["code"]}"' in page.text


async def test_so_does_an_error_that_never_reaches_the_application(
    proxy: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limit, "admits", lambda *_: False)
    refused = await proxy.post(f"{COMMANDS}/orders", json=order_body())
    problem = refused.json()
    assert (problem["code"], problem["instance"]) == ("overloaded", f"{COMMANDS}/orders")
    assert 'id="overloaded"' in (await proxy.get(resolved(refused, problem["type"]))).text


async def test_so_does_a_refusal_of_the_connection(settings: Settings) -> None:
    below = settings.model_copy(update={"root_path": COMMANDS})
    async with running_command_service(below) as url, httpx.AsyncClient(base_url=url) as commands:
        problem = (await commands.get("/docs", headers={"X-Long": "a" * 9_000})).json()
        assert problem["type"] == f"{COMMANDS}/docs/errors.md#headers-too-large"
        assert problem["instance"] == f"{COMMANDS}/docs"


async def test_live_updates_pass_through_the_proxy(proxy: httpx.AsyncClient) -> None:
    placed = await proxy.post(f"{COMMANDS}/orders", json=order_body(order_id="1"))
    async with following(proxy, f"{QUERIES}/orders/1/events?after=0") as source:
        await source.until_reached(placed.json()["position"])
        assert [event["event_type"] for _, event in source.messages] == ["OrderPlaced"]
