"""One simulated run: orders, clients, workers and providers on the event store in memory, one step at a time.

A seed decides everything: which task goes on, which worker crashes where, what is delivered again, when the clock
moves, and what the providers answer. Nothing sleeps, and no thread or event loop is involved.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from command_service.decision import CommandMetadata, decide, streams_of
from command_service.domain import DECIDERS
from command_service.domain.decider import MoreStreams
from command_service.domain.order import (
    AddOrderItem,
    CancelOrder,
    ChangeLineQuantity,
    HoldOrder,
    PlaceOrder,
    ReleaseHold,
    VoidPayment,
)
from command_service.gateways import carrier, payment
from command_service.gateways.carrier import HandOver
from command_service.processes import FULFILMENTS
from command_service.processes.advance import AdvanceProcess, Failed
from command_service.processes.agenda import Agenda, PendingEffect, PendingTimer
from command_service.processes.fulfilment import FULFILMENT as DEFINITION
from command_service.processes.interventions import CompensateProcess, RetryProcess, SkipStep
from command_service.processes.worker import ProcessWorker
from shared.aggregates import aggregate_of
from shared.aggregates.order import ORDER, Order, OrderLine
from shared.aggregates.process import PROCESS, EffectRequested, Process, StepSkipped, process_id_of
from shared.errors import OrdersError, OutcomeUnknown, Unavailable
from shared.eventstore.append_request import AppendStatus
from shared.eventstore.log import StoredEvent
from shared.eventstore.memory import InMemoryEventStore
from shared.eventstore.snapshots import LoadedState
from tests.simulation.providers import Carrier, Chances, PaymentProvider, Provider, pause

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)  # the past: no command may occur in the future
MAX_STEPS = 20_000
MAX_ATTEMPTS = 100  # of a command, that conflicts with others


class NotSettled(AssertionError):
    """The run does not come to an end."""


@dataclass
class Task:
    name: str
    steps: Coroutine[Any, Any, None]
    done: Callable[[], None] = lambda: None


@dataclass
class Worker:
    """A process of the operating system that a crash ends: its tasks, and where it is in the log."""

    at: int = 0
    tasks: list[Task] = field(default_factory=list)
    receives: bool = False
    busy: set[str] = field(default_factory=set)  # effects and timers that one of its tasks is about
    sent: set[str] = field(default_factory=set)  # effects that it tried to have carried out


class World:
    def __init__(self, seed: int, form: str = "orchestrated") -> None:
        """`form`: of fulfilment."""
        chances = Chances()
        self.kinds = FULFILMENTS[form]
        self.random = Random(seed)
        self.now = BEGIN
        self.store = InMemoryEventStore(UUID(int=1), lambda: self.now)
        self.payments = PaymentProvider(self.random, chances, self._check)
        self.carrier = Carrier(self.random, chances, self._check)
        self.agenda = Agenda()
        self.log: list[StoredEvent] = []
        self.requested: set[str] = set()  # ids of effects
        self._states: dict[str, LoadedState] = {}
        self.gateways: dict[type[Any], Provider] = dict.fromkeys(payment.ANSWERS, self.payments)
        self.gateways.update(dict.fromkeys(carrier.ANSWERS, self.carrier))
        self.processes = ProcessWorker(self.handle, self.gateways, self.kinds)
        self.workers = [Worker(), Worker()]
        self.crashes = self.random.randint(0, 4)
        self.redeliveries = self.random.randint(0, 4)
        self.jumps = self.random.randint(0, 4)
        self.defects = self.random.randint(0, 3)  # of processes, each of which is stuck then
        self.whims = self.random.choice([0, 0, 1, 2, 4])  # of clients and staff
        self.orders = [f"order-{number}" for number in range(self.random.choice([1, 1, 2, 3]))]
        self.trace: list[str | StoredEvent] = []

    # --- commands --------------------------------------------------------------------------------------------------

    async def handle(self, command: Any, metadata: CommandMetadata) -> None:
        """As the handler does it: load, decide, append, and again after a conflict. It loads what is usually absent,
        too."""
        self._fail(command)
        decider = DECIDERS[type(command)]
        streams = [*streams_of(decider, command), *decider.usually_absent(command)]
        for _ in range(MAX_ATTEMPTS):
            await pause()
            states = {stream: await self.load(stream) for stream in streams}
            try:
                decided = decide(decider, command, replace(metadata, occurred_at=self.now), states, self.store.log_id)
            except MoreStreams as more:
                streams += [*more.streams, *more.usually_absent]
                continue
            await pause()
            (result,) = await self.store.append_group([decided.request])
            await self._follow()
            await pause()
            if result.status is AppendStatus.APPENDED:
                return
        raise NotSettled(f"{command} conflicts without end")

    def _fail(self, command: Any) -> None:
        """Some reactions of processes fail."""
        advances = isinstance(command, AdvanceProcess) and not isinstance(command.trigger, Failed)
        if advances and self.defects and self.random.random() < 0.1:
            self.defects -= 1
            raise RuntimeError("simulated")

    async def load(self, stream: str) -> LoadedState:
        loaded = self._states.get(stream, LoadedState())
        for stored in await self.store.read_stream_page(stream, loaded.version, 10_000):
            loaded = loaded.apply(aggregate_of(stream), stored)
        self._states[stream] = loaded
        return loaded

    async def _follow(self) -> None:
        for stored in await self.store.read_batch(len(self.log), 10_000):
            self.log.append(stored)
            self.agenda.apply(stored)
            self.trace.append(stored)
            if stored.event_type == EffectRequested.__name__:
                self.requested.add(msgspec.json.decode(stored.data, type=EffectRequested).effect_id)
            if stored.event_type == StepSkipped.__name__:
                skipped = msgspec.json.decode(stored.data, type=StepSkipped)
                self._see_to(skipped.effect_id, DEFINITION.message(skipped.effect, skipped.data))

    async def give(self, command: Any) -> None:
        """A command of a client or of staff, which may be refused."""
        try:
            await self.handle(command, CommandMetadata("client"))
        except OrdersError as error:
            self.trace.append(f"     {command} refused: {error.code}")

    def _check(self, effect_id: str, effect: Any) -> None:
        """Before a provider carries it out: the log says that it was asked for, and what leaves is paid."""
        assert effect_id in self.requested, f"{effect_id} was not recorded"
        self._check_paid(effect)

    def _check_paid(self, effect: Any) -> None:
        if isinstance(effect, HandOver):
            leaves = self.carrier.parcels[effect.tracking_number]
            order = self.order(leaves.order_id)
            assert order is not None
            lines = [*leaves.lines]
            for parcel in self.carrier.of(leaves.order_id, "on the way", "delivered"):
                lines += parcel.lines
            price = sum([order.lines[line.line_id].unit_price * line.quantity for line in lines])
            assert self.payments.kept(leaves.order_id) >= price, f"{effect.tracking_number} leaves without payment"

    # --- the scheduler ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until nothing is left to do. Raises `NotSettled`, and what fails in a task."""
        for order_id in self.orders:
            lines = [
                OrderLine(f"product-{number}", self.random.randint(1, 3), self.random.choice([0, 100, 250]))
                for number in range(self.random.choice([1, 1, 2]))
            ]
            place = PlaceOrder(order_id, "ann", "GBP", tuple(lines), "home")
            self._start(self.workers[0], "place", self.give(place))
        for _ in range(MAX_STEPS):
            if not (choices := self._choices()):
                return
            self.random.choice(choices)()
        raise NotSettled("The run takes more steps than expected.")

    def _choices(self) -> list[Callable[[], None]]:
        first = self.random.randrange(len(self.workers))
        for worker in self.workers[first:] + self.workers[:first]:
            choices = self._work(worker)
            choices += [partial(self._step, worker, task) for task in worker.tasks]
            if choices:
                return choices + self._disturbances()
        if self.agenda.stuck:
            return self._interventions()
        waiting = [timer.due_at for timer in self.agenda.timers()]
        if waiting:
            return [lambda: self._move_clock(min(waiting))]
        return self._ends_of_holds()

    def _step(self, worker: Worker, task: Task) -> None:
        try:
            task.steps.send(None)
            return
        except StopIteration:
            pass
        except (Unavailable, OutcomeUnknown) as error:
            self.trace.append(f"     {task.name}: {error.code}")
        worker.tasks.remove(task)
        task.done()

    def _work(self, worker: Worker) -> list[Callable[[], None]]:
        work: list[Callable[[], None]] = []
        if worker.at < len(self.log) and not worker.receives:
            work.append(lambda: self._receive(worker))
        effects = [one for one in self.agenda.effects() if one.requested.effect_id not in worker.busy]
        timers = [one for one in self.agenda.timers() if one.due_at <= self.now and one.name not in worker.busy]
        work += [partial(self._carry_out, worker, effect) for effect in effects]
        work += [partial(self._fire, worker, timer) for timer in timers]
        return work

    def _receive(self, worker: Worker) -> None:
        stored = self.log[worker.at]
        worker.receives = True

        def done() -> None:
            worker.receives = False
            worker.at = max(worker.at, stored.position)

        async def receive() -> None:
            for process_id in self.processes.concerned(stored, self.agenda.processes):
                await self.processes.receive(process_id, stored)

        worker.tasks.append(Task(f"receive {stored.position}", receive(), done))

    def _carry_out(self, worker: Worker, effect: PendingEffect) -> None:
        effect_id = effect.requested.effect_id
        first = effect_id not in worker.sent and worker is self.workers[0] and self.random.random() < 0.5
        worker.sent.add(effect_id)
        self._begin(worker, effect_id, self.processes.carry_out(effect, first=first))

    def _fire(self, worker: Worker, timer: PendingTimer) -> None:
        self._begin(worker, timer.name, self.processes.fire(timer))

    def _begin(self, worker: Worker, name: str, steps: Coroutine[Any, Any, None]) -> None:
        worker.busy.add(name)
        worker.tasks.append(Task(name, steps, lambda: worker.busy.discard(name)))

    def _start(self, worker: Worker, name: str, steps: Coroutine[Any, Any, None]) -> None:
        worker.tasks.append(Task(name, steps))

    # --- what disturbs ---------------------------------------------------------------------------------------------

    def _disturbances(self) -> list[Callable[[], None]]:
        if self.random.random() > 0.05:
            return []
        disturbances: list[Callable[[], None]] = []
        worker = self.random.choice(self.workers)
        if self.crashes:
            disturbances.append(lambda: self._crash(worker))
        if self.redeliveries and worker.at and not worker.receives:
            disturbances.append(lambda: self._redeliver(worker))
        if self.jumps:
            disturbances.append(self._jump)
        if self.whims:
            disturbances.append(self._whim)
        disturbances += self._interventions()
        return disturbances

    def _crash(self, worker: Worker) -> None:
        self.crashes -= 1
        self.trace.append(f"     crash of {[task.name for task in worker.tasks]}")
        placing = [task for task in worker.tasks if task.name == "place"]  # a client repeats it
        for task in worker.tasks:
            if task not in placing:
                task.steps.close()
        index = self.workers.index(worker)
        self.workers[index] = Worker(self.random.randint(0, worker.at), placing)

    def _redeliver(self, worker: Worker) -> None:
        self.redeliveries -= 1
        worker.at = self.random.randint(0, worker.at - 1)

    def _jump(self) -> None:
        self.jumps -= 1
        self._move_clock(self.now + timedelta(hours=self.random.choice([1, 2, 60])))

    def _move_clock(self, to: datetime) -> None:
        self.now = max(self.now, to)
        self.trace.append(f"     clock {self.now}")

    def _whim(self) -> None:
        self.whims -= 1
        order_id = self.random.choice(self.orders)
        commands = [
            CancelOrder(order_id, "changed my mind"),
            CancelOrder(order_id, "changed my mind"),
            HoldOrder(order_id, "staff"),
            ReleaseHold(order_id),
            AddOrderItem(order_id, OrderLine("more", 1, 100)),
            ChangeLineQuantity(order_id, "1", self.random.randint(0, 3)),
            VoidPayment(order_id, f"{self.kinds[0]}-{order_id}-1"),  # on the order alone, not at the provider
        ]
        self._give(self.random.choice(commands))

    def _interventions(self) -> list[Callable[[], None]]:
        """Of operators, in processes that are stuck."""
        return [partial(self._intervene, process_id) for process_id in sorted(self.agenda.stuck)]

    def _intervene(self, process_id: str) -> None:
        interventions = [RetryProcess(process_id), CompensateProcess(process_id), self._skip(process_id)]
        self._give(self.random.choice(interventions))

    def _skip(self, process_id: str) -> SkipStep:
        """The step that waits for its answer, which an operator sees to; else that which was declined."""
        process: Process = _result(self.load(PROCESS.stream_of(process_id))).state
        for effect_id, requested in process.effects.items():
            outcome = self._see_to(effect_id, DEFINITION.message(requested.effect, requested.data))
            data = msgspec.json.decode(msgspec.json.encode(outcome))
            return SkipStep(process_id, type(outcome).__name__, data, effect_id)
        return SkipStep(process_id, "Voided" if (process.stuck or "").startswith("Void") else "Refunded")

    def _see_to(self, effect_id: str, effect: Any) -> Any:
        provider = self.gateways[type(effect)]
        if effect_id not in provider.outcomes:
            self._check_paid(effect)
        return provider.by_hand(effect_id, effect)

    def _ends_of_holds(self) -> list[Callable[[], None]]:
        """Staff decides on what is on hold once nothing else is left to do."""
        held = [order_id for order_id in self.orders if (order := self.order(order_id)) and order.hold]
        ends = [ReleaseHold(order_id) for order_id in held] + [CancelOrder(order_id, "fraud") for order_id in held]
        return [partial(self._give, end) for end in ends]

    def _give(self, command: Any) -> None:
        self._start(self.workers[0], "staff", self.give(command))

    def story(self) -> str:
        """What happened, line by line."""
        lines = [
            f"{one.position:4} {one.stream_id} {one.event_type} {one.data[:200]}"
            if isinstance(one, StoredEvent)
            else one
            for one in self.trace
        ]
        return "\n".join(lines)

    # --- what became of it -----------------------------------------------------------------------------------------

    def order(self, order_id: str) -> Order | None:
        state: Order | None = _result(self.load(ORDER.stream_of(order_id))).state
        return state

    def processes_of(self, order_id: str) -> list[Process | None]:
        streams = [PROCESS.stream_of(process_id_of(kind, order_id)) for kind in self.kinds]
        return [_result(self.load(stream)).state for stream in streams]


def _result(steps: Awaitable[LoadedState]) -> LoadedState:
    """Of a coroutine that never waits."""
    try:
        steps.__await__().__next__()
    except StopIteration as stopped:
        loaded: LoadedState = stopped.value
        return loaded
    raise AssertionError("it waits")
