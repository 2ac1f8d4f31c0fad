"""Events of live updates are documents of the OpenAPI document: one schema an event type, in today's shape."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema_rs
import pytest

from shared.aggregates import EVENT_TYPES
from shared.aggregates.order import ORDER
from tests.documented import read_document
from tests.orders import cancelled, new_order_id, paid, placed
from tests.query_service.event_source import following
from tests.query_service.past import Past, past, shared_past
from tests.recording import put_raw_in_log

__all__ = ["past", "shared_past"]  # fixtures

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUERY = read_document("query")
OLD = {
    "customer_id": "ann",
    "items": [{"product_id": "MUG", "quantity": 1, "unit_price": 2}],
    "shipping_address_id": "a",
}


def conforms(name: str, document: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": QUERY["components"]}
    return bool(jsonschema_rs.is_valid(schema, document))


async def test_every_event_type_is_one_choice_by_its_type() -> None:
    schemas = QUERY["components"]["schemas"]
    of_orders = [event.__name__ for event in ORDER.events]
    for choice, types in (("OrderEvent", of_orders), ("RecordedEvent", [*EVENT_TYPES])):
        mapping = schemas[choice]["discriminator"]["mapping"]
        assert list(mapping) == types
        assert [{"$ref": reference} for reference in mapping.values()] == schemas[choice]["oneOf"]
    for name, event_type in EVENT_TYPES.items():
        properties = schemas[f"{name}Event"]["properties"]
        assert (properties["event_type"]["const"], properties["schema_version"]["const"]) == (name, event_type.version)
    for path in ("/orders/{order_id}/events", "/customers/{customer_id}/orders/events", "/events"):
        answer = QUERY["paths"][path]["get"]["responses"]["200"]
        if "$ref" in answer:
            answer = QUERY["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        reference = answer["content"]["text/event-stream"]["schema"]["contentSchema"]["$ref"]
        assert reference.rpartition("/")[2] == ("RecordedEvent" if path == "/events" else "OrderEvent")


@pytest.mark.promise("live-updates", "Each event is a document of its type's schema, in today's shape")
async def test_events_are_sent_in_todays_shape(past: Past) -> None:
    data = json.dumps(OLD)
    await past.recorder.record_raw(past.order_id, "OrderPlaced", 1, data)
    await past.recorder.record(past.order_id, paid(), cancelled(1))
    async with following(past.queries, f"{past.path}/events?after=0") as source:
        await source.until(3)
    sent = [event for _, event in source.messages]
    assert all(conforms("OrderEvent", event) and conforms("RecordedEvent", event) for event in sent)
    assert (sent[0]["schema_version"], sent[0]["data"]) == (3, OLD | {"currency": "GBP"})
    assert not conforms("OrderEvent", sent[0] | {"schema_version": 1})
    history = (await past.queries.get(f"{past.path}/history")).json()["events"]
    assert (history[0]["schema_version"], history[0]["data"]) == (1, OLD)
    assert [event["hash"] for event in history] == [event["hash"] for event in sent]


# --- the whole log -------------------------------------------------------------------------------------------------


async def everything(queries: httpx.AsyncClient, url: str) -> list[Any]:
    """All events of the pages from there on."""
    events = []
    while url:
        page = await queries.get(url)
        events += page.json()["events"]
        assert page.json()["next_after"] == (events[-1]["position"] if events else 0)
        url = page.links["next"]["url"] if "next" in page.links else ""
    return events


@pytest.mark.promise("live-updates", "`GET /events` follows the whole log, in pages and live, also of unknown streams")
async def test_the_whole_log_is_followed_in_pages_and_live(past: Past) -> None:
    first = await past.recorder.record(past.order_id, placed())
    await past.recorder.record(new_order_id(), placed())
    await put_raw_in_log(past.recorder.connection, f"parcel-{past.order_id}", "ParcelLost", 1, '{"why": "rain"}')
    pages = []
    for limit in (1, 2, 1_000):
        pages = await everything(past.queries, f"/events?after={first - 1}&limit={limit}")
        assert [event["position"] for event in pages] == [first, first + 1, first + 2]
        assert [event["stream_id"] for event in pages[::2]] == [f"order-{past.order_id}", f"parcel-{past.order_id}"]
    assert [event["position"] for event in await everything(past.queries, "/events")] == [*range(1, first + 3)]
    assert (await past.queries.get(f"/events?after={first + 2}")).json() == {"events": [], "next_after": first + 2}

    async with following(past.queries, f"/events?after={first - 1}", accept="text/event-stream") as source:
        await source.until(3)
        await past.recorder.record(past.order_id, paid())
        await source.until(4)
    assert [event for _, event in source.messages][:3] == pages
    assert source.positions == [*range(first, first + 4)]
