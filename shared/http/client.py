"""Names the client of a request, for limits per client."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from starlette.types import Scope

_IPV6_PREFIX = 64  # a network of this size is what one customer of a provider has


def client_of(scope: Scope) -> str:
    """The caller, where a token identifies one; else the client's address, behind a proxy of `FORWARDED_ALLOW_IPS` the
    one that it forwards."""
    if (caller := scope.get("caller")) is not None:
        return f"caller {caller.subject}"
    client = scope.get("client")
    return client_at(client[0]) if client else "unknown"


def client_at(address: str) -> str:
    """The client with this address. All addresses of an IPv6 network of 64 bits are one client."""
    return _network_of(address) if ":" in address else address


@lru_cache(maxsize=1_000)
def _network_of(address: str) -> str:
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed, _IPV6_PREFIX), strict=False))
