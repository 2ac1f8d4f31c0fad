from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.settings import Settings
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer, bearer
from tests.identity.shop import ACCOUNT, ORDER, OTHER_ACCOUNT, OWNER, Shop
from tests.orders import order_body
from tests.running import clients_of, fresh_database, running_stack, settings_for


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """A stack that identifies its callers, with the customer `OWNER`, and one order and two accounts of it."""
    issuer = Issuer(tmp_path_factory.mktemp("issuer") / "keys.json")
    async with fresh_database(postgres.url) as database_url:
        settings = settings_for(database_url, valkey.url)
        identifying = Settings.model_validate(
            {
                **settings.model_dump(),
                "auth": "jwt",
                "auth_issuer": ISSUER,
                "auth_audience": AUDIENCE,
                "auth_jwks": str(issuer.file),
            }
        )
        async with running_stack(identifying), clients_of(identifying) as (commands, queries):
            placed = await commands.post(
                "/orders", json=order_body(customer_id=OWNER, order_id=ORDER), headers=bearer(issuer.token("staff"))
            )
            assert placed.status_code == 201, placed.text
            done = placed
            for account_id in (ACCOUNT, OTHER_ACCOUNT):
                account = {"account_id": account_id, "owner_id": OWNER, "currency": "GBP"}
                done = await commands.post("/accounts", json=account, headers=bearer(issuer.token("staff")))
                assert done.status_code == 201, done.text
            customer = {"customer_id": OWNER, "name": "Bob", "email": "bob@example.org"}
            done = await commands.post("/customers", json=customer, headers=bearer(issuer.token("staff")))
            assert done.status_code == 201, done.text
            token = {"Consistency-Token": done.headers["Consistency-Token"], "Prefer": "wait=20"}
            for path in (f"/orders/{ORDER}", f"/accounts/{ACCOUNT}", f"/customers/{OWNER}"):
                shown = await queries.get(path, headers={**token, **bearer(issuer.token("staff"))})
                assert shown.status_code == 200, shown.text
            yield Shop(issuer, commands, queries, identifying)
