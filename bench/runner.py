"""Runs rows of the table: parses the command line, starts the servers, saves the results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from bench import machine, scale
from bench.load import LoadFailed
from bench.machine import Machine
from bench.result import Result, record
from bench.scale import Scale
from bench.servers import Servers, servers
from shared.logs import configure_logs

RESULTS = Path(__file__).parent / "results"
LATEST = RESULTS / "latest.json"
SELECTED = RESULTS / "some.json"  # of the rows that were asked for with --only
SCALES = {one.name: one for one in (scale.NORMAL, scale.QUICK, scale.FULL)}

Measure = Callable[[Servers, Scale], list[Result]]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file in `bench/results/`."""

    taken_at: datetime
    scale: str
    machine: Machine
    results: list[Result]
    failed: dict[str, str] = {}  # the reason by module name, of rows that could not be measured

    @property
    def reached(self) -> bool:
        return not self.failed and all(result.reached is not False for result in self.results)


def run_row(measure: Measure) -> int:
    """The command line of one row. Returns the exit code; 1: a goal was not reached."""
    asked = argument_parser("measures one row of the table").parse_args()
    name = Path(sys.argv[0]).stem
    run = measure_rows({name: measure}, SCALES[asked.scale], asked.directory)
    save(run, RESULTS / f"{name}.json")
    return 0 if run.reached else 1


def argument_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    sizes = parser.add_mutually_exclusive_group()
    for name in ("quick", "full"):
        sizes.add_argument(f"--{name}", dest="scale", action="store_const", const=name, default="normal")
    parser.add_argument("--directory", type=Path, help="for the data of the measured servers")
    return parser


def measure_rows(measures: Mapping[str, Measure], size: Scale, directory: Path | None) -> Run:
    """Measures row after row on one PostgreSQL; prints progress on standard error."""
    configure_logs("bench", "WARNING")
    results: list[Result] = []
    failed: dict[str, str] = {}
    with servers(directory, size.shared_buffers) as running:
        described = machine.describe(running.directory)
        for name, measure in measures.items():
            began = monotonic()
            _progress(f"{name} …")
            try:
                measured = measure(running, size)
            except LoadFailed as error:
                failed[name] = str(error)
                _progress(f"  could not be measured: {error}")
                continue
            for result in measured:
                _progress(f"  {as_line(result)}")
                for note in _notes(result):
                    _progress(f"      {note}")
            _progress(f"  took {monotonic() - began:.0f} s")
            results.extend(measured)
    return Run(
        taken_at=datetime.now(UTC).replace(microsecond=0),
        scale=size.name,
        machine=described,
        results=sorted(results, key=lambda result: result.row),
        failed=failed,
    )


def _notes(result: Result) -> list[str]:
    counted = [f"n = {result.n:,}"] if result.n else []
    client = [] if result.client_cpu is None else [f"the load client used {result.client_cpu:.2f} of a core"]
    return [*counted, *client, *result.notes]


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def save(run: Run, path: Path) -> None:
    document: dict[str, Any] = {**msgspec.to_builtins(run), "results": [record(result) for result in run.results]}
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def load(path: Path) -> Run:
    return msgspec.json.decode(path.read_bytes(), type=Run)


def as_line(result: Result) -> str:
    """One line for a terminal."""
    text = f"{result.row:>2}  {result.measure}: {result.value:,.4g} {result.unit}"
    if result.ratio is not None:
        text += f", {result.ratio:.2f}x vs. {result.against}"
    if result.goal is not None:
        text += f" ({result.goal.bound} {result.goal.limit:g}{'x' if result.goal.of == 'ratio' else ''}:"
        text += " reached)" if result.reached else f" NOT reached, {result.share:.0%})"
    return text
