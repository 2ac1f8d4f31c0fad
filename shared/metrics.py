"""Every metric that any process exports, in one place (Prometheus)."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

HTTP_REQUESTS = Counter("orders_http_requests_total", "Answers given", ("method", "route", "status"))
HTTP_SECONDS = Histogram("orders_http_request_seconds", "Time to answer", ("method", "route"), buckets=_FAST)
HTTP_CONNECTIONS = Gauge("orders_http_connections", "Open connections of clients")
HTTP_CONNECTIONS_REFUSED = Counter(
    "orders_http_connections_refused_total", "Connections refused: too many of all, or of one client", ("limit",)
)
RATE_LIMITED = Counter("orders_rate_limited_requests_total", "Requests refused: their client sent too many")

COMMANDS = Counter("orders_commands_total", "Commands by what became of them", ("command", "outcome"))
CONFLICTS = Counter(
    "orders_version_conflicts_total",
    "Appends refused because the stream had moved on",
    ("command",),
)

ADMISSION_LIMIT = Gauge("orders_admission_limit_commands", "Commands that may be in progress")
ADMISSION_REFUSED = Counter("orders_admission_refused_total", "Commands refused because more were in progress")

APPEND_GROUP_COMMANDS = Histogram("orders_append_group_commands", "Commands in one append", buckets=_SIZES)
APPEND_SECONDS = Histogram("orders_append_seconds", "Time of one append, commit included", buckets=_FAST)
APPEND_WAIT_SECONDS = Histogram("orders_append_wait_seconds", "Time a command waited for its group", buckets=_FAST)
APPEND_QUEUE = Gauge("orders_append_queue_commands", "Commands waiting to be appended")

THROTTLED = Counter("orders_throttled_commands_total", "Commands refused because a read model is far behind")
THROTTLED_SHARE = Gauge("orders_throttled_share", "Share of commands refused because a read model is far behind")
STALLED = Counter("orders_stalled_total", "Calls of PostgreSQL that took longer than a second", ("what",))
STALLS = Gauge("orders_stalls", "Sessions that block the event log", ("kind",))

PROJECTION_HEAD = Gauge("orders_log_head_position", "Position of the log's last event")
PROJECTION_CHECKPOINT = Gauge(
    "orders_projection_checkpoint_position", "Last position applied", ("projection", "partition")
)
PROJECTION_LAG_EVENTS = Gauge(
    "orders_projection_lag_events",
    "Events between checkpoint and head",
    ("projection", "partition"),
)
PROJECTION_LAG_SECONDS = Gauge(
    "orders_projection_lag_seconds",
    "Age of the oldest unapplied event",
    ("projection", "partition"),
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
PROJECTION_PARKED = Gauge(
    "orders_projection_parked_streams",
    "Streams that wait behind an event that cannot be applied",
    ("projection", "partition"),
)
PROJECTION_POISON = Counter(
    "orders_projection_poison_events_total",
    "Attempts at an event that failed: it stopped the projection, or parked its stream",
    ("projection", "outcome"),
)

QUERY_LAG_SECONDS = Gauge("orders_query_lag_seconds", "How old answers are, as Projection-Lag says", ("projection",))
HEARTBEAT_AGE_SECONDS = Gauge(
    "orders_projection_heartbeat_age_seconds",
    "Since the active projector's last heartbeat",
    ("projection",),
)

TOKEN_WAITS = Counter("orders_token_waits_total", "Queries that carried a token", ("outcome",))
TOKEN_WAIT_SECONDS = Histogram("orders_token_wait_seconds", "Time spent waiting for a token", buckets=_FAST)
REDIS_BATCH_READS = Histogram("orders_redis_batch_reads", "Reads coalesced into one round trip", buckets=_SIZES)
CACHED_READS = Counter("orders_remembered_reads_total", "Documents answered from the cache, without a round trip")

CONNECTIONS_CUT = Counter(
    "orders_connections_cut_total", "Connections cut because clients did not read answers that took too much memory"
)
EVENT_STREAMS = Gauge("orders_event_streams", "Event streams that are open")
EVENT_STREAMS_CUT = Counter("orders_event_streams_cut_total", "Event streams cut off because the client did not read")
EVENT_STREAMS_REFUSED = Counter(
    "orders_event_streams_refused_total", "Event streams that a browser is to open again later", ["code"]
)
EVENT_STREAM_EVENTS = Counter("orders_event_stream_events_total", "Events sent on event streams")

GATEWAY_CALLS = Counter(
    "orders_gateway_calls_total", "Calls of a gateway by what became of them", ("gateway", "result")
)
GATEWAY_CIRCUIT_OPEN = Gauge("orders_gateway_circuit_open", "1 while no call of a gateway is made", ("gateway",))

PROCESSES_RUNNING = Gauge(
    "orders_processes_running", "Processes that have not ended, those that are stuck included", ("kind",)
)
PROCESSES_STUCK = Gauge("orders_processes_stuck", "Processes that wait for an operator", ("kind",))
PROCESS_STEP_SECONDS = Histogram(
    "orders_process_step_seconds",
    "From an event in the log, the request of an effect, or the time when a timer is due, until the process took it in",
    ("kind", "trigger"),
    buckets=(*_FAST, 60, 300, 3600),
)
PROCESS_TIMERS_LATE_SECONDS = Gauge(
    "orders_process_timers_late_seconds", "How long ago the most overdue timer of a running process was due"
)
