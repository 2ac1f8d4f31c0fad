"""A gateway over HTTP: time-outs, a circuit breaker, answers of bounded size.

The service that it calls carries out `POST /effects` once for each `Idempotency-Key`, and says with
`GET /effects/{effect_id}` what became of one (404: nothing).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from purgatory import AsyncCircuitBreakerFactory, ContextChanged, Event
from purgatory.domain.model import OpenedState

from command_service.gateways.gateway import (
    Gateway,
    GatewayOutcomeUnknown,
    GatewayRefused,
    GatewayUnavailable,
)
from command_service.gateways.messages import OutcomeMessage, UnreadableMessage, message_of, read_message, read_typed
from shared import metrics
from shared.errors import OrdersError
from shared.logs import get_logger
from shared.settings import Settings

MAX_ANSWER_BYTES = 64 * 1024
MAX_CONNECTIONS = 64  # of one gateway
CONNECT_SECONDS = 3.0
MAX_RETRY_AFTER = 300.0  # seconds that a service may ask for

_NOTHING_DONE = {401, 403, 404, 405, 429, 503}  # settings are wrong, or the service is overloaded: may pass
_REFUSED = {400, 413, 415, 422}
_IN_PROGRESS = 202
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)

_log = get_logger()


def circuit_breakers(settings: Settings) -> AsyncCircuitBreakerFactory:
    """One for each gateway. After `GATEWAY_FAILURES` failed calls in a row it refuses all for `GATEWAY_PAUSE_SECONDS`;
    then it lets calls through, and the first answer or failure decides."""
    factory = AsyncCircuitBreakerFactory(
        default_threshold=settings.gateway_failures,
        default_ttl=settings.gateway_pause_seconds,
        exclude=[GatewayRefused],
    )
    factory.add_listener(_record_change)
    return factory


def _record_change(name: str, _event_type: str, event: Event) -> None:
    if isinstance(event, ContextChanged):
        metrics.GATEWAY_CIRCUIT_OPEN.labels(name).set(event.state == "opened")
        _log.warning("circuit breaker changed", gateway=name, state=event.state)


@asynccontextmanager
async def open_http_gateway(
    name: str,
    url: str,
    answers: Mapping[type[Any], tuple[type[Any], ...]],
    breakers: AsyncCircuitBreakerFactory,
    timeout_seconds: float,
) -> AsyncIterator[Gateway]:
    """The gateway at `url`, whose user and password are sent as Basic authentication."""
    async with httpx.AsyncClient(
        base_url=url,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
    ) as client:
        yield HttpGateway(name, client, answers, breakers, timeout_seconds)


class HttpGateway:
    def __init__(
        self,
        name: str,
        client: httpx.AsyncClient,
        answers: Mapping[type[Any], tuple[type[Any], ...]],
        breakers: AsyncCircuitBreakerFactory,
        timeout_seconds: float,
    ) -> None:
        self._name = name
        self._client = client
        self._answers = answers
        self._breakers = breakers
        self._timeout_seconds = timeout_seconds
        metrics.GATEWAY_CIRCUIT_OPEN.labels(name).set(0)

    async def carry_out(self, effect_id: str, effect: Any) -> Any:
        request = self._client.build_request(
            "POST",
            "effects",
            content=msgspec.json.encode(message_of(effect)),
            headers={"Content-Type": "application/json", "Idempotency-Key": effect_id},
        )
        status, content = await self._call(request)
        return _read(status, content, effect_id, self._answers[type(effect)])

    async def outcome_of(self, effect_id: str) -> Any | None:
        request = self._client.build_request("GET", f"effects/{quote(effect_id, safe='')}")
        status, content = await self._call(request)
        if status == httpx.codes.NOT_FOUND:
            return None
        return _read(status, content, effect_id, [one for some in self._answers.values() for one in some])

    async def _call(self, request: httpx.Request) -> tuple[int, bytes]:
        """The status and body of an answer that says something about the effect."""
        result = "answered"
        try:
            async with await self._breakers.get_breaker(self._name):
                return await self._exchange(request)
        except OpenedState as error:
            error.__traceback__ = None  # it is raised again and again, and would grow
            result = "not-sent"
            raise GatewayUnavailable("its circuit breaker is open") from None
        except OrdersError as error:
            result = error.code.removeprefix("gateway-")
            raise
        finally:
            metrics.GATEWAY_CALLS.labels(self._name, result).inc()

    async def _exchange(self, request: httpx.Request) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._client.send(request, stream=True)
                try:
                    content = await _bounded(response)
                finally:
                    await response.aclose()
        except _NOT_SENT as error:
            raise GatewayUnavailable(f"{type(error).__name__}: {error}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise GatewayOutcomeUnknown(f"{type(error).__name__}: {error}") from error
        status = response.status_code
        if response.is_success or (request.method == "GET" and status == httpx.codes.NOT_FOUND):
            return status, content
        if status in _NOTHING_DONE:
            raise GatewayUnavailable(f"it answers {status}", _retry_after(response))
        if status in _REFUSED:
            raise GatewayRefused(f"it answers {status}: {content[:500].decode(errors='replace')}")
        raise GatewayOutcomeUnknown(f"it answers {status}")


async def _bounded(response: httpx.Response) -> bytes:
    """The body as it came. Raises `GatewayOutcomeUnknown` where it is too long."""
    content = b""
    async for part in response.aiter_raw():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise GatewayOutcomeUnknown(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
    return content


def _retry_after(response: httpx.Response) -> float:
    """Seconds. A service that sends a date, or nothing, is asked again after one."""
    given = response.headers.get("Retry-After", "")
    return min(float(given), MAX_RETRY_AFTER) if given.isascii() and given.isdigit() else 1.0


def _read(status: int, content: bytes, effect_id: str, outcomes: Any) -> Any:
    """Raises `GatewayOutcomeUnknown` where it says none of these outcomes."""
    if status == _IN_PROGRESS:
        raise GatewayOutcomeUnknown("it is still at work")
    try:
        message = read_message(content, OutcomeMessage)
        if message.effect_id != effect_id:
            raise UnreadableMessage("it is of another effect")
        return read_typed(message.outcome, message.data, outcomes)
    except UnreadableMessage as error:
        raise GatewayOutcomeUnknown(f"its answer cannot be read: {error}") from error
