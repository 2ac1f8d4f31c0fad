"""The cost of a verified token on rows 3 and 4: services with AUTH=jwt against the same services with AUTH=off.

The callers are customers, whose orders are checked for their owner. Not in the table: `python -m bench.verified_token`.
"""

from __future__ import annotations

import sys
from functools import partial

from bench import orders
from bench.http_connection import get_request, json_request
from bench.interleave import interleave
from bench.load import Flow, Plan, Report, run
from bench.place_order import CONNECTIONS
from bench.read_your_writes import wait_until_read
from bench.result import Goal, Result
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers
from cli.stack.local_issuer import LocalIssuer
from shared.identity.caller import Role

CALLERS = 1_000
_CUSTOMERS = 5_000  # of the orders that are read
_SECONDS = 3_600  # that a token is valid


def measure(servers: Servers, scale: Scale) -> list[Result]:
    issuer = LocalIssuer(servers.directory)
    issuer.create()
    return [_place(servers, scale, issuer), _read(servers, scale, issuer)]


def _place(servers: Servers, scale: Scale, issuer: LocalIssuer) -> Result:
    request = partial(json_request, "POST", "/orders", orders.BODY)
    with (
        servers.services(servers.database(), commands=1) as without,
        servers.services(servers.database(), commands=1, settings=_unlimited(issuer)) as with_token,
    ):
        jwt, off = interleave(
            scale.short.rounds,
            lambda: _load(with_token.port("command"), scale.short, [request(**_bearer(issuer, "17850"))]),
            lambda: _load(without.port("command"), scale.short, [request()]),
        )
    return _result(3, "POST /orders", jwt, off)


def _read(servers: Servers, scale: Scale, issuer: LocalIssuer) -> Result:
    databases = servers.database(), servers.database()  # a database has one projector at work
    for database in databases:
        orders.place(database, range(_CUSTOMERS))
    paths = {number: f"/orders/{orders.order_id(number)}" for number in range(CALLERS)}
    plain = [get_request(path) for path in paths.values()]
    signed = [get_request(path, **_bearer(issuer, orders.customer_id(number))) for number, path in paths.items()]
    with (
        servers.services(databases[0], queries=1) as without,
        servers.services(databases[1], queries=1, settings=_unlimited(issuer)) as with_token,
    ):
        wait_until_read(without, orders.order_id(_CUSTOMERS - 1))
        wait_until_read(with_token, orders.order_id(_CUSTOMERS - 1), **_bearer(issuer, None))
        jwt, off = interleave(
            scale.short.rounds,
            lambda: _load(with_token.port("query"), scale.short, signed),
            lambda: _load(without.port("query"), scale.short, plain),
        )
    return _result(4, "GET /orders/{id}", jwt, off)


def _unlimited(issuer: LocalIssuer) -> dict[str, str]:
    """The settings of a service that trusts the issuer, and lets a caller send any number of requests."""
    return {**issuer.environment, "RATE_LIMIT": "0"}


def _bearer(issuer: LocalIssuer, customer_id: str | None) -> dict[str, str]:
    """The header of a customer; None: of the staff."""
    role = Role.STAFF if customer_id is None else Role.CUSTOMER
    return {"Authorization": f"Bearer {issuer.token(customer_id or 'staff', [role], customer_id, _SECONDS)}"}


def _load(port: int, scale: Scale, requests: list[bytes]) -> Report:
    flow = Flow(name="jwt", requests=requests, ports=[port], connections=CONNECTIONS)
    return run(Plan(flows=[flow], warm_up=scale.warm_up, seconds=scale.seconds))


def _result(row: int, route: str, jwt: list[Report], off: list[Report]) -> Result:
    return Result(
        row=row,
        label=f"{route}, AUTH=jwt",
        measure=f"`{route}` with a verified token",
        unit="requests/s",
        ours=[report.per_second() for report in jwt],
        against="the same with AUTH=off",
        theirs=[report.per_second() for report in off],
        goal=Goal("at least", 0.95),
        n=sum(report.flows[0].answers for report in jwt),
        client_cpu=max(report.client_cpu for report in (*jwt, *off)),
    )


if __name__ == "__main__":
    sys.exit(run_row(measure))
