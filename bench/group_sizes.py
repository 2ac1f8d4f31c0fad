"""Sizes of commit groups, read from the command service's metrics."""

from __future__ import annotations

from typing import NamedTuple

import httpx
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

_METRIC = "orders_append_group_commands"


class GroupSizes(NamedTuple):
    """Totals since the process started."""

    groups: float
    commands: float

    def summary(self, before: GroupSizes | None = None) -> str:
        groups, commands = self if before is None else (self.groups - before.groups, self.commands - before.commands)
        return f"appended in groups of {commands / groups:.1f} (mean)"


def of_this_process() -> GroupSizes:
    return _read(generate_latest().decode())


def of_service(port: int) -> GroupSizes:
    return _read(httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text)


def _read(metrics: str) -> GroupSizes:
    family = next(family for family in text_string_to_metric_families(metrics) if family.name == _METRIC)
    values = {sample.name: sample.value for sample in family.samples}
    return GroupSizes(values[f"{_METRIC}_count"], values[f"{_METRIC}_sum"])
