"""Every setting of every process, read from the environment.

One flat namespace, so that docker-compose, the embedded stack and a shell set the same names. A secret is a
`SecretStr`: it does not appear in logs, tracebacks or `repr`.
"""

from __future__ import annotations

import re
from functools import cache
from ipaddress import ip_address
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings

OnPoison: TypeAlias = Literal["stop", "park"]

_COUNT = r"[a-z_]+=([1-9]|[1-5]\d|6[0-4])"
_PARTITIONS = rf"^({_COUNT}(,{_COUNT})*)?$"
_ORIGIN = r"https?://[A-Za-z0-9.-]+(:([0-9]{1,5}|\*))?"
_ORIGINS = rf"^(\*|{_ORIGIN}(,{_ORIGIN})*)?$"
_HOST = r"([A-Za-z0-9._-]+|\[[0-9a-f:]+\])"
_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}")
_HOSTS = rf"^(\*|{_HOST}(,{_HOST})*)?$"

EMPTY_IS_NONE = BeforeValidator(lambda given: None if given == "" else given)


def _check_webhook_secrets(given: SecretStr | None) -> SecretStr | None:
    secrets = [] if given is None else given.get_secret_value().split(",")
    if not all(_WEBHOOK_SECRET.fullmatch(secret) for secret in secrets):
        raise ValueError("give secrets of Standard Webhooks, with commas: `whsec_` and 24 to 64 bytes in base64")
    return given


OptionalSecret: TypeAlias = Annotated[SecretStr | None, EMPTY_IS_NONE]
WebhookSecrets: TypeAlias = Annotated[SecretStr | None, EMPTY_IS_NONE, AfterValidator(_check_webhook_secrets)]


