"""What the active runner measures of the processes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client import REGISTRY

from command_service.processes.agenda import Agenda, Cause, PendingTimer, Waiting
from command_service.processes.measures import forget, measure, step_taken

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def waiting(process_id: str, late: timedelta, *, stuck: bool = False) -> Waiting:
    timer = PendingTimer(process_id, "payment", NOW - late, Cause(1, "e-1", None, NOW))
    return Waiting(process_id, 1, timers={"payment": timer}, stuck=stuck)


def test_running_and_stuck_processes_are_counted_by_kind_and_the_latest_timer_is_measured() -> None:
    second, hour = timedelta(seconds=1), timedelta(hours=1)
    of_orders = [waiting("fulfilment-1", second), waiting("fulfilment-2", hour, stuck=True)]
    measure(Agenda([*of_orders, waiting("order_payment-1", -hour)]), NOW)

    assert value("orders_processes_running", kind="fulfilment") == 2
    assert value("orders_processes_stuck", kind="fulfilment") == 1
    assert value("orders_processes_stuck", kind="order_payment") == 0
    assert value("orders_process_timers_late_seconds") == 1, "a stuck process waits for no timer"

    measure(Agenda([waiting("order_payment-1", -hour)]), NOW)
    assert value("orders_processes_running", kind="fulfilment") == 0
    assert value("orders_processes_stuck", kind="fulfilment") == 0
    assert value("orders_process_timers_late_seconds") == 0

    forget()
    assert value("orders_processes_running", kind="order_payment") is None


def test_the_time_of_a_step_is_measured_and_never_below_zero() -> None:
    for late in (timedelta(seconds=2), -timedelta(seconds=1)):
        step_taken("toy-1", "timer", NOW - late, NOW)
    assert value("orders_process_step_seconds_sum", kind="toy", trigger="timer") == 2
    assert value("orders_process_step_seconds_count", kind="toy", trigger="timer") == 2
