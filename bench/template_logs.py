"""Event logs of a given size, filled once and copied for each measure."""

from __future__ import annotations

from bench import orders
from bench.servers import Servers


def template_log(servers: Servers, events: int) -> str:
    """Returns the URL of a log of that many events. Copy it instead of changing it. Extends a copy of the largest
    smaller one."""
    name = _name(events)
    if name in servers.databases:
        return servers.url(name)
    smaller = max((size for size in _sizes(servers) if size < events), default=0)
    url = servers.copy(servers.url(_name(smaller)), name) if smaller else servers.database(name)
    orders.fill(url, events - smaller, first_order=smaller // orders.EVENTS_OF_AN_ORDER)
    servers.vacuum(url)
    return url


def _name(events: int) -> str:
    return f"log_{events}"


def _sizes(servers: Servers) -> list[int]:
    return [int(name.removeprefix("log_")) for name in servers.databases if name.startswith("log_")]
