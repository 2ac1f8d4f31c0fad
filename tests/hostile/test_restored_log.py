"""A restored log has other events under the versions that it lost. No client takes the one for the other."""

from __future__ import annotations

import asyncpg
import httpx
import pytest

from shared.aggregates.order import ORDER, ShippingAddressChanged
from tests.command_service.test_restored_log import restore
from tests.given_when_then import problem
from tests.orders import TOTAL, place
from tests.recording import put_in_log

Shop = tuple[httpx.AsyncClient, httpx.AsyncClient]
PAYMENT = {"payment_reference": "pay-1", "amount": TOTAL}


def stream_of(acknowledged: httpx.Response) -> str:
    return ORDER.stream_of(acknowledged.json()["aggregate_id"])


@pytest.mark.promise("queries", "An entity tag of before a restore matches nothing of after it")
async def test_a_version_that_was_lost_is_not_taken_for_the_one_in_its_place(
    shop: Shop, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    commands, queries = shop
    order = (await place(commands)).headers["location"]
    moved = await commands.put(f"{order}/shipping-address", json={"shipping_address_id": "lost"})
    lost = await queries.get(order, headers={"Consistency-Token": moved.headers["consistency-token"]})
    history = await queries.get(f"{order}/history")

    await restore(connection, position=1)
    # By another process: this command service still caches the lost version.
    await put_in_log(connection, stream_of(moved), ShippingAddressChanged("found"), after=1)

    refused = await commands.post(f"{order}/payment", json=PAYMENT, headers={"If-Match": lost.headers["etag"]})
    problem(refused, 412, "stale-version")
    token = {"Consistency-Token": (await queries.get(f"{order}/history")).headers["consistency-token"]}
    found = await queries.get(order, headers=token | {"If-None-Match": lost.headers["etag"]})
    assert (found.status_code, found.json()["version"]) == (200, lost.json()["version"])
    assert found.json()["shipping_address_id"] == "found"
    again = await queries.get(f"{order}/history", headers={"If-None-Match": history.headers["etag"]})
    assert again.status_code == 200

    paid = await commands.post(f"{order}/payment", json=PAYMENT, headers={"If-Match": found.headers["etag"]})
    assert (paid.status_code, paid.json()["version"]) == (200, 3)


async def test_a_plain_version_is_one_of_the_log_as_it_is_now(
    shop: Shop, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    commands, _ = shop
    order = (await place(commands)).headers["location"]
    moved = await commands.put(f"{order}/shipping-address", json={"shipping_address_id": "lost"})
    await restore(connection, position=1)
    await put_in_log(connection, stream_of(moved), ShippingAddressChanged("found"), after=1)

    paid = await commands.post(f"{order}/payment", json=PAYMENT, headers={"If-Match": moved.headers["etag"]})

    assert (paid.status_code, paid.json()["version"]) == (200, 3)
