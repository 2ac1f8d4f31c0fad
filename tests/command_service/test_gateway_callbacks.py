"""Callbacks of gateways at the command service: signed ones are recorded once, all others change nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from pydantic import SecretStr, ValidationError
from uuid_utils import uuid7

from command_service.app import create_group_commit, create_handler
from command_service.gateways.signatures import HEADERS, CallbackRefused, Signatures
from command_service.processes.worker import ProcessWorker
from shared.aggregates.process import PROCESS, Process
from shared.eventstore.snapshots import Snapshots
from shared.eventstore.store import PostgresEventStore
from shared.settings import Settings
from tests.command_service.sandboxes import CARRIER_SECRET, FOREIGN_SECRET, OLD_SECRET, SECRET
from tests.orders import order_body
from tests.running import running_command_service, settings_for

PAYMENT, CARRIER = "/gateways/payment/events", "/gateways/carrier/events"


class Waiting:
    """A command service, and an order whose process waits for its first effect: the authorisation of the payment."""

    def __init__(self, client: httpx.AsyncClient, pool: asyncpg.Pool[asyncpg.Record], order_id: str) -> None:
        self.client = client
        self.pool = pool
        self.process_id = f"fulfilment-{order_id}"
        self.effect_id = f"{self.process_id}-1"

    async def post(
        self, outcome: str = "Authorised", data: dict[str, Any] | None = None, effect_id: str = "", **changes: Any
    ) -> httpx.Response:
        """A callback, signed as `signed` says."""
        return await self.send(body(effect_id or self.effect_id, outcome, data), **changes)

    async def send(self, content: bytes, path: str = PAYMENT, **changes: Any) -> httpx.Response:
        return await self.client.post(path, content=content, headers=signed(content, **changes))

    async def events(self) -> list[asyncpg.Record]:
        return await self.pool.fetch("select event_type, data, metadata, event_id from events order by position")

    async def waits_for(self) -> list[str]:
        store = PostgresEventStore(self.pool)
        loaded = await Snapshots(store, None).load(PROCESS, PROCESS.stream_of(self.process_id))
        process: Process = loaded.state
        return [requested.effect for requested in process.effects.values()]


def body(effect_id: str, outcome: str = "Authorised", data: dict[str, Any] | None = None) -> bytes:
    message = {
        "type": "effect.answered",
        "timestamp": "2026-01-31T14:30:00Z",
        "data": {"effect_id": effect_id, "outcome": outcome, "data": data or {}},
        "later": "fields that a gateway adds are ignored",
    }
    return msgspec.json.encode(message)


def signed(content: bytes, *, secret: str = SECRET, age: timedelta = timedelta(0), **replaced: str) -> dict[str, str]:
    """Headers, with those that are `replaced`, whose names have no hyphens here."""
    headers = Signatures(SecretStr(secret)).sign(str(uuid7()), datetime.now(UTC) - age, content)
    headers |= {name.replace("_", "-"): value for name, value in replaced.items()}
    return {"Content-Type": "application/json", **headers}


@pytest.fixture
async def waiting(database_url: str, redis_url: str) -> AsyncIterator[Waiting]:
    settings = settings_for(
        database_url,
        redis_url,
        payment_gateway_secret=f"{SECRET},{OLD_SECRET}",
        carrier_gateway_secret=CARRIER_SECRET,
    )
    async with (
        running_command_service(settings) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
        asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool,
    ):
        order_id = str((await client.post("/orders", json=order_body())).json()["aggregate_id"])
        await begin_process(settings, pool)
        yield Waiting(client, pool, order_id)


async def begin_process(settings: Settings, pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """As the runner does when it reads OrderPlaced."""
    monitor, group_commit = create_group_commit(settings)
    group_commit.start()
    store = PostgresEventStore(pool)
    handler = create_handler(settings, store, Snapshots(store, None), group_commit)
    worker = ProcessWorker(handler.handle, {}, ["fulfilment"])
    [placed] = await store.read_batch(0, 1)
    for process_id in worker.concerned(placed, ()):
        await worker.receive(process_id, placed)
    await handler.close()
    await group_commit.stop()
    await monitor.close()


@pytest.mark.promise("processes", "A signed callback is recorded as the answer of the gateway would be")
async def test_a_callback_is_the_answer_of_its_effect(waiting: Waiting) -> None:
    assert await waiting.waits_for() == ["Authorise"]
    answer = await waiting.post()
    assert (answer.status_code, answer.content) == (204, b"")
    assert await waiting.waits_for() == ["Capture"]
    events = {event["event_type"]: event for event in await waiting.events()}
    first = next(event for event in await waiting.events() if event["event_type"] == "EffectRequested")
    metadata = msgspec.json.decode(events["EffectAnswered"]["metadata"])
    assert metadata["causation_id"] == str(first["event_id"])
    assert metadata["correlation_id"] == msgspec.json.decode(first["metadata"])["correlation_id"]


@pytest.mark.promise("processes", "A callback that comes again, or late, changes nothing")
async def test_callbacks_that_come_again_change_nothing(waiting: Waiting) -> None:
    content = body(waiting.effect_id)
    headers = signed(content)
    answers = [await waiting.client.post(PAYMENT, content=content, headers=headers)]
    before = await waiting.events()
    answers += [await waiting.client.post(PAYMENT, content=content, headers=headers) for _ in range(2)]
    answers += [await waiting.post(), await waiting.post("Declined", {"reason": "no funds"})]
    assert [answer.status_code for answer in answers] == [204] * 5
    assert await waiting.events() == before


FORGED: dict[str, dict[str, Any]] = {
    "another secret": {"secret": FOREIGN_SECRET},
    "the secret of another gateway": {"secret": CARRIER_SECRET},
    "old": {"age": timedelta(minutes=6)},
    "from the future": {"age": -timedelta(minutes=6)},
    "old, with a new time": {"age": timedelta(minutes=6), "webhook_timestamp": str(int(time()))},
    "another id": {"webhook_id": "msg_1"},
    "no id": {"webhook_id": ""},
    "no signature": {"webhook_signature": ""},
    "half a signature": {"webhook_signature": "v1"},
    "not base64": {"webhook_signature": "v1,é"},
    "another version": {"webhook_signature": "v1a,YWJj"},
    "many signatures": {"webhook_signature": " ".join(["v1,YWJj"] * 900)},
    "no time": {"webhook_timestamp": "NaN"},
    "the end of time": {"webhook_timestamp": "1" + "0" * 300},
}


@pytest.mark.promise("processes", "A callback that no secret of its gateway signed within 5 minutes is refused")
async def test_what_the_gateway_did_not_sign_just_now_is_refused(waiting: Waiting) -> None:
    before = await waiting.events()
    for name, forged in FORGED.items():
        content = body(waiting.effect_id)
        headers = {key.encode(): value.encode() for key, value in signed(content, **forged).items()}
        answer = await waiting.client.post(PAYMENT, content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "callback-refused"), name
    bare = await waiting.client.post(PAYMENT, json=msgspec.json.decode(body(waiting.effect_id)))
    assert (bare.status_code, bare.json()["detail"]) == (
        403,
        "The callback is not accepted: Missing required headers.",
    )
    assert await waiting.events() == before


async def test_a_signature_is_of_the_bytes_of_the_body(waiting: Waiting) -> None:
    content = body(waiting.effect_id)
    for changed in (content + b" ", content.replace(b"Authorised", b"Declined\\u0020")):
        answer = await waiting.client.post(PAYMENT, content=changed, headers=signed(content))
        assert answer.status_code == 403


async def test_secrets_are_rotated_without_a_pause(waiting: Waiting) -> None:
    assert (await waiting.post(secret=OLD_SECRET)).status_code == 204
    assert await waiting.waits_for() == ["Capture"]


@pytest.mark.parametrize(
    ("path", "outcome", "effect_id", "answer"),
    [
        pytest.param(PAYMENT, "Authorised", "fulfilment-none-1", (404, "effect-not-found"), id="no process"),
        pytest.param(PAYMENT, "Authorised", "no-such-kind-1", (404, "effect-not-found"), id="no kind"),
        pytest.param(PAYMENT, "Authorised", "x", (404, "effect-not-found"), id="no id"),
        pytest.param(PAYMENT, "Captured", "", (422, "outcome-unexpected"), id="of another effect"),
        pytest.param(PAYMENT, "Declined", "", (422, "outcome-unexpected"), id="without its reason"),
        pytest.param(CARRIER, "Delivered", "", (404, "effect-not-found"), id="of another gateway"),
        pytest.param("/gateways/bank/events", "Authorised", "", (422, "invalid-request"), id="no gateway"),
    ],
)
async def test_what_answers_no_effect_is_refused(
    waiting: Waiting, path: str, outcome: str, effect_id: str, answer: tuple[int, str]
) -> None:
    secret = CARRIER_SECRET if path == CARRIER else SECRET
    given = await waiting.post(outcome, None, effect_id, path=path, secret=secret)
    assert (given.status_code, given.json()["code"]) == answer
    assert await waiting.waits_for() == ["Authorise"]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        pytest.param(b"{", (422, 400), id="half"),
        pytest.param(b"\xff", (422, 400), id="no text"),
        pytest.param(body("f-1-1")[:-1] + b',"a":' + b"[" * 100_000, (422, 400), id="nested"),
        pytest.param(body("f-1-1", data={"a": "x" * 600_000}), (413,), id="long"),
        pytest.param(body("f-1-1", data={str(number): 0 for number in range(1_000)}), (422,), id="wide"),
    ],
)
async def test_a_callback_has_bounds(waiting: Waiting, content: bytes, answer: tuple[int, ...]) -> None:
    headers = {"Content-Type": "application/json", **dict.fromkeys(HEADERS, "1")}
    given = await waiting.client.post(PAYMENT, content=content, headers=headers)
    assert given.status_code in answer


def test_signatures_are_those_of_the_specification() -> None:
    signatures = Signatures(SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    headers = signatures.sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, UTC), b'{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_without_a_secret_every_callback_is_refused() -> None:
    content = body("fulfilment-1-1")
    with pytest.raises(CallbackRefused, match="no secret is set"):
        Signatures(None).verify(signed(content), content)


@pytest.mark.parametrize("secret", ["hunter2hunter2hunter2", "whsec_", "whsec_c2hvcnQ=", f"{SECRET},", f"{SECRET} "])
def test_a_secret_that_is_none_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ValidationError, match="payment_gateway_secret"):
        settings_for("postgresql://", "redis://", payment_gateway_secret=secret)
    assert settings_for("postgresql://", "redis://", payment_gateway_secret="").payment_gateway_secret is None
