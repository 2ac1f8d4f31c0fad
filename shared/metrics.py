"""Every metric that any process exports, in one place (Prometheus)."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

HTTP_REQUESTS = Counter("orders_http_requests_total", "Answers given", ("method", "route", "status"))
HTTP_SECONDS = Histogram("orders_http_request_seconds", "Time to answer", ("method", "route"), buckets=_FAST)

COMMANDS = Counter("orders_commands_total", "Commands by what became of them", ("command", "outcome"))
CONFLICTS = Counter(
    "orders_version_conflicts_total",
    "Appends refused because the stream had moved on",
    ("command",),
)

APPEND_GROUP_COMMANDS = Histogram("orders_append_group_commands", "Commands in one append", buckets=_SIZES)
APPEND_SECONDS = Histogram("orders_append_seconds", "Time of one append, commit included", buckets=_FAST)
APPEND_WAIT_SECONDS = Histogram("orders_append_wait_seconds", "Time a command waited for its group", buckets=_FAST)
APPEND_QUEUE = Gauge("orders_append_queue_commands", "Commands waiting to be appended")

PROJECTION_HEAD = Gauge("orders_log_head_position", "Position of the log's last event")
PROJECTION_CHECKPOINT = Gauge("orders_projection_checkpoint_position", "Last position applied", ("projection",))
PROJECTION_LAG_EVENTS = Gauge(
    "orders_projection_lag_events",
    "Events between checkpoint and head",
    ("projection",),
)
PROJECTION_LAG_SECONDS = Gauge(
    "orders_projection_lag_seconds",
    "Age of the oldest unapplied event",
    ("projection",),
)
PROJECTION_BATCH_EVENTS = Histogram(
    "orders_projection_batch_events",
    "Events in one apply",
    ("projection",),
    buckets=_SIZES,
)
PROJECTION_APPLY_SECONDS = Histogram(
    "orders_projection_apply_seconds",
    "Time of one atomic apply",
    ("projection",),
    buckets=_FAST,
)
PROJECTION_REFUSED = Counter(
    "orders_projection_refused_total",
    "Applies refused by fence or checkpoint",
    ("projection", "reason"),
)

TOKEN_WAITS = Counter("orders_token_waits_total", "Queries that carried a token", ("outcome",))
TOKEN_WAIT_SECONDS = Histogram("orders_token_wait_seconds", "Time spent waiting for a token", buckets=_FAST)
REDIS_BATCH_READS = Histogram("orders_redis_batch_reads", "Reads coalesced into one round trip", buckets=_SIZES)
