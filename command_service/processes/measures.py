"""What the active runner measures of the processes."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from command_service.processes.agenda import Agenda
from shared import metrics
from shared.aggregates.process import split_process_id


def measure(agenda: Agenda, now: datetime) -> None:
    """Goes through all that have not ended: a millisecond for some thousands."""
    running = Counter([split_process_id(process_id)[0] for process_id in agenda.processes])
    stuck = Counter([split_process_id(process_id)[0] for process_id in agenda.stuck])
    for kind, count in running.items():
        metrics.PROCESSES_RUNNING.labels(kind).set(count)
        metrics.PROCESSES_STUCK.labels(kind).set(stuck[kind])
    for sample in next(iter(metrics.PROCESSES_RUNNING.collect())).samples:
        if sample.labels["kind"] not in running:  # the last of them ended
            metrics.PROCESSES_RUNNING.labels(**sample.labels).set(0)
            metrics.PROCESSES_STUCK.labels(**sample.labels).set(0)
    late = max([now - timer.due_at for timer in agenda.timers()], default=timedelta(0))
    metrics.PROCESS_TIMERS_LATE_SECONDS.set(max(0.0, late.total_seconds()))


def forget() -> None:
    """Once another runner may be the active one."""
    metrics.PROCESSES_RUNNING.clear()
    metrics.PROCESSES_STUCK.clear()
    metrics.PROCESS_TIMERS_LATE_SECONDS.set(0)


def step_taken(process_id: str, trigger: str, since: datetime, now: datetime) -> None:
    """`trigger`: event, answer or timer."""
    kind, _ = split_process_id(process_id)
    metrics.PROCESS_STEP_SECONDS.labels(kind, trigger).observe(max(0.0, (now - since).total_seconds()))
