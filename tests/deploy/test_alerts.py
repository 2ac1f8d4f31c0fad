"""The alert rules speak of metrics that there are, and fire at the levels that the services act on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics
from shared.read_models.lag import LEVELS, LagThreshold, level_of
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
LAG = ("orders_projection_lag_seconds", "orders_query_lag_seconds")


class Metric(NamedTuple):
    kind: str
    labels: frozenset[str]


def exported() -> dict[str, Metric]:
    """By the names that Prometheus scrapes."""
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = Metric(family.type, frozenset(metric._labelnames))
    return found


class Used(NamedTuple):
    metric: str
    labels: frozenset[str]
    increases: bool  # asked for its rate, as one does of counters only


def used(expression: str) -> Iterator[Used]:
    """Every metric of an expression with the labels that it is selected or grouped by."""
    grouped = frozenset(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
    for name, selector, window in re.findall(r"\b(orders_\w+)(?:\{([^}]*)\})?(\[\w+\])?", expression):
        yield Used(name, grouped | frozenset(re.findall(r"(\w+)=", selector)), bool(window))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_speaks_of_metrics_and_labels_that_there_are(name: str) -> None:
    there = exported()
    asked = [*used(RULES[name]["expr"])]
    assert asked
    for one in asked:
        assert one.metric in there
        assert one.labels <= there[one.metric].labels
        assert one.increases == (there[one.metric].kind == "counter")


def test_a_rule_that_asks_for_the_outcome_of_commands_asks_for_outcomes_that_there_are() -> None:
    documented = (ROOT / "docs" / "openapi" / "command.json").read_text()
    for rule in RULES.values():
        for codes in re.findall(r'outcome=~?"([^"]+)"', rule["expr"]):
            assert [code for code in codes.split("|") if f'"code": "{code}"' not in documented] == []


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    rule = RULES[name]
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[1-9]\d*[sm]", rule["for"])
    assert rule["labels"]["severity"] in {"warning", "critical", "emergency"}
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


# --- the rules, evaluated ------------------------------------------------------------------------------------------

Samples = dict[str, list[tuple[dict[str, str], float]]]
Series = Iterator[tuple[dict[str, str], float]]

# What is understood of the language; anything else is refused rather than guessed at.
_AGGREGATION = re.compile(r"(max|min|sum)(?: by \((\w+)\) | ?)\((.+)\) > ([0-9.]+)")
_UNKNOWN = re.compile(r"absent\((\w+)\) or (\w+) unless on \((\w+)\) \1")
_NAMES = re.compile(r"\w+(?: or \w+)*")
_RATE = re.compile(r'rate\((\w+)(?:\{(\w+)(=~?)"([^"]*)"\})?\[5m\]\)')


def scrape(registry: CollectorRegistry = REGISTRY) -> Samples:
    samples: Samples = defaultdict(list)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            samples[sample.name].append((sample.labels, sample.value))
    return samples


def firing(expression: str, samples: Samples, before: Samples | None = None) -> set[str]:
    """The values of the grouping label for which it is true; "" where there is none. `before`: five minutes earlier."""
    if (match := _UNKNOWN.fullmatch(expression)) is not None:
        name, among, by = match.groups()
        measured = {labels[by] for labels, _ in samples.get(name, [])}
        return {labels[by] for labels, _ in samples.get(among, [])} - measured | (set() if measured else {""})
    match = _AGGREGATION.fullmatch(expression)
    assert match is not None, f"not understood: {expression}"
    function, label, inner, bound = match.groups()
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for labels, value in _series(inner, samples, before or {}):
        groups[labels[label] if label else ""].append(value)
    worst: Any = {"max": max, "min": min, "sum": sum}[function]
    return {group for group, values in groups.items() if worst(values) > float(bound)}


def _series(expression: str, samples: Samples, before: Samples) -> Series:
    if _NAMES.fullmatch(expression):
        for name in expression.split(" or "):
            yield from samples.get(name, [])
        return
    match = _RATE.fullmatch(expression)
    assert match is not None, f"not understood: {expression}"
    name, label, operator, wanted = match.groups()
    earlier = {frozenset(labels.items()): value for labels, value in before.get(name, [])}
    for labels, value in samples.get(name, []):
        chosen = label is None or (labels[label] in wanted.split("|") if operator == "=~" else labels[label] == wanted)
        since = earlier.get(frozenset(labels.items()))  # a rate takes two samples
        if chosen and since is not None:
            yield labels, (value - since if value >= since else value) / 300


@pytest.mark.parametrize(
    "expression",
    [
        "avg by (projection) (orders_query_lag_seconds) > 1",
        "max by (projection) (orders_query_lag_seconds) >= 1",
        "max by (projection, job) (orders_query_lag_seconds) > 1",
        "max by (projection) (orders_query_lag_seconds offset 5m) > 1",
        "sum(rate(orders_admission_refused_total[1h])) > 0",
        'sum(rate(orders_commands_total{outcome!="accepted"}[5m])) > 0',
        "absent(orders_query_lag_seconds) or absent(orders_stalls)",
    ],
)
def test_what_the_evaluation_does_not_understand_it_refuses(expression: str) -> None:
    with pytest.raises(AssertionError, match="not understood"):
        firing(expression, scrape())


def alert_of(bounds: LagThreshold) -> str:
    return f"OrdersLag{bounds.level.value.title()}"


@pytest.mark.parametrize("bounds", LEVELS, ids=lambda bounds: bounds.level)
@pytest.mark.parametrize("name", LAG)
def test_the_alert_of_a_level_fires_where_the_level_begins(bounds: LagThreshold, name: str) -> None:
    registry = CollectorRegistry()
    labels = ["partition", *sorted(exported()[name].labels - {"partition"})]  # also where there are partitions
    gauge = Gauge(name, "as the services export it", labels, registry=registry)
    for lag in (0.0, bounds.above_seconds, bounds.above_seconds + 0.001, 2 * bounds.above_seconds):
        gauge.labels(partition="0", projection="orders").set(0.0)
        gauge.labels(partition="1", projection="orders").set(lag)
        gauge.labels(partition="0", projection="revenue_by_day").set(0.0)
        fires = firing(RULES[alert_of(bounds)]["expr"], scrape(registry))
        assert fires == ({"orders"} if lag > bounds.above_seconds else set())
        assert (level_of(lag).above_seconds >= bounds.above_seconds) == bool(fires)


def test_every_level_has_its_alert_and_a_worse_one_is_told_sooner() -> None:
    assert {alert_of(bounds) for bounds in LEVELS} <= set(RULES)
    seconds = {"s": 1, "m": 60}
    patience = [RULES[alert_of(bounds)]["for"] for bounds in LEVELS]  # the worst first
    durations = [int(one[:-1]) * seconds[one[-1]] for one in patience]
    assert durations == sorted(durations)


def test_what_the_services_export_themselves_is_what_the_rules_ask_for() -> None:
    metrics.QUERY_LAG_SECONDS.labels("alerting").set(31)
    for bounds in LEVELS:
        assert "alerting" in firing(RULES[alert_of(bounds)]["expr"], scrape())
    metrics.QUERY_LAG_SECONDS.remove("alerting")


class Trouble(NamedTuple):
    """What the services export when nothing is wrong, and when something is; for whom the alert then fires."""

    calm: Callable[[], object]
    trouble: Callable[[], object]
    whom: str = ""


def counting(outcome: str) -> Callable[[], object]:
    return lambda: metrics.COMMANDS.labels("alerting", outcome).inc()


def measuring(gauge: Gauge, value: float, *labels: str) -> Callable[[], object]:
    return lambda: (gauge.labels(*labels) if labels else gauge).set(value)


TROUBLES = {
    "OrdersLagUnknown": Trouble(measuring(metrics.QUERY_LAG_SECONDS, 0, "alerting"), metrics.QUERY_LAG_SECONDS.clear),
    "OrdersProjectorSilent": Trouble(
        measuring(metrics.HEARTBEAT_AGE_SECONDS, 10, "alerting"),
        measuring(metrics.HEARTBEAT_AGE_SECONDS, 10.1, "alerting"),
        "alerting",
    ),
    "OrdersStreamsParked": Trouble(
        measuring(metrics.PROJECTION_PARKED, 0, "alerting", "3"),
        measuring(metrics.PROJECTION_PARKED, 1, "alerting", "3"),
        "alerting",
    ),
    "OrdersAppendsFail": Trouble(counting("accepted"), counting("log-unavailable"), "log-unavailable"),
    "OrdersQueueFull": Trouble(counting("throttled"), counting("overloaded"), "overloaded"),
    "OrdersOverloaded": Trouble(counting("overloaded"), metrics.ADMISSION_REFUSED.inc),
    "OrdersThrottled": Trouble(measuring(metrics.THROTTLED_SHARE, 0), measuring(metrics.THROTTLED_SHARE, 0.01)),
    "OrdersProcessesStuck": Trouble(
        measuring(metrics.PROCESSES_STUCK, 0, "alerting"), measuring(metrics.PROCESSES_STUCK, 1, "alerting"), "alerting"
    ),
    "OrdersProcessTimersLate": Trouble(
        measuring(metrics.PROCESS_TIMERS_LATE_SECONDS, 10), measuring(metrics.PROCESS_TIMERS_LATE_SECONDS, 10.1)
    ),
    "OrdersStalled": Trouble(
        measuring(metrics.STALLS, 0, "alerting"), measuring(metrics.STALLS, 1, "alerting"), "alerting"
    ),
    "OrdersCallsTakeLong": Trouble(
        measuring(metrics.STALLS, 1, "alerting"), lambda: metrics.STALLED.labels("alerting").inc(), "alerting"
    ),
}


@pytest.fixture
def exporting() -> Iterator[None]:
    """What the services export is as it was, afterwards."""
    for outcome in ("accepted", "log-unavailable", "throttled", "overloaded"):
        metrics.COMMANDS.labels("alerting", outcome)
    metrics.STALLED.labels("alerting")
    yield
    metrics.THROTTLED_SHARE.set(0)
    metrics.PROCESS_TIMERS_LATE_SECONDS.set(0)
    for metric in (
        *(metrics.QUERY_LAG_SECONDS, metrics.HEARTBEAT_AGE_SECONDS, metrics.PROJECTION_PARKED),
        *(metrics.COMMANDS, metrics.STALLS, metrics.STALLED, metrics.PROCESSES_STUCK),
    ):
        for sample in next(iter(metric.collect())).samples:
            if "alerting" in sample.labels.values():
                metric.remove_by_labels(sample.labels)


@pytest.mark.promise("lag", "Each alert fires on its condition, and only then")
@pytest.mark.usefixtures("exporting")
@pytest.mark.parametrize("name", TROUBLES)
def test_an_alert_fires_when_that_goes_wrong_and_only_then(name: str) -> None:
    expression, (calm, trouble, whom) = RULES[name]["expr"], TROUBLES[name]
    before = scrape()
    calm()
    assert whom not in firing(expression, scrape(), before)
    trouble()
    assert whom in firing(expression, scrape(), before)


@pytest.mark.promise("lag", "Each alert fires on its condition, and only then")
def test_every_alert_is_seen_to_fire() -> None:
    assert TROUBLES.keys() | {alert_of(bounds) for bounds in LEVELS} == RULES.keys()


def test_the_lag_of_one_read_model_is_unknown_where_it_alone_is_not_measured() -> None:
    expression = RULES["OrdersLagUnknown"]["expr"]
    orders, revenue = ({"projection": "orders"}, 1.0), ({"projection": "revenue_by_day"}, 1.0)
    alive = {"orders_projection_heartbeat_age_seconds": [orders, revenue]}
    assert firing(expression, alive | {"orders_query_lag_seconds": [revenue]}) == {"orders"}
    assert firing(expression, alive | {"orders_query_lag_seconds": [orders, revenue]}) == set()


def test_a_projector_is_silent_where_nobody_hears_it() -> None:
    name, expression = "orders_projection_heartbeat_age_seconds", RULES["OrdersProjectorSilent"]["expr"]
    cut_off, hears_it = ({"projection": "orders"}, 60.0), ({"projection": "orders"}, 1.0)
    assert firing(expression, {name: [cut_off, cut_off]}) == {"orders"}
    assert firing(expression, {name: [cut_off, hears_it]}) == set()


def test_a_projector_is_silent_once_queries_are_not_ready_for_it() -> None:
    bound = RULES["OrdersProjectorSilent"]["expr"].rpartition("> ")[2]
    assert float(bound) == Settings.model_fields["heartbeat_stale_seconds"].default
