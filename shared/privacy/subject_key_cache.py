"""The keys of subjects that a process seals and opens values with, cached for a moment.

While a process has any, it asks every 0.4 s which keys were destroyed, and drops those. Without an answer for a
second it uses no cached key: a destroyed one opens nothing any more after that second.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from uuid import UUID

from shared.aio import cancel
from shared.logs import get_logger
from shared.privacy.sealed import SubjectKey
from shared.privacy.subject_keys import MAX_DESTROYED, Erasure, SubjectKeys, SubjectKeysUnavailable

MAX_KEYS = 10_000  # about 1 KiB each
POLL_SECONDS = 0.4
MAX_AGE_SECONDS = 1.0

_log = get_logger()


class SubjectKeyCache:
    """Its methods raise `SubjectKeysUnavailable`."""

    def __init__(self, keys: SubjectKeys) -> None:
        self._keys = keys
        # By id, the least recently used first. None: destroyed, which it stays.
        self._cached: OrderedDict[str, SubjectKey | None] = OrderedDict()
        self._current: dict[str, str] = {}  # subject -> id of its key, which is cached
        self._log_id: UUID | None = None
        self._erasure = 0  # the position of the last one that was seen
        self._checked_at = -MAX_AGE_SECONDS
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._cached)

    def __contains__(self, key_id: str) -> bool:
        """Whether the cache can open what was sealed with the key."""
        return self._cached.get(key_id) is not None

    @property
    def epoch(self) -> int:
        """Another number whenever a key was destroyed, or may have been: what was opened before is cached no longer."""
        self._clear_if_old()
        return self._epoch

    async def find(self, key_id: str, subject: str) -> SubjectKey | None:
        """The key to open with. None where it was destroyed, or is another subject's."""
        key = (await self.find_all([key_id]))[key_id]
        return None if key is None or key.subject != subject else key

    async def find_all(self, key_ids: Collection[str]) -> dict[str, SubjectKey | None]:
        """Each, by its id; None where it was destroyed. Where one is not cached, all are read, with one round
        trip."""
        self._clear_if_old()
        if all(key_id in self._cached for key_id in key_ids):
            for key_id in key_ids:
                self._cached.move_to_end(key_id)
            return {key_id: self._cached[key_id] for key_id in key_ids}
        erasure = self._erasure
        read = await self._keys.find(key_ids)
        found = {key_id: read.get(key_id) for key_id in key_ids}
        for key_id, key in found.items():
            self._put(key_id, key, erasure)
        return found

    async def current_or_first(self, subject: str) -> SubjectKey | None:
        """As that of `SubjectKeys`. What is sealed with a key that was destroyed a moment ago never opens."""
        self._clear_if_old()
        if (key_id := self._current.get(subject)) is not None:
            self._cached.move_to_end(key_id)
            return self._cached[key_id]
        erasure = self._erasure
        if (key := await self._keys.current_or_first(subject)) is not None and self._put(key.key_id, key, erasure):
            self._current[subject] = key.key_id
        return key

    async def erasure_of(self, subject: str, event_type: str, owner_id: str) -> Erasure | None:
        """As that of `SubjectKeys`."""
        return await self._keys.erasure_of(subject, event_type, owner_id)

    async def drop_destroyed(self) -> None:
        """Drops what was destroyed since the last call."""
        asked_at = asyncio.get_running_loop().time()
        log_id, position, destroyed = await self._keys.destroyed_since(self._erasure)
        if log_id != self._log_id:  # the first answer, or the log was restored: positions are given again
            self._clear()
            self._log_id, self._erasure, self._checked_at = log_id, position, asked_at
            return
        for key_id, erasure in destroyed:
            self._drop(key_id)
            self._erasure = erasure
            self._epoch += 1
        if len(destroyed) < MAX_DESTROYED:
            self._checked_at = asked_at

    async def drop_for_ever(self) -> None:
        while True:
            if self._cached:
                try:
                    async with asyncio.timeout(MAX_AGE_SECONDS - POLL_SECONDS):
                        await self.drop_destroyed()
                except (SubjectKeysUnavailable, TimeoutError) as error:
                    self._clear()
                    _log.warning("destroyed keys not read", error=str(error))
            await asyncio.sleep(POLL_SECONDS)

    def _put(self, key_id: str, key: SubjectKey | None, erasure: int) -> bool:
        """Unless it may have been destroyed since it was read, after that `erasure`."""
        if erasure != self._erasure:
            return False
        self._cached[key_id] = key
        if len(self._cached) > MAX_KEYS:
            self._drop(next(iter(self._cached)))
        return True

    def _drop(self, key_id: str) -> None:
        if (key := self._cached.pop(key_id, None)) is not None:
            self._current.pop(key.subject, None)

    def _clear_if_old(self) -> None:
        if asyncio.get_running_loop().time() - self._checked_at > MAX_AGE_SECONDS:
            self._clear()

    def _clear(self) -> None:
        self._cached.clear()
        self._current.clear()
        self._epoch += 1


@asynccontextmanager
async def cached(keys: SubjectKeys) -> AsyncIterator[SubjectKeyCache]:
    cache = SubjectKeyCache(keys)
    dropping = asyncio.create_task(cache.drop_for_ever(), name="drop-destroyed-keys")
    try:
        yield cache
    finally:
        await cancel(dropping)
