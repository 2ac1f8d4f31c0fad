"""The alert rules speak of metrics that there are, and fire at the levels that the services act on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics
from shared.lag import LEVELS, Bounds, level_of
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


# --- the rules of lag, evaluated -----------------------------------------------------------------------------------

Samples = dict[str, list[tuple[dict[str, str], float]]]
_COMPARISON = re.compile(r"(max|min) by \((\w+)\) \((\w+(?: or \w+)*)\) > ([0-9.]+)")


def scrape(registry: CollectorRegistry = REGISTRY) -> Samples:
    samples: Samples = defaultdict(list)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            samples[sample.name].append((sample.labels, sample.value))
    return samples


def firing(expression: str, samples: Samples) -> set[str]:
    """The values of the grouping label for which it is true; knows only the form that the rules of lag have."""
    match = _COMPARISON.fullmatch(expression)
    assert match is not None, expression
    function, label, names, bound = match.groups()
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for name in names.split(" or "):
        for labels, value in samples[name]:
            groups[labels[label]].append(value)
    worst: Any = {"max": max, "min": min}[function]
    return {group for group, values in groups.items() if worst(values) > float(bound)}


def alert_of(bounds: Bounds) -> str:
    return f"OrdersLag{bounds.level.value.title()}"


@pytest.mark.parametrize("bounds", LEVELS, ids=lambda bounds: bounds.level)
@pytest.mark.parametrize("name", LAG)
def test_the_alert_of_a_level_fires_where_the_level_begins(bounds: Bounds, name: str) -> None:
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


def test_a_projector_is_silent_once_queries_are_not_ready_for_it() -> None:
    bound = RULES["OrdersProjectorSilent"]["expr"].rpartition("> ")[2]
    assert float(bound) == Settings.model_fields["heartbeat_stale_seconds"].default
