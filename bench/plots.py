"""The plots of `docs/performance.md`: SVG without background, in colours readable on white and on black."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.load import ROOT
from bench.runner import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES = ROOT / "docs" / "images"
INK = "#808080"
REACHED, MISSED = "#2a9d8f", "#e07a3f"
LINES = ("#2a9d8f", "#e07a3f", "#8a7fd4")
WIDTH = 8.0


def draw(run: Run, directory: Path = IMAGES, suffix: str = "svg") -> None:
    import matplotlib as mpl

    mpl.use("svg" if suffix == "svg" else "agg")
    style: dict[str, Any] = {"svg.hashsalt": "orders", "svg.fonttype": "none", "font.size": 9.0, "text.color": INK}
    with mpl.rc_context({**style, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}):
        for name, figure in (("goals", _goals(run)), ("growth", _growth(run)), ("visibility", _visibility(run))):
            if figure is not None:
                path = directory / f"bench-{name}.{suffix}"
                # No date: the file changes only with the figures.
                metadata = {"Date": None} if suffix == "svg" else None
                figure.savefig(path, transparent=suffix == "svg", metadata=metadata, bbox_inches="tight")


def _goals(run: Run) -> Figure | None:
    """The reached share of each goal, with its spread over the rounds."""
    results = [result for result in run.results if result.share is not None]
    if not results:
        return None
    figure, axes = _axes(0.32 * len(results) + 0.8)
    for place, result in enumerate(reversed(results)):
        share = statistics.median(result.shares)
        colour = REACHED if result.reached else MISSED
        axes.plot([min(result.shares), max(result.shares)], [place, place], color=colour, linewidth=2, alpha=0.5)
        axes.plot([share], [place], "o", color=colour, markersize=6)
        axes.annotate(
            f"{share:.2f}", (share, place), xytext=(0, 5), textcoords="offset points", color=INK, size=7, ha="center"
        )
    axes.axvline(1.0, color=INK, linewidth=1)
    axes.set_xscale("log")
    ticks = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    shares = [share for result in results for share in result.shares]
    axes.set_xlim(min(0.45, 0.8 * min(shares)), max(2.2, 1.25 * max(shares)))
    axes.set_yticks(range(len(results)), [f"{result.row}  {result.label}" for result in reversed(results)])
    axes.set_ylim(-0.7, len(results) - 0.3)
    axes.set_xlabel("share of the goal reached (1: all of it; dot: median, line: lowest to highest round)")
    return figure


def _growth(run: Run) -> Figure | None:
    """Row 7: speed by size of the log."""
    curves = {
        result.label.partition(",")[0]: result.curve for result in run.results if result.row == 7 and result.curve
    }
    if not curves:
        return None
    sizes = [int(size) for size in next(iter(curves.values()))]
    figure, axes = _axes(2.6)
    for (name, curve), colour, marker in zip(curves.items(), LINES, "osD", strict=False):
        first = next(iter(curve.values()))
        axes.plot(
            sizes, [rate / first for rate in curve.values()], f"-{marker}", color=colour, label=name, markersize=5
        )
    axes.axhline(0.9, color=INK, linewidth=1, linestyle=":")
    axes.annotate("goal", (sizes[0], 0.9), xytext=(0, -10), textcoords="offset points", color=INK, size=7)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("events in the log")
    axes.set_ylabel("speed, the smallest log is 1")
    axes.legend(frameon=False, labelcolor=INK, loc="lower left")
    return figure


def _visibility(run: Run) -> Figure | None:
    """Row 5: time until a query shows an order, by percentile."""
    results = [result for result in run.results if result.row == 5]
    curves = {result.label.partition(" to ")[0]: result.curve for result in results}
    if not curves:
        return None
    figure, axes = _axes(2.6)
    names = {"acknowledged": "from the acknowledgement", "due": "from when the order was due"}
    for (name, curve), colour, marker in zip(curves.items(), LINES, "os", strict=False):
        places = range(len(curve))
        axes.plot(places, list(curve.values()), f"-{marker}", color=colour, label=names[name], markersize=5)
        axes.set_xticks(places, [f"p{percentile}" for percentile in curve])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms until the query shows it")
    axes.legend(frameon=False, labelcolor=INK, loc="upper left")
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(WIDTH, height))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.grid(color=INK, alpha=0.2, linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes
