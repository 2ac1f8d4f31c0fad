"""The registry of gateways: a new one is a module with its effects and their answers, a line here, and its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from command_service.gateways import carrier, payment
from command_service.gateways.gateway import Gateway, GatewayMissing
from command_service.gateways.signatures import Signatures
from shared.settings import Settings


class GatewayKind(NamedTuple):
    name: str  # as in the settings, metrics and addresses
    answers: Mapping[type[Any], tuple[type[Any], ...]]  # what may answer each effect

    def url(self, settings: Settings) -> str:
        """Raises `GatewayMissing`."""
        if (url := getattr(settings, f"{self.name}_gateway_url")) is None:
            raise GatewayMissing(f"{self.name.upper()}_GATEWAY_URL is not set")
        return str(url.get_secret_value())

    def signatures(self, settings: Settings) -> Signatures:
        """Of its callbacks."""
        return Signatures(getattr(settings, f"{self.name}_gateway_secret"))


KINDS = {kind.name: kind for kind in (GatewayKind("payment", payment.ANSWERS), GatewayKind("carrier", carrier.ANSWERS))}


@asynccontextmanager
async def open_gateways(settings: Settings) -> AsyncIterator[Mapping[type[Any], Gateway]]:
    """The gateways of all kinds, by type of effect. Raises `GatewayMissing`."""
    # 8 MiB that the command service, which takes callbacks, does without.
    from command_service.gateways.http_client import circuit_breakers, open_http_gateway

    urls = {name: kind.url(settings) for name, kind in KINDS.items()}
    breakers = circuit_breakers(settings)
    gateways: dict[type[Any], Gateway] = {}
    async with AsyncExitStack() as stack:
        for name, kind in KINDS.items():
            opening = open_http_gateway(name, urls[name], kind.answers, breakers, settings.gateway_timeout_seconds)
            gateways |= dict.fromkeys(kind.answers, await stack.enter_async_context(opening))
        yield gateways
