"""Writes the generated parts of pages in `docs/`: everything between a pair of markers."""

from __future__ import annotations

import re
import sys
from math import ceil
from pathlib import Path

from bench.load import ROOT
from bench.result import Result
from bench.runner import LATEST, Run, load

PERFORMANCE = ROOT / "docs" / "performance.md"
SCALING = ROOT / "docs" / "scaling.md"

# docs/scaling.md: the load called one times, and the target utilisation of a process.
ORDERS_A_SECOND = 250
EVENTS_AN_ORDER = 4
READS_AN_ORDER = 10
UTILISATION = 0.6
TIMES = (1, 10, 100, 10_000)


def write(run: Run) -> None:
    for page, parts in parts_of(run).items():
        text = page.read_text()
        for name, part in parts.items():
            text = replace_part(text, name, part)
        page.write_text(text)


def parts_of(run: Run) -> dict[Path, dict[str, str]]:
    """Returns the text by marker, by page."""
    return {
        PERFORMANCE: {"figures": figures(run), "run": run_description(run), "table": table(run)},
        SCALING: {"limits": limits(run), "arithmetic": arithmetic(run)},
    }


def replace_part(text: str, name: str, part: str) -> str:
    """Returns the page's text with this part between its markers."""
    begin, end = f"<!-- {name}: written by `make bench` -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    changed, count = pattern.subn(lambda _: f"{begin}\n{part}\n{end}", text)
    assert count == 1, f"the page has {count} pairs of markers for {name}"
    return changed


def figures(run: Run) -> str:
    """The figures that a user asks for first."""
    questions = {
        3: "How many orders does one command process place?",
        4: "How many orders does one query process read?",
        5: "How soon after its acknowledgement does a query show an order? (median)",
        1: "How many events does one log append?",
        6: "How fast is a read model rebuilt?",
        7: "How much disk space does an event take?",
    }
    lines = ["| | figure | row |", "|---|---|---|"]
    for row, question in questions.items():
        if first := next((result for result in run.results if result.row == row), None):
            lines.append(f"| {question} | {_number(first.value)} {first.unit} | {row} |")
    return "\n".join(lines)


def run_description(run: Run) -> str:
    machine = run.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    text = (
        f"Measured on {run.taken_at:%Y-%m-%d %H:%M} UTC at scale `{run.scale}`: {machine.processor},"
        f" {machine.cores} cores, {machine.memory_gib:g} GiB, {machine.system}, {machine.filesystem},"
        f" {machine.flush_ms:.2f} ms to flush a page, {machine.busy_before:.0%} busy before. Versions: {versions}."
    )
    if run.scale == "quick":
        text += "\n\n**A quick run shows that the suite works. Its figures say nothing about speed.**"
    return text


def table(run: Run) -> str:
    rows = ["| # | measure | figure | against | ratio | goal | |", "|---|---|---|---|---|---|---|"]
    rows += [_row(result) for result in run.results]
    rows += [f"| | {name} | could not be measured: {why} | | | | no |" for name, why in run.failed.items()]
    return "\n".join(rows)


def _row(result: Result) -> str:
    low, high = result.spread
    figure, ratio = f"{_number(result.value)} {result.unit}", ""
    if result.ratio is not None:
        ratio = f"{result.ratio:.2f}×"
        if len(result.ours) > 1:
            ratio += f" ({min(result.ratios):.2f}–{max(result.ratios):.2f})"
    elif len(result.ours) > 1:
        figure += f" ({_number(low)}–{_number(high)})"
    reached = {True: "yes", False: "**no**", None: ""}[result.reached]
    if result.client_saturated:
        reached += " (limited by the load client)"
    cells = (str(result.row), result.measure, figure, result.against or "", ratio, _goal(result), reached)
    return f"| {' | '.join(cells)} |"


def _goal(result: Result) -> str:
    if result.goal is None:
        return ""
    sign = {"at least": "≥", "at most": "≤"}[result.goal.bound]
    return f"{sign} {result.goal.limit:g}" + ("×" if result.goal.of == "ratio" else f" {result.unit}")


def _number(value: float) -> str:
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class _Capacity:
    """The measured throughput of one process or server of each kind."""

    def __init__(self, run: Run) -> None:
        first = {row: next((one.value for one in run.results if one.row == row), None) for row in (1, 3, 4, 6)}
        self.appends, self.orders, self.reads, self.projected = (first[row] for row in (1, 3, 4, 6))
        self.event_bytes = next((one.value for one in run.results if one.unit == "bytes"), None)

    @property
    def known(self) -> list[tuple[str, str, float, int]]:
        """(component, unit, capacity of one, row)"""
        every = [
            ("the log: one PostgreSQL", "events appended/s", self.appends, 1),
            ("one command process", "orders placed/s", self.orders, 3),
            ("one query process", "orders read/s", self.reads, 4),
            ("one projector worker", "events folded/s", self.projected, 6),
        ]
        return [(name, unit, value, row) for name, unit, value, row in every if value is not None]


def limits(run: Run) -> str:
    rows = ["| where it ends | one can do | measured in |", "|---|---|---|"]
    for name, unit, value, row in _Capacity(run).known:
        rows.append(f"| {name} | {_number(value)} {unit} | [row {row}](performance.md) |")
    return "\n".join(rows)


def arithmetic(run: Run) -> str:
    demands = {
        1: ORDERS_A_SECOND * EVENTS_AN_ORDER,
        3: ORDERS_A_SECOND * EVENTS_AN_ORDER,
        4: ORDERS_A_SECOND * READS_AN_ORDER,
        6: ORDERS_A_SECOND * EVENTS_AN_ORDER,
    }
    rows = [f"| | {' | '.join(f'{times:,}×' for times in TIMES)} |", f"|---|{'---|' * len(TIMES)}"]
    for name, demand in {"orders placed/s": 1, "commands/s": EVENTS_AN_ORDER, "reads/s": READS_AN_ORDER}.items():
        rows.append(f"| {name} | {' | '.join(f'{ORDERS_A_SECOND * demand * times:,}' for times in TIMES)} |")
    names = {1: "logs (PostgreSQL)", 3: "command processes", 4: "query processes", 6: "projector workers"}
    capacity = _Capacity(run)
    for _, _, one, row in capacity.known:
        counts = [ceil(demands[row] * times / (UTILISATION * one)) for times in TIMES]
        rows.append(f"| {names[row]} | {' | '.join(f'{count:,}' for count in counts)} |")
    if capacity.event_bytes is not None:
        daily = ORDERS_A_SECOND * EVENTS_AN_ORDER * 86_400 * capacity.event_bytes / 2**30
        rows.append(f"| log, GiB a day | {' | '.join(f'{daily * times:,.0f}' for times in TIMES)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    write(load(LATEST))
    sys.exit(0)
