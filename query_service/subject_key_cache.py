"""The keys of subjects that the query service opens values with, cached for a moment.

A process asks twice a second which keys were destroyed, and drops those. Without an answer for a second it uses no
cached key: a destroyed one opens nothing any more after that second.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from shared.aio import cancel
from shared.logs import get_logger
from shared.postgres import create_pool
from shared.privacy.key_encryption import KeyEncryption
from shared.privacy.sealed import SubjectKey
from shared.privacy.subject_keys import MAX_DESTROYED, NO_SECRET, Erasure, SubjectKeys, SubjectKeysUnavailable
from shared.settings import Settings

MAX_KEYS = 10_000  # about 1 KiB each
POLL_SECONDS = 0.4
MAX_AGE_SECONDS = 1.0

_log = get_logger()


class SubjectKeyCache:
    def __init__(self, keys: SubjectKeys) -> None:
        self._keys = keys
        self._cached: OrderedDict[str, SubjectKey] = OrderedDict()  # by id, the least recently used first
        self._log_id: UUID | None = None
        self._erasure = 0  # the position of the last one that was seen
        self._checked_at = -MAX_AGE_SECONDS

    def __len__(self) -> int:
        return len(self._cached)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._cached

    async def find(self, key_id: str) -> SubjectKey | None:
        """None where it was destroyed. Raises `SubjectKeysUnavailable`."""
        if asyncio.get_running_loop().time() - self._checked_at > MAX_AGE_SECONDS:
            self._cached.clear()
        if (key := self._cached.get(key_id)) is not None:
            self._cached.move_to_end(key_id)
            return key
        erasure = self._erasure
        key = (await self._keys.find([key_id])).get(key_id)
        if key is not None and erasure == self._erasure:  # else it may have been destroyed since it was read
            self._cached[key_id] = key
            if len(self._cached) > MAX_KEYS:
                self._cached.popitem(last=False)
        return key

    async def erasure_of(self, subject: str, event_type: str) -> Erasure | None:
        """As `SubjectKeys.erasure_of`."""
        return await self._keys.erasure_of(subject, event_type)

    async def drop_destroyed(self) -> None:
        """Drops what was destroyed since the last call. Raises `SubjectKeysUnavailable`."""
        asked_at = asyncio.get_running_loop().time()
        log_id, destroyed = await self._keys.destroyed_since(self._erasure)
        if log_id != self._log_id:  # the log was restored: positions are given again
            self._cached.clear()
            self._log_id, self._erasure = log_id, 0
            return
        for key_id, erasure in destroyed:
            self._cached.pop(key_id, None)
            self._erasure = erasure
        if len(destroyed) < MAX_DESTROYED:
            self._checked_at = asked_at

    async def drop_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(MAX_AGE_SECONDS - POLL_SECONDS):
                    await self.drop_destroyed()
            except (SubjectKeysUnavailable, TimeoutError) as error:
                self._cached.clear()
                _log.warning("destroyed keys not read", error=str(error))
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def open_cached_keys(settings: Settings, encryption: KeyEncryption | None) -> AsyncIterator[SubjectKeyCache]:
    if encryption is None:
        _log.warning("customers cannot be shown", reason=NO_SECRET)
    pool = await create_pool(settings, "keys", max_size=2, target="primary")
    cache = SubjectKeyCache(SubjectKeys(pool, encryption))
    dropping = asyncio.create_task(cache.drop_for_ever(), name="drop-destroyed-keys")
    try:
        yield cache
    finally:
        await cancel(dropping)
        pool.terminate()
