"""The HTTP client of gateways, against servers that answer as services at their worst do."""

from __future__ import annotations

import asyncio
import gzip
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from cli.stack.embedded_server import free_port
from command_service.gateways.carrier import HandedOver, HandOver
from command_service.gateways.gateway import (
    Gateway,
    GatewayMissing,
    GatewayOutcomeUnknown,
    GatewayRefused,
    GatewayUnavailable,
)
from command_service.gateways.http_client import MAX_ANSWER_BYTES
from command_service.gateways.payment import Authorise, Authorised, Declined
from command_service.gateways.registry import open_gateways
from shared.settings import Settings
from tests.running import eventually

pytestmark = pytest.mark.subprocess  # opens sockets
EFFECT_ID = "fulfilment-536365-1"
EFFECT = Authorise(4999, "GBP")

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Service:
    """A server that answers each request with the next of its answers, the last one for ever."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[bytes] = []
        self.answers: list[bytes | Answer] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/payment"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        self.requests.append(head + await reader.readexactly(length))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except OSError:
            pass  # the client has enough
        finally:
            writer.close()


def http(status: int, body: bytes = b"", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


def outcome(value: msgspec.Struct, effect_id: str = EFFECT_ID) -> bytes:
    message = {"effect_id": effect_id, "outcome": type(value).__name__, "data": value}
    return http(200, msgspec.json.encode(message))


async def silence(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def flood(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(bytes(MAX_ANSWER_BYTES))
        await writer.drain()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service(free_port())
    async with await asyncio.start_server(service.serve, "127.0.0.1", service.port):
        yield service


def settings(payment_url: str, **changes: Any) -> Settings:
    return Settings.model_validate(
        {
            "database_url": "postgresql://unused",
            "redis_url": "redis://unused",
            "payment_gateway_url": payment_url,
            "carrier_gateway_url": payment_url.replace("/payment", "/carrier"),
            "gateway_timeout_seconds": 0.3,
            "gateway_pause_seconds": 0.2,
            **changes,
        }
    )


@asynccontextmanager
async def payments(url: str, **changes: Any) -> AsyncIterator[Gateway]:
    async with open_gateways(settings(url, **changes)) as gateways:
        yield gateways[Authorise]


async def test_an_effect_is_sent_with_its_id_as_idempotency_key(service: Service) -> None:
    service.answers = [outcome(Authorised(in_review=True))]
    async with payments(service.url) as gateway:
        assert await gateway.carry_out(EFFECT_ID, EFFECT) == Authorised(in_review=True)
    [request] = service.requests
    assert request.startswith(b"POST /payment/effects HTTP/1.1\r\n")
    assert b"\r\nidempotency-key: fulfilment-536365-1\r\n" in request.lower()
    assert request.endswith(b'\r\n\r\n{"effect":"Authorise","data":{"amount":4999,"currency":"GBP"}}')


async def test_an_outcome_is_asked_for_by_the_id_of_the_effect(service: Service) -> None:
    service.answers = [outcome(Declined("no funds")), http(404)]
    async with payments(service.url) as gateway:
        assert await gateway.outcome_of(EFFECT_ID) == Declined("no funds")
        assert await gateway.outcome_of("odd id/../2") is None
    assert service.requests[0].startswith(b"GET /payment/effects/fulfilment-536365-1 HTTP/1.1\r\n")
    assert service.requests[1].startswith(b"GET /payment/effects/odd%20id%2F..%2F2 HTTP/1.1\r\n")


@pytest.mark.promise("processes", "A gateway that cannot be reached, or answers 503, is one that did nothing")
async def test_nothing_was_done_where_the_service_cannot_be_reached_or_says_so(service: Service) -> None:
    service.answers = [http(503, headers="Retry-After: 7\r\n"), http(429, headers="Retry-After: 99999\r\n"), http(401)]
    async with payments(f"http://127.0.0.1:{free_port()}/payment") as gateway:
        with pytest.raises(GatewayUnavailable, match="ConnectError"):
            await gateway.carry_out(EFFECT_ID, EFFECT)
    async with payments(service.url) as gateway:
        waits = []
        for _ in range(3):
            with pytest.raises(GatewayUnavailable) as raised:
                await gateway.carry_out(EFFECT_ID, EFFECT)
            waits.append(raised.value.retry_after)
    assert waits == [7, 300, 1]


@pytest.mark.bound("processes", "one answer of a gateway; its connections")
@pytest.mark.promise("processes", "A call without a readable answer has an unknown outcome, within its time-out")
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(silence, id="no answer"),
        pytest.param(drip, id="a byte now and then"),
        pytest.param(flood, id="an answer without end"),
        pytest.param(b"", id="the connection ends"),
        pytest.param(b"\x16\x03\x01\x02", id="not HTTP"),
        pytest.param(http(500), id="500"),
        pytest.param(http(302, headers="Location: http://127.0.0.1:1/\r\n"), id="elsewhere"),
        pytest.param(http(202), id="at work"),
        pytest.param(http(200, b"<html>"), id="not JSON"),
        pytest.param(http(200, b'{"effect_id":"1","outcome":"","data":{"a":' + b"[" * 60_000), id="nested"),
        pytest.param(http(200, b'{"effect_id":"\xff"}'), id="not UTF-8"),
        pytest.param(outcome(Authorised(), "fulfilment-536365-2"), id="of another effect"),
        pytest.param(outcome(HandedOver()), id="an answer to other effects"),
        pytest.param(http(200, gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip\r\n"), id="50 MB in 50 KB"),
    ],
)
async def test_the_outcome_is_unknown_where_no_answer_can_be_read(service: Service, answer: bytes | Answer) -> None:
    service.answers = [answer]
    async with payments(service.url) as gateway, asyncio.timeout(2):
        with pytest.raises(GatewayOutcomeUnknown):
            await gateway.carry_out(EFFECT_ID, EFFECT)


async def test_what_the_service_refuses_is_refused_and_is_no_failure_of_the_service(service: Service) -> None:
    service.answers = [http(422, b"no such payment")]
    async with payments(service.url, gateway_failures=1) as gateway:
        for _ in range(3):
            with pytest.raises(GatewayRefused, match="422: no such payment"):
                await gateway.carry_out(EFFECT_ID, EFFECT)


@pytest.mark.promise("processes", "After failures in a row a gateway is not called for a while, and then again")
async def test_a_circuit_breaker_opens_after_failures_and_closes_after_a_success(service: Service) -> None:
    service.answers = [http(500), http(500), outcome(Authorised())]
    async with payments(service.url, gateway_failures=2) as gateway:
        for _ in range(2):
            with pytest.raises(GatewayOutcomeUnknown):
                await gateway.carry_out(EFFECT_ID, EFFECT)
        for _ in range(20):
            with pytest.raises(GatewayUnavailable, match="circuit breaker is open"):
                await gateway.carry_out(EFFECT_ID, EFFECT)
        assert len(service.requests) == 2

        async def answers() -> bool:
            try:
                await gateway.carry_out(EFFECT_ID, EFFECT)
            except GatewayUnavailable:
                return False
            return True

        await eventually(answers)
        assert await answers()


async def test_a_circuit_breaker_opens_again_at_the_first_failure_after_its_pause(service: Service) -> None:
    service.answers = [http(500)]
    async with payments(service.url, gateway_failures=3) as gateway:
        for _ in range(3):
            with pytest.raises(GatewayOutcomeUnknown):
                await gateway.carry_out(EFFECT_ID, EFFECT)

        async def is_called() -> bool:
            with pytest.raises((GatewayUnavailable, GatewayOutcomeUnknown)):
                await gateway.carry_out(EFFECT_ID, EFFECT)
            return len(service.requests) == 4

        await eventually(is_called)
        with pytest.raises(GatewayUnavailable):
            await gateway.carry_out(EFFECT_ID, EFFECT)


async def test_each_gateway_has_a_circuit_breaker_of_its_own(service: Service) -> None:
    service.answers = [http(500), outcome(HandedOver())]
    async with open_gateways(settings(service.url, gateway_failures=1)) as gateways:
        with pytest.raises(GatewayOutcomeUnknown):
            await gateways[Authorise].carry_out(EFFECT_ID, EFFECT)
        assert await gateways[HandOver].carry_out(EFFECT_ID, HandOver("track-1")) == HandedOver()
    assert service.requests[1].startswith(b"POST /carrier/effects ")


async def test_a_password_in_the_address_is_sent_and_shown_nowhere(service: Service) -> None:
    url = service.url.replace("127.0.0.1", "shop:s3cret@127.0.0.1")
    service.answers = [http(500)]
    async with payments(url) as gateway:
        with pytest.raises(GatewayOutcomeUnknown) as raised:
            await gateway.carry_out(EFFECT_ID, EFFECT)
    assert b"authorization: basic " + b64encode(b"shop:s3cret").lower() in service.requests[0].lower()
    assert "s3cret" not in f"{raised.value!r} {raised.value} {settings(url)!r}"


async def test_a_missing_address_is_named() -> None:
    changed = settings("http://127.0.0.1/payment").model_copy(update={"carrier_gateway_url": None})
    with pytest.raises(GatewayMissing, match="CARRIER_GATEWAY_URL is not set"):
        async with open_gateways(changed):
            pass
