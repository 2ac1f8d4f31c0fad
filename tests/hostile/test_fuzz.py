"""Whatever bytes arrive, no service answers 5xx, blocks others for half a second, or grows.

`make fuzz` runs it for ten minutes; FUZZ_SECONDS says how long.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from tests.faults.shop import Process, Servers, Shop
from tests.hostile.fuzzing import CUSTOMER, HANG_SECONDS, ORDER, Known, Sent, broken, exchange, requests
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer
from tests.orders import order_body

SECONDS = float(os.environ.get("FUZZ_SECONDS", "4"))
GROWTH_BYTES = 48 * 1024 * 1024
TRIES = 3  # of what takes long: another program may have had the processor
_PROBE = Sent(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", whole=True)
# A read model that is not there yet, or load; an HTTP version that there is not.
_MEANT = {503, 505}

pytestmark = [pytest.mark.subprocess, pytest.mark.timeout(SECONDS + 120)]


class Target(NamedTuple):
    service: str
    process: Process
    known: Known


@pytest.fixture
async def targets(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[list[Target]]:
    """Both services for all callers, and both for those that identify themselves."""
    shop = Shop(tmp_path, Servers(database_url, redis_url), ALLOWED_HOSTS="*")
    issuer = Issuer(tmp_path / "keys.json")
    asking = [
        shop.process(kind, AUTH="jwt", AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE, AUTH_JWKS=str(issuer.file))
        for kind in ("command", "query")
    ]
    await shop.start(shop.command, shop.projector, shop.query, *asking)
    async with httpx.AsyncClient(timeout=60) as client:  # a page takes seconds to make on a busy machine
        for path, body in {
            "customers": {"customer_id": CUSTOMER, "name": "Alice", "email": "alice@example.org"},
            "accounts": {"account_id": ORDER, "owner_id": CUSTOMER, "currency": "GBP"},
            f"products/{ORDER}/stock/receipts": {"quantity": 1},
        }.items():
            assert (await client.post(f"{shop.command.url}/{path}", json=body)).is_success
        placed = await client.post(f"{shop.command.url}/orders", json=order_body(order_id=ORDER, customer_id=CUSTOMER))
        assert placed.status_code == 201
        for process in (shop.command, shop.query, *asking):  # each makes these when it is first asked
            for page in ("/openapi.json", "/docs/errors.md"):
                assert (await client.get(f"{process.url}{page}")).status_code == 200
    log_id, _, position = placed.json()["consistency_token"].partition("-")
    known = Known(log_id, int(position))
    seconds = SECONDS + 3_600
    bearers = [
        issuer.token("staff", "finance", "operator", "auditor", valid_seconds=seconds),
        issuer.token("customer", customer_id=CUSTOMER, valid_seconds=seconds),
        issuer.token("customer", customer_id="another", valid_seconds=seconds),
    ]
    yield [
        Target("command", shop.command, known),
        Target("query", shop.query, known),
        *(Target(process.name, process, known._replace(bearers=bearers)) for process in asking),
    ]
    shop.close()


def assert_withstands(port: int, sent: Sent, seen: Counter[int]) -> None:
    """It is answered, and so is another client meanwhile, in time and not with an error of the server."""
    slow: list[object] = []
    for _ in range(TRIES):
        answer, probed = exchange(port, sent), exchange(port, _PROBE)
        if answer is not None:
            seen[answer.status] += 1
            assert answer.status < 500 or answer.status in _MEANT, (sent.data, answer.head)
            is_problem = b"application/problem+json" in answer.head
            assert answer.status < 400 or is_problem or sent.data.startswith(b"HEAD"), (sent.data, answer.head)
        quick = probed is not None and probed.status == 200 and probed.seconds < HANG_SECONDS
        if quick and (answer is not None or not sent.whole):
            return
        slow.append((answer, probed))
    raise AssertionError((sent.data, slow))


def fuzz(port: int, strategy: SearchStrategy[Sent], seen: Counter[int]) -> None:
    @settings(
        max_examples=25,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # to shrink takes minutes; what is sent is short
        suppress_health_check=list(HealthCheck),
    )
    @given(sent=strategy)
    def withstands(sent: Sent) -> None:
        assert_withstands(port, sent, seen)

    withstands()


def memory(process: Process) -> int:
    assert process.pid is not None, "it has ended"
    return int(psutil.Process(process.pid).memory_info().rss)


@pytest.mark.promise("security", "No bytes that a client sends cause a 5xx, a hang of half a second, or growth")
async def test_no_bytes_cause_a_5xx_a_hang_or_growth(targets: list[Target]) -> None:
    seen: Counter[int] = Counter()
    ends = monotonic() + SECONDS
    warmed: list[int] = []
    while not warmed or monotonic() < ends:
        for service, process, known in targets:
            for strategy in (requests(service, known), broken(service, known)):
                fuzz(process.port, strategy, seen)
        warmed = warmed or [memory(target.process) for target in targets]
    grown = [memory(target.process) - before for target, before in zip(targets, warmed, strict=True)]
    assert max(grown) < GROWTH_BYTES, grown
    assert {200, 400, 401, 404} <= set(seen), seen
    assert all("unexpected error" not in target.process.log.read_text() for target in targets)
    sys.stdout.write(f"answers by status {dict(seen)}, growth in bytes {grown}\n")
