"""Commands that are decided on events still on their way, and the check that each was decided on the right ones.

Every event names the events that its command was decided on, one for each stream. So the log alone tells whether a
command was appended after any other event.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from random import Random
from typing import NamedTuple
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from command_service.append_queue import Pending
from command_service.group_commit import GroupCommit
from shared.errors import OutcomeUnknown, Unavailable
from shared.eventstore.append_request import AppendRequest, AppendStatus, NewEvent, StreamAppend
from shared.eventstore.log import StoredEvent
from shared.eventstore.store import EventStore

HOT, STREAMS = "hot-0", [f"cold-{number}" for number in range(6)]


class Decided(msgspec.Struct):
    """The data of every event of one command."""

    command: str
    events: int  # of the command, in all of its streams
    after: dict[str, UUID | None]  # per named stream, the event that it was decided on


class Latest(NamedTuple):
    """What a process knows of a stream: its version and last event, and the handler that is about to append that."""

    version: int
    event_id: UUID | None
    pending: Pending | None = None


class Deciders:
    """The commands of one process. `appended` and `refused` hold the names of those whose fate it was told."""

    def __init__(self, store: EventStore, commit: GroupCommit, random: Random, name: str = "") -> None:
        self.appended: set[str] = set()
        self.refused: set[str] = set()
        self.built_on_others = 0
        self._store = store
        self._commit = commit
        self._random = random
        self._name = name
        self._latest: dict[str, Latest] = {}

    async def give(self, commands: int, clients: int = 8) -> None:
        """So many commands, from clients that each wait for their answer, or go away instead now and then."""
        numbers = iter(range(commands))
        await asyncio.gather(*(self._client(numbers) for _ in range(clients)))

    def told(self, command: str, *, appended: bool) -> None:
        """A client was told what became of its command."""
        (self.appended if appended else self.refused).add(command)

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            command = asyncio.create_task(self._give(f"{self._name}{number}"))
            if self._random.random() < 0.05:
                await asyncio.sleep(self._random.choice([0, 0, 0.001]))
                command.cancel()
            await asyncio.wait([command])
            if not command.cancelled():
                command.result()

    async def _give(self, command: str) -> None:
        """Repeats a command, under its key, until it is told what became of it."""
        uncertain = False
        while True:
            status = await self._once(command)
            if status in (AppendStatus.APPENDED, AppendStatus.REPLAYED):
                return self.told(command, appended=True)
            uncertain |= status is None
            if status is AppendStatus.CONFLICT and not uncertain and self._random.random() < 0.2:
                return self.told(command, appended=False)
            await asyncio.sleep(0)

    async def _once(self, command: str) -> AppendStatus | None:
        names = self._random.sample(STREAMS, self._random.choice([0, 1, 1, 2, 4]))
        if not names or self._random.random() < 0.5:
            names.insert(self._random.randint(0, len(names)), HOT)
        known = {name: self._latest.get(name) or await self._load(name) for name in names}
        counts = {name: self._random.choice([0, 1, 1, 2]) for name in names}
        counts[names[-1]] = counts[names[-1]] or 1
        data = Decided(command, sum(counts.values()), {name: latest.event_id for name, latest in known.items()})
        text, now = msgspec.json.encode(data).decode(), datetime.now(UTC)
        events = {
            name: [NewEvent(uuid7(), "Decided", 1, text, "{}", now) for _ in range(count)]
            for name, count in counts.items()
        }
        streams = [StreamAppend(name, known[name].version, events[name]) for name in names]
        built_on = [latest.pending for latest in known.values() if latest.pending and not latest.pending.appended]
        self.built_on_others += bool(built_on)
        try:
            pending = self._commit.submit(AppendRequest(streams, uuid7(), command, b"the same"), built_on)
        except Unavailable:
            return None
        for name, version, added, _ in streams:
            if added:
                self._latest[name] = Latest(version + len(added), added[-1].event_id, pending)
        status = None
        try:
            status = (await pending).status
        except (OutcomeUnknown, Unavailable):
            pass
        finally:
            if status is not AppendStatus.APPENDED:
                self._forget(names if status is AppendStatus.CONFLICT else ())
        return status

    async def _load(self, name: str) -> Latest:
        version, event_id = 0, None
        async for event in self._store.read_stream(name):
            version, event_id = event.version, event.event_id
        return Latest(version, event_id)

    def _forget(self, names: Iterable[str]) -> None:
        """Drops these streams, and those whose last event was not appended."""
        for name in names:
            self._latest.pop(name, None)
        for name, latest in list(self._latest.items()):
            if latest.pending is not None and latest.pending.appended is False:
                del self._latest[name]


def assert_decided_rightly(log: Iterable[StoredEvent]) -> set[str]:
    """That each command was appended once, as a whole, at consecutive positions, and after the very events that it was
    decided on; returns their names."""
    versions: defaultdict[str, int] = defaultdict(int)
    last: dict[str, UUID] = {}
    commands: set[str] = set()
    decoded = ((event, msgspec.json.decode(event.data, type=Decided)) for event in log)
    for command, grouped in groupby(decoded, key=lambda pair: pair[1].command):
        events = list(grouped)
        decided = events[0][1]
        assert command not in commands, f"{command} was appended twice"
        commands.add(command)
        assert len(events) == decided.events, f"{command} was appended in part"
        before = {name: last.get(name) for name in decided.after}
        assert decided.after == before, f"{command} was decided on other events"
        for event, _ in events:
            versions[event.stream_id] += 1
            assert event.version == versions[event.stream_id]
            last[event.stream_id] = event.event_id
    return commands
