"""The sandbox, over HTTP, as processes use it: each magic amount, and its ledger."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from command_service.gateways.carrier import (
    BookParcel,
    CancelParcel,
    Delivered,
    HandedOver,
    HandOver,
    Lost,
    OnTheWay,
    OutOfStock,
    ParcelBooked,
    ParcelCancelled,
    TrackParcel,
)
from command_service.gateways.gateway import Gateway, GatewayOutcomeUnknown, GatewayRefused, GatewayUnavailable
from command_service.gateways.payment import (
    Authorise,
    Authorised,
    Capture,
    Captured,
    Declined,
    Refund,
    Refunded,
    Void,
    Voided,
)
from command_service.gateways.sandbox.behaviour import AMOUNTS, PIECES
from shared.aggregates.order import LineQuantity
from tests.command_service.sandboxes import Sandbox, connected, running_sandbox, sandbox_settings
from tests.orders_command import start_orders
from tests.running import eventually, is_ready

pytestmark = pytest.mark.subprocess  # opens sockets
PAGE = Path(__file__).parents[2] / "docs" / "processes.md"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running_sandbox() as sandbox:
        yield sandbox


def book(*quantities: int, replaces: str | None = None) -> BookParcel:
    lines = [LineQuantity(f"line-{number}", quantity) for number, quantity in enumerate(quantities)]
    return BookParcel("536365", tuple(lines), replaces)


async def settled(gateway: Gateway, effect_id: str, effect: Any) -> Any:
    """What comes of it in the end, as a process asks: an unknown outcome is asked for, not repeated."""
    first = True

    async def outcome() -> Any:
        nonlocal first
        try:
            found = None if first else await gateway.outcome_of(effect_id)
            first = False
            return found or await gateway.carry_out(effect_id, effect)
        except (GatewayOutcomeUnknown, GatewayUnavailable):
            return None

    found = []

    async def is_known() -> bool:
        found.append(await outcome())
        return found[-1] is not None

    await eventually(is_known)
    return found[-1]


# --- payment -------------------------------------------------------------------------------------------------------


async def test_a_payment_is_authorised_captured_and_refunded(sandbox: Sandbox) -> None:
    pay = sandbox.payment
    assert await pay.carry_out("f-1-1", Authorise(5000, "GBP")) == Authorised()
    assert await pay.carry_out("f-1-2", Capture("f-1-1", 3000)) == Captured()
    assert await pay.carry_out("f-1-3", Void("f-1-1")) == Voided()
    assert await pay.carry_out("f-1-4", Refund("f-1-1", 3000)) == Refunded()


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(Capture("f-1-1", 5001), id="more than authorised"),
        pytest.param(Refund("f-1-1", 1), id="not captured"),
        pytest.param(Capture("f-9-9", 1), id="no such payment"),
        pytest.param(Authorise(0, "GBP"), id="nothing"),
    ],
)
async def test_the_sandbox_refuses_what_no_payment_service_does(sandbox: Sandbox, effect: Any) -> None:
    await sandbox.payment.carry_out("f-1-1", Authorise(5000, "GBP"))
    with pytest.raises(GatewayRefused):
        await sandbox.payment.carry_out("f-1-2", effect)
    assert await sandbox.payment.outcome_of("f-1-2") is None


@pytest.mark.promise("processes", "The sandbox carries out an effect of one id once, also where it is killed meanwhile")
async def test_an_effect_of_one_id_is_carried_out_once(sandbox: Sandbox) -> None:
    await sandbox.payment.carry_out("f-1-1", Authorise(5000, "GBP"))
    for _ in range(3):
        assert await sandbox.payment.carry_out("f-1-2", Capture("f-1-1", 5000)) == Captured()
    with pytest.raises(GatewayRefused, match="another effect came with this"):
        await sandbox.payment.carry_out("f-1-2", Refund("f-1-1", 5000))
    entries = await sandbox.ledger("payment")
    assert [(entry.effect_id, entry.effect, entry.outcome, entry.attempts) for entry in entries] == [
        ("f-1-1", "Authorise", "Authorised", 1),
        ("f-1-2", "Capture", "Captured", 3),
    ]


async def test_amounts_that_are_declined_or_reviewed(sandbox: Sandbox) -> None:
    pay = sandbox.payment
    assert await pay.carry_out("f-1-1", Authorise(9001, "GBP")) == Declined("insufficient funds")
    assert await pay.carry_out("f-2-1", Authorise(129002, "GBP")) == Authorised()
    assert await pay.carry_out("f-2-2", Capture("f-2-1", 129002)) == Declined("the authorisation has expired")
    assert await pay.carry_out("f-3-1", Authorise(9003, "GBP")) == Authorised(in_review=True)


# Of the first request; of the question what came of it; requests for the effect until it is settled.
FAULTS = {
    4: (GatewayOutcomeUnknown, GatewayOutcomeUnknown, 1),
    5: (GatewayOutcomeUnknown, Authorised(), 1),
    6: (GatewayOutcomeUnknown, Authorised(), 1),
    7: (GatewayUnavailable, None, 2),
    8: (GatewayOutcomeUnknown, None, 2),
}


@pytest.mark.promise("processes", "An effect whose outcome is unknown is asked for, and not repeated where it was done")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_lost_answer_is_asked_for(sandbox: Sandbox, fault: int) -> None:
    error, known, requests = FAULTS[fault]
    effect = Authorise(9000 + fault, "GBP")
    with pytest.raises(error):
        await sandbox.payment.carry_out("f-1-1", effect)
    if known is GatewayOutcomeUnknown:
        with pytest.raises(GatewayOutcomeUnknown):
            await sandbox.payment.outcome_of("f-1-1")
    else:
        assert await sandbox.payment.outcome_of("f-1-1") == known

    async def outcome() -> Any:
        try:
            return await sandbox.payment.outcome_of("f-1-1")
        except GatewayOutcomeUnknown:
            return None

    if requests == 1:
        await eventually(outcome)
    else:
        assert await sandbox.payment.carry_out("f-1-1", effect) == Authorised()
    [entry] = await sandbox.ledger("payment", "f-1")
    assert (entry.outcome, entry.attempts) == ("Authorised", requests)


@pytest.mark.parametrize("amount", [9004, 9005, 9006, 9007, 9008, 9009])
async def test_every_effect_of_a_payment_fails_once_and_is_settled(sandbox: Sandbox, amount: int) -> None:
    assert await settled(sandbox.payment, "f-1-1", Authorise(amount, "GBP")) == Authorised()
    assert await settled(sandbox.payment, "f-1-2", Capture("f-1-1", amount)) == Captured()
    assert await settled(sandbox.payment, "f-1-3", Refund("f-1-1", amount)) == Refunded()
    assert [entry.effect for entry in await sandbox.ledger("payment", "f-1")] == ["Authorise", "Capture", "Refund"]


# --- carrier -------------------------------------------------------------------------------------------------------


async def test_a_parcel_is_booked_handed_over_and_delivered(sandbox: Sandbox) -> None:
    parcel = await sandbox.carrier.carry_out("f-1-1", book(3))
    assert parcel == ParcelBooked("track-f-1-1", "sandbox", (LineQuantity("line-0", 3),))
    assert await sandbox.carrier.carry_out("f-1-2", HandOver("track-f-1-1")) == HandedOver()
    assert await sandbox.carrier.carry_out("f-1-3", TrackParcel("track-f-1-1")) == Delivered()
    with pytest.raises(GatewayRefused, match="is on the way"):
        await sandbox.carrier.carry_out("f-1-4", CancelParcel("track-f-1-1"))


async def test_a_parcel_that_has_not_left_can_be_cancelled_and_not_tracked(sandbox: Sandbox) -> None:
    await sandbox.carrier.carry_out("f-1-1", book(3))
    with pytest.raises(GatewayRefused, match="is booked"):
        await sandbox.carrier.carry_out("f-1-2", TrackParcel("track-f-1-1"))
    assert await sandbox.carrier.carry_out("f-1-3", CancelParcel("track-f-1-1")) == ParcelCancelled()
    with pytest.raises(GatewayRefused, match="is cancelled"):
        await sandbox.carrier.carry_out("f-1-4", HandOver("track-f-1-1"))


async def tracked(sandbox: Sandbox, pieces: int, times: int) -> list[Any]:
    """What the carrier answers about a parcel, and about one that replaces it."""
    answers = []
    for order, replaces in (("1", None), ("2", "track-f-1-1")):
        number = f"track-f-{order}-1"
        await sandbox.carrier.carry_out(f"f-{order}-1", book(pieces, replaces=replaces))
        await sandbox.carrier.carry_out(f"f-{order}-2", HandOver(number))
        answers += [await sandbox.carrier.carry_out(f"f-{order}-{n}", TrackParcel(number)) for n in range(3, 3 + times)]
    return answers


async def test_pieces_that_are_missing(sandbox: Sandbox) -> None:
    assert await sandbox.carrier.carry_out("f-1-1", book(2, 901)) == OutOfStock()
    parcel = await sandbox.carrier.carry_out("f-2-1", book(1, 902))
    assert parcel.lines == (LineQuantity("line-0", 1), LineQuantity("line-1", 451))


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        (903, [Lost(), Lost()]),
        (910, [Lost(), Delivered()]),
        (911, [OnTheWay(), OnTheWay(), Delivered(), OnTheWay(), OnTheWay(), Delivered()]),
    ],
)
async def test_parcels_that_are_lost_or_slow(sandbox: Sandbox, pieces: int, answers: list[Any]) -> None:
    assert await tracked(sandbox, pieces, len(answers) // 2) == answers


@pytest.mark.parametrize("pieces", [904, 905, 906, 907, 908, 909])
async def test_every_effect_of_a_parcel_fails_once_and_is_settled(sandbox: Sandbox, pieces: int) -> None:
    parcel = await settled(sandbox.carrier, "f-1-1", book(pieces))
    assert await settled(sandbox.carrier, "f-1-2", HandOver(parcel.tracking_number)) == HandedOver()
    assert await settled(sandbox.carrier, "f-1-3", TrackParcel(parcel.tracking_number)) == Delivered()
    assert [entry.effect for entry in await sandbox.ledger("carrier", "f-1")] == [
        "BookParcel",
        "HandOver",
        "TrackParcel",
    ]


# --- the program ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"{}", {"Idempotency-Key": "f-1-1"}, 422, id="no effect"),
        pytest.param(b'{"effect":"HandOver","data":{}}', {"Idempotency-Key": "f-1-1"}, 422, id="the carrier's"),
        pytest.param(b'{"effect":"Void","data":' + b'{"a":' * 50_000, {"Idempotency-Key": "f-1-1"}, 422, id="nested"),
        pytest.param(b'{"effect":"Authorise","data":{"amount":1,"currency":"GBP"}}', {}, 422, id="no key"),
        pytest.param(b'{"a":"' + b"x" * 600_000 + b'"}', {"Idempotency-Key": "f-1-1"}, 413, id="too long"),
    ],
)
async def test_a_request_that_cannot_be_read_is_refused(
    sandbox: Sandbox, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await sandbox.client.post("/payment/effects", content=body, headers=headers)
    assert answer.status_code == status
    assert await sandbox.ledger("payment") == []


async def test_a_killed_sandbox_has_lost_nothing(tmp_path: Path) -> None:
    settings = sandbox_settings(sandbox_ledger=str(tmp_path / "sandbox.db"))
    env = {
        "DATABASE_URL": "postgresql://unused",
        "REDIS_URL": "redis://unused",
        "SANDBOX_PORT": str(settings.sandbox_port),
        "SANDBOX_LEDGER": settings.sandbox_ledger,
    }

    async def started(client: httpx.AsyncClient) -> subprocess.Popen[str]:
        process = start_orders("run", "sandbox", env=env, output=subprocess.DEVNULL)

        async def answers() -> bool:
            try:
                return await is_ready(client)
            except httpx.TransportError:
                return False

        await eventually(answers, seconds=30)
        return process

    async with connected(settings) as sandbox:
        process = await started(sandbox.client)
        with pytest.raises(GatewayOutcomeUnknown):
            await sandbox.payment.carry_out("f-1-1", Authorise(9004, "GBP"))  # is carried out a second later
        assert await sandbox.carrier.carry_out("f-1-1", book(1)) is not None
        process.kill()
        process.wait()
        process = await started(sandbox.client)
        try:
            assert isinstance(await sandbox.carrier.outcome_of("f-1-1"), ParcelBooked)
            assert await settled(sandbox.payment, "f-1-1", Authorise(9004, "GBP")) == Authorised()
            assert len(await sandbox.ledger("payment")) == len(await sandbox.ledger("carrier")) == 1
        finally:
            process.kill()
            process.wait()


def test_the_page_lists_the_magic_amounts() -> None:
    amounts = [f"| `{amount}` | {behaviour} |" for amount, behaviour in AMOUNTS.items()]
    pieces = [f"| {count} | {behaviour} |" for count, behaviour in PIECES.items()]
    for table in (
        "\n".join(["| amount ends in | what happens |", "|---|---|", *amounts]),
        "\n".join(["| pieces of a line | what happens |", "|---|---|", *pieces]),
    ):
        assert table in PAGE.read_text(), f"docs/processes.md should hold:\n{table}"
