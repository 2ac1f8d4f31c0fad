"""Row 9: p99 of commands on other streams while one stream takes 90 % of the commands.

An open loop at a fixed rate. The baseline is the same rate without a hot stream; a note gives the other streams alone.
Each order is changed once before, so the command service has all states in its cache on both sides.
"""

from __future__ import annotations

import sys

from bench import orders
from bench.interleave import interleave
from bench.load import Flow, Plan, Report, run
from bench.result import Goal, Result, percentile
from bench.runner import run_row
from bench.scale import Scale
from bench.servers import Servers

RATE = 300.0
HOT_SHARE = 0.9
OTHERS = 2_000
CONNECTIONS = 32
HOT_ORDER = OTHERS  # its number
FIRST_CHANGE_SECONDS = 2.0


def measure(servers: Servers, scale: Scale) -> list[Result]:
    database = servers.database()
    orders.place(database, range(OTHERS + 1))
    others = list(range(OTHERS))
    with servers.services(database, commands=1) as services:
        port = services.port("command")
        run(Plan(flows=[_changes("all", [*others, HOT_ORDER], 0.0, port)], warm_up=0.0, seconds=FIRST_CHANGE_SECONDS))
        hot, spread = interleave(
            scale.rounds,
            lambda: _load(port, others, [HOT_ORDER], scale),
            lambda: _load(port, others, others, scale),
        )
        alone = _load(port, others, [], scale)
    return [
        Result(
            row=9,
            label="beside a hot order, p99",
            measure=f"p99 of other streams while one takes {HOT_SHARE:.0%} of {RATE:.0f} commands/s",
            unit="ms",
            ours=[_p99(report) for report in hot],
            against="without a hot stream",
            theirs=[_p99(report) for report in spread],
            goal=Goal("at most", 1.5),
            n=sum(report.flows[0].answers for report in hot),
            client_cpu=max(report.client_cpu for report in (*hot, *spread)),
            notes=[
                f"the others alone, at a tenth of the rate: {_p99(alone):.1f} ms",
                hot[-1].send_delay_summary(),
            ],
        )
    ]


def _p99(report: Report) -> float:
    """Milliseconds, of the other streams."""
    return percentile(report.flows[0].latencies, 0.99)


def _load(port: int, others: list[int], beside: list[int], scale: Scale) -> Report:
    flows = [_changes("others", others, RATE * (1 - HOT_SHARE), port)]
    if beside:
        flows.append(_changes("beside", beside, RATE * HOT_SHARE, port))
    return run(Plan(flows=flows, warm_up=scale.warm_up, seconds=2 * scale.seconds))


def _changes(name: str, numbers: list[int], rate: float, port: int) -> Flow:
    requests = orders.address_changes(numbers, 2)
    return Flow(name=name, requests=requests, ports=[port], connections=CONNECTIONS, rate=rate, in_order=True)


if __name__ == "__main__":
    sys.exit(run_row(measure))