class Settings(BaseSettings):
    """Settings shared by all processes; the field name in capitals is the environment variable."""

    database_url: SecretStr = Field(description="PostgreSQL URL of the event log")
    history_database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL for history and time travel, such as a replica's; default: database_url"
    )
    redis_url: SecretStr = Field(
        description="Redis or Valkey URL of the read models; redis+cluster:// names a node of a Cluster"
    )
    host: str = Field("127.0.0.1", description="address the HTTP servers bind to")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG adds one line a request")

    command_port: int = Field(8001, ge=1, le=65535, description="the command service")
    query_port: int = Field(8002, ge=1, le=65535, description="the query service")
    projector_port: int = Field(8003, ge=1, le=65535, description="the projector's health and metrics")
    processes_port: int = Field(8004, ge=1, le=65535, description="the process runner's health and metrics")
    operations_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="what is for operators, apart from clients; without it on the port for clients if `HOST` is a"
        " loopback address, else nowhere",
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="path prefix that a proxy in front takes off, such as /shop",
    )
    query_url: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#]+(/[^\s?#]*[^\s?#/])?)?$",
        description="the query service as clients address it, for `Location`; empty: the origin of the command service",
    )
    allowed_hosts: str = Field(
        "",
        pattern=_HOSTS,
        description="host names in `Host` that are served, with commas, without ports; `*`: any; empty: localhost and"
        " loopback addresses if `HOST` is one, else any",
    )
    cors_origins: str = Field(
        "",
        pattern=_ORIGINS,
        description="origins whose pages may call us, with commas, such as https://shop.example; the port may be `*`;"
        " `*`: any; empty: none",
    )

    keep_alive_seconds: float = Field(
        75.0, gt=0, description="how long a connection stays open between two requests; longer than a proxy keeps it"
    )
    max_connections: int = Field(4_000, ge=1, description="open connections of a process; more are refused")
    max_connections_per_client: int = Field(
        1_000, ge=1, description="open connections of one address, or IPv6 network of 64 bits; more are refused"
    )
    forwarded_allow_ips: str = Field(
        "",
        description="addresses and networks, with commas, of proxies whose `X-Forwarded-For` names the client of a"
        " request; empty: none",
    )
    max_body_bytes: int = Field(512 * 1024, ge=1024, description="larger request bodies are answered 413")
    drain_seconds: float = Field(
        0.0, ge=0, description="how long a stopping server goes on, while `/readyz` says so, before it stops listening"
    )
    shutdown_seconds: float = Field(10.0, gt=0, description="how long a stopping server finishes what it accepted")

    auth: Literal["off", "jwt"] = Field("off", description="whether callers identify themselves, by a bearer token")
    auth_issuer: str = Field("", description="the claim `iss` of tokens; needed with AUTH=jwt")
    auth_audience: str = Field("", description="the claim `aud` of tokens; needed with AUTH=jwt")
    auth_jwks: str = Field("", description="URL or file of the keys that verify tokens; needed with AUTH=jwt")
    auth_off_anywhere: bool = Field(
        False, description="`yes`: with AUTH=off the service may listen on more than a loopback address"
    )

    rate_limit: Annotated[int | None, EMPTY_IS_NONE] = Field(
        None,
        ge=0,
        le=1_000_000,
        description="requests a second of one client, on average, before 429; 0: any number; empty: 200 with AUTH=jwt,"
        " else 0",
    )
    rate_limit_burst: int = Field(1_000, ge=1, le=1_000_000, description="requests of one client at once before 429")

    admission_delay_seconds: float = Field(
        0.03, ge=0, description="standing delay of the event loop at which commands are refused; 0: never"
    )
    append_queue_size: int = Field(
        1_000, ge=1, description="commands in progress, and waiting to be appended, before 503"
    )
    append_group_size: int = Field(256, ge=1, description="most commands in one append_group call")
    append_wait_seconds: float = Field(5.0, gt=0, description="longest wait in the queue before 503")
    append_timeout_seconds: float = Field(10.0, gt=0, description="longest append_group call before 504")
    conflict_retries: int = Field(8, ge=0, description="times a command is decided again after a version conflict")
    state_cache_bytes: int = Field(
        48 * 1024 * 1024,
        ge=0,
        description="bytes of memory in which the latest states of aggregates are cached; 0: none",
    )
    idempotency_days: float = Field(7.0, ge=1, description="how long an Idempotency-Key is kept")
    purge_interval_seconds: float = Field(600.0, gt=0, description="time between purges of old Idempotency-Keys")

    reservation_minutes: float = Field(
        0,
        ge=0,
        le=525_600,
        description="how long an order that is not confirmed keeps its reserved stock; 0: for ever",
    )

    fulfilment: Literal["off", "orchestrated", "choreographed"] = Field(
        "off", description="what fulfils orders: clients by the routes alone; one process an order; one for each part"
    )

    throttle_for: str = Field(
        "orders",
        pattern="^([a-z_]+(,[a-z_]+)*)?$",
        description="read models that throttle commands when more than 30 s behind, with commas; empty: none does",
    )
    long_transaction_seconds: float = Field(60.0, gt=0, description="age at which a transaction is named as a stall")

    snapshot_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="secret that authenticates snapshots, of every command service; without it none is kept",
    )
    key_encryption_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="secrets that wrap the keys of personal data, the newest first, with commas; without one, and"
        " without a file, nothing about a person is taken or shown",
    )
    key_encryption_key_file: str = Field(
        "", description="file of these secrets instead, one a line; it is read again after `orders keys rotate`"
    )
    unknown_customers: Literal["accept", "refuse"] = Field(
        "accept", description="orders of customers who are not registered, or have no payment method: accept, refuse"
    )
    unknown_products: Literal["accept", "refuse"] = Field(
        "accept", description="orders of products that the catalogue does not have: accept, refuse"
    )

    snapshot_every_events: int = Field(100, ge=0, description="events after which a stream's state is kept; 0: never")
    snapshot_max_age_seconds: float = Field(0, ge=0, description="age at which a kept state is renewed; 0: never")
    snapshot_command_events: int = Field(0, ge=0, description="keep the state after a command of so many events; 0: no")
    compact_interval_seconds: float = Field(
        300.0, ge=0, description="time between background compactions in the command service; 0: none"
    )

    payment_gateway_url: OptionalSecret = Field(
        None, description="the payment service; a user and a password in it are sent as Basic authentication"
    )
    payment_gateway_secret: WebhookSecrets = Field(
        None, description="secrets (`whsec_…`) that sign its callbacks, with commas; empty: all are refused"
    )
    carrier_gateway_url: OptionalSecret = Field(None, description="the carrier, likewise")
    carrier_gateway_secret: WebhookSecrets = Field(None, description="secrets that sign its callbacks, likewise")
    gateway_timeout_seconds: float = Field(
        10.0, gt=0, description="longest call of a gateway; what came of it is then unknown, and asked for"
    )
    gateway_failures: int = Field(
        5, ge=1, description="failed calls of a gateway in a row that open its circuit breaker"
    )
    gateway_pause_seconds: float = Field(10.0, gt=0, description="how long an open circuit breaker refuses all calls")

    sandbox_port: int = Field(8005, ge=1, le=65535, description="the sandbox: a payment service and a carrier")
    sandbox_ledger: str = Field("", description="SQLite file of what the sandbox did; empty: in memory")
    sandbox_callback_url: str = Field(
        "",
        description="where the sandbox sends callbacks, such as http://127.0.0.1:8001/gateways; empty: it sends none",
    )

    projector_batch_size: int = Field(2_000, ge=1, description="most events folded into one atomic apply")
    projector_on_poison: OnPoison = Field(
        "stop", description="an event that cannot be applied stops its projection, or parks its stream"
    )
    projector_partitions: str = Field(
        "",
        pattern=_PARTITIONS,
        description="how many partitions (1-64) a new generation has, by read model, such as orders=4; else 1",
    )
    projector_poll_seconds: float = Field(0.25, gt=0, description="longest sleep without a NOTIFY")
    heartbeat_seconds: float = Field(1.0, gt=0, description="time between projector heartbeats and lag measurements")
    heartbeat_stale_seconds: float = Field(10.0, gt=0, description="heartbeat age at which the query side is not ready")

    token_wait_seconds: float = Field(2.0, ge=0, description="wait for a Consistency-Token without Prefer: wait")
    token_waits_per_client: int = Field(
        500, ge=1, description="queries of one client that wait for a Consistency-Token at once before 429"
    )

    remembered_document_bytes: int = Field(
        12 * 1024 * 1024,
        ge=0,
        description="bytes of documents that a query process caches; 0: none",
    )

    sse_streams: int = Field(1_000, ge=1, description="event streams open at once in one process before 503")
    sse_streams_per_client: int = Field(
        200, ge=1, description="event streams of one client open at once in one process before 429"
    )
    sse_heartbeat_seconds: float = Field(15.0, gt=0, description="longest silence on an event stream")
    sse_send_seconds: float = Field(10.0, gt=0, description="time in which an event stream's client must read a block")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the HTTP servers."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def partitions_of(self, projection: str) -> int:
        """Of a new generation of its read model."""
        counts = dict(entry.split("=") for entry in self.projector_partitions.split(",") if entry)
        return int(counts.get(projection, 1))


@cache
def settings() -> Settings:
    """The process's settings, read once.

    Raises `pydantic.ValidationError` naming the variable when one is missing or out of range.
    """
    return Settings()  # pyright: ignore[reportCallIssue]


class RolePasswords(BaseSettings):
    """Passwords that `orders migrate` gives the database roles; a role without one cannot log in. ASCII only."""

    migrator_password: SecretStr | None = None
    command_password: SecretStr | None = None
    projector_password: SecretStr | None = None
    query_password: SecretStr | None = None
    auditor_password: SecretStr | None = None

    def by_role(self) -> dict[str, str]:
        given = {name.removesuffix("_password"): password for name, password in self}
        return {f"orders_{name}": password.get_secret_value() for name, password in given.items() if password}
