"""Moves one read model along the log: read, fold, apply atomically with the checkpoint.

Correctness does not rest on being alone: every apply names the checkpoint it started from and the epoch of its
projector, and the store refuses it when either is not current. So a batch is applied exactly once whoever sends it,
however often.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Generic

import msgspec

from projector.folding import changes, documents_needed, fold
from projector.lease import Lease
from projector.projection import D, Projection
from projector.stores import Batch, Fenced, Moved, Standing, Store, Verdict
from shared import event_store
from shared.logs import get_logger
from shared.metrics import PROJECTION_APPLY_SECONDS, PROJECTION_BATCH_EVENTS, PROJECTION_REFUSED
from shared.read_model_keys import Checkpoint

READ_SECONDS = 10.0  # a read that takes longer means that the connection is dead

_log = get_logger()


class Engine(Generic[D]):
    """One turn as the active projector: from taking the lease to losing it."""

    def __init__(self, projection: Projection[D], store: Store, lease: Lease, batch_size: int) -> None:
        self._projection = projection
        self._store = store
        self._lease = lease
        self._batch_size = batch_size
        self._decoder = msgspec.json.Decoder(projection.document)
        self._checkpoint: Checkpoint | None = None
        self._apply_seconds = PROJECTION_APPLY_SECONDS.labels(projection.name)
        self._batch_events = PROJECTION_BATCH_EVENTS.labels(projection.name)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where the read model is, as far as this engine knows; None before the first step."""
        return self._checkpoint

    async def step(self) -> bool:
        """Applies the next batch; whether there may be more to do at once.

        Raises `PoisonEvent` when the next event cannot be applied, `Fenced` when another projector has taken over,
        and what is in `projector.stores.AWAY` while a server is. The step can be repeated after each of them.
        """
        try:
            if self._checkpoint is None:
                self._checkpoint = await self._resume()
            return await self._apply_next(self._checkpoint)
        except Moved:
            _refused(self._projection.name, Verdict.MOVED)
            _log.warning("the read model is not where it was left; resuming", projection=self._projection.name)
            self._checkpoint = None
            return True

    async def _apply_next(self, checkpoint: Checkpoint) -> bool:
        async with asyncio.timeout(READ_SECONDS):
            events = await event_store.read_batch(self._lease.connection, checkpoint.position, self._batch_size)
        if not events:
            await self._check_unmoved(checkpoint)
            return False
        raw = await self._store.load(checkpoint, documents_needed(self._projection, events))
        stored = {document_id: self._decoder.decode(document) for document_id, document in raw.items()}
        folded = fold(self._projection, events, stored)
        if folded.last is not None:
            written = changes(self._projection, stored, folded.documents)
            await self._write(Batch(checkpoint, folded.last.position, folded.last.hash, written), folded.events)
        if folded.poison is not None:
            raise folded.poison
        return folded.events == self._batch_size

    async def _write(self, batch: Batch, events: int) -> None:
        started = perf_counter()
        match await self._store.apply(batch, self._lease.epoch):
            case Verdict.APPLIED:
                self._checkpoint = batch.expected._replace(position=batch.position)
            case Verdict.MOVED:
                raise Moved
            case Verdict.FENCED:
                _refused(self._projection.name, Verdict.FENCED)
                raise Fenced(self._lease.epoch)
        self._apply_seconds.observe(perf_counter() - started)
        self._batch_events.observe(events)

    async def _check_unmoved(self, checkpoint: Checkpoint) -> None:
        """Notices an emptied or replaced store also while no events arrive."""
        if await self._store.checkpoint() != checkpoint:
            raise Moved

    async def _resume(self) -> Checkpoint:
        """Claims the read model and continues where it stands; begins anew where it is not a fold of this log."""
        standing = await self._claim()
        async with asyncio.timeout(READ_SECONDS):
            head = await event_store.read_head(self._lease.connection)
            reason = await self._why_rebuild(standing, head)
        if reason is None:
            assert standing is not None
            _log.info(
                "resuming",
                projection=self._projection.name,
                position=standing.checkpoint.position,
                head=head.position,
                epoch=self._lease.epoch,
            )
            return standing.checkpoint
        log = _log.info if standing is None else _log.error
        log(
            "building the read model from the start",
            projection=self._projection.name,
            reason=reason,
            head=head.position,
            epoch=self._lease.epoch,
        )
        return await self._store.reset(self._lease.epoch, head.log_id, serve_from=head.position)

    async def _claim(self) -> Standing | None:
        try:
            return await self._store.claim(self._lease.epoch)
        except Fenced as higher:
            # Holding the lease, we are the one. Epochs start low again where the log was restored or is a new one.
            await self._lease.raise_epoch(above=higher.epoch)
            return await self._store.claim(self._lease.epoch)

    async def _why_rebuild(self, standing: Standing | None, head: event_store.Head) -> str | None:
        if standing is None:
            return "there is none"
        checkpoint = standing.checkpoint
        if checkpoint.log_id != head.log_id:
            return f"it belongs to log {checkpoint.log_id}, this is {head.log_id}"
        if checkpoint.position > head.position:
            return f"it is at {checkpoint.position}, ahead of the log, which was restored to an older state"
        if checkpoint.position > 0:
            # Each hash covers all that went before, so one comparison tells whether the model's past is this log's.
            last = (await event_store.read_batch(self._lease.connection, checkpoint.position - 1, 1))[0]
            if last.hash != standing.hash:
                return f"the log has another past at {checkpoint.position}; it was restored to an older state"
        return None


def _refused(projection: str, verdict: Verdict) -> None:
    PROJECTION_REFUSED.labels(projection, verdict).inc()
