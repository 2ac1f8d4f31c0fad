"""Moves one read model along the log: read, fold, apply atomically with the checkpoint.

Correctness does not rest on being alone: every apply names the checkpoint it started from and the epoch of its
projector, and the store refuses it when either is not current. So a batch is applied exactly once, however
often and by however many projectors it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from time import monotonic, perf_counter
from typing import Generic

from projector.byte_budget import ByteBudget, Held
from projector.document_cache import DocumentCache, cache_bytes
from projector.document_loader import LOADED_BYTES, DocumentLoader
from projector.folding import Folded, fold_batch
from projector.parking import MOST_PARKED, fold_on, log_parked, parked_by
from projector.projection import D, Projection
from projector.rebuild_reason import rebuild_reason
from projector.routing import Routed, route
from projector.stores.store import EVERYTHING, ApplyResult, Batch, CheckpointMismatch, ClaimedCheckpoint, Fenced, Store
from shared.eventstore import log as event_log
from shared.eventstore.lease import Lease
from shared.eventstore.log import Page, StoredEvent
from shared.failpoints import failpoint
from shared.logs import get_logger
from shared.metrics import (
    PROJECTION_APPLY_SECONDS,
    PROJECTION_BATCH_EVENTS,
    PROJECTION_POISON,
    PROJECTION_REFUSED,
)
from shared.read_models.keys import Checkpoint
from shared.read_models.poison import Poison
from shared.settings import OnPoison

LOG_SECONDS = 1.0  # between checks of which log it is
# Of the JSON of the batches that all engines of a process write to one kind of store at the same time. The objects take
# ten times as much, and more.
BATCHES_BYTES = 2 * (event_log.PAGE_BYTES + LOADED_BYTES)
WRITTEN_BYTES = 16 * 2**20  # of documents in one batch; one of more is made of half the events

_log = get_logger()


class _DocumentExists(Exception):
    """A document that a batch takes for new is there already."""


class Engine(Generic[D]):
    """Folds one partition under one lease."""

    def __init__(
        self,
        projection: Projection[D],
        store: Store,
        lease: Lease,
        batch_size: int,
        on_poison: OnPoison = "stop",
        *,
        budget: ByteBudget | None = None,
        partitions: int = 1,
    ) -> None:
        """`budget` is shared by the engines that write to one kind of store. What is bounded for a read model is
        divided by its partitions."""
        self._budget = budget or ByteBudget(BATCHES_BYTES)
        self._projection = projection
        self._store = store
        self._lease = lease
        self._batch_size = batch_size
        self._most_parked = max(1, MOST_PARKED // partitions) if on_poison == "park" else 0
        self._checkpoint: Checkpoint | None = None
        self._hash = b""  # of the log at the checkpoint
        self._parked: dict[str, Poison] = {}  # as of the checkpoint, by document
        self._revisions = 0  # names given to what is parked
        self._loader = DocumentLoader(projection, store, DocumentCache(cache_bytes(partitions)))
        self._prefetched: int | None = None  # after which position the session has read the next page ahead
        self._guesses_new = True  # that the first event of a stream makes a new document
        self.prefetch = True  # the session reads and caches the next page while a batch is written
        self._next_log_check = 0.0
        self._apply_seconds = PROJECTION_APPLY_SECONDS.labels(projection.name)
        self._batch_events = PROJECTION_BATCH_EVENTS.labels(projection.name)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where the read model is, as far as this engine knows; None before the first step."""
        return self._checkpoint

    async def step(self, retry: Container[str] = ()) -> bool:
        """Tries those parked documents again and applies the next batch; whether there may be more to do at once.

        Raises `PoisonEvent` when the next event cannot be applied, `Fenced` when another projector has taken over,
        and what is in `projector.stores.store.UNAVAILABLE` while a server is. The step can be repeated after each of
        them.

        Where the store is found not to be where it was left, it does nothing, and there is no `checkpoint`.
        """
        try:
            if self._checkpoint is None:
                self._checkpoint = await self._resume()
            await self._check_log(self._checkpoint)
            for poison in [*self._parked.values()]:
                if poison.document_id in retry or EVERYTHING in retry:
                    async with self._budget.hold(event_log.PAGE_BYTES + LOADED_BYTES):
                        await self._fold_on(self._checkpoint, poison)
            return await self._apply_next(self._checkpoint)
        except CheckpointMismatch:
            _refused(self._projection.name, ApplyResult.MISMATCH)
            _log.warning("checkpoint mismatch; resuming", projection=self._projection.name)
            self._checkpoint = None
            return True

    async def _apply_next(self, checkpoint: Checkpoint) -> bool:
        async with self._budget.hold(event_log.PAGE_BYTES + LOADED_BYTES) as held:
            events, more = await self._read(checkpoint.position)
            if not events:
                await self._check_unmoved(checkpoint)
                return False
            more = more or self._prefetched == checkpoint.position  # since it was read, there may be
            held.shrink(event_log.json_size(events) + LOADED_BYTES)
            routed = route(self._projection, events)
            try:
                folded = await self._apply_page(checkpoint, events, routed, held, more=more)
            except _DocumentExists:
                # Folded from other streams. Of such a projection, every document is loaded from now on.
                _refused(self._projection.name, ApplyResult.EXISTS)
                self._guesses_new = False
                folded = await self._apply_page(checkpoint, events, routed, held, more=more)
        for raised in folded.parked.values():
            log_parked(self._projection.name, raised)
        if folded.poison is not None:
            PROJECTION_POISON.labels(self._projection.name, "stopped").inc()
            raise folded.poison
        return more or folded.events < len(events)

    async def _apply_page(
        self, checkpoint: Checkpoint, events: Sequence[StoredEvent], routed: Routed, held: Held, *, more: bool
    ) -> Folded[D]:
        """Of the page, as many events as fit."""
        folded, batch = await self._fold(checkpoint, events, routed, held, guess=self._guesses_new)
        if batch is not None:
            prefetch = more and folded.events == len(events)
            await self._write_and_prefetch(batch, folded.documents, prefetch=prefetch)
            self._batch_events.observe(folded.events)
        return folded

    async def _write_and_prefetch(self, batch: Batch, documents: Mapping[str, D], *, prefetch: bool) -> None:
        """Writes the batch; meanwhile reads the page after it. Both have ended when this returns or raises."""
        if not (prefetch and self.prefetch):
            await self._write(batch, documents)
            return
        reading = asyncio.create_task(self._read(batch.position))
        try:
            await self._write(batch, documents)
        finally:
            await asyncio.wait([reading])
            failed = reading.cancelled() or reading.exception() is not None
        if not failed and reading.result().events:  # else the next step reads again, and raises
            self._prefetched = batch.position

    async def _read(self, after: int) -> Page:
        failpoint("projection.reading", self._projection.name)
        events = await self._lease.session.read(after, self._batch_size, feed=self._projection.feed)
        failpoint("projection.read", self._projection.name)
        return events

    async def _fold(
        self, expected: Checkpoint, events: Sequence[StoredEvent], routed: Routed, held: Held, *, guess: bool
    ) -> tuple[Folded[D], Batch | None]:
        """As many of the events as fit. No batch: the very first event cannot be applied. `guess` which documents are
        new; the store checks it."""
        before = await self._loader.before(routed, self._parked, expected, held, guess=guess)
        fitting = routed.first(before.events)
        may_park = self._most_parked - len(self._parked)
        folded, changes = await fold_batch(self._projection, fitting, before.documents, self._parked, may_park)
        if before.new and (folded.poison or folded.parked):  # perhaps because one is not new
            return await self._fold(expected, events, routed, held, guess=False)
        if folded.events > 1 and changes.size > WRITTEN_BYTES:
            return await self._fold(expected, events, routed.first(folded.events // 2), held, guess=guess)
        failpoint("projection.folded", self._projection.name)
        if not folded.events:
            return folded, None
        last = events[folded.events - 1]
        parked = parked_by(folded, self._parked)
        parked_revision = self._next_revision() if parked else ""
        new = [document_id for document_id in before.new if document_id in changes.documents]
        return folded, Batch(
            expected, last.position, last.hash, changes, parked, parked_revision=parked_revision, new=new
        )

    async def _fold_on(self, checkpoint: Checkpoint, poison: Poison) -> None:
        """Brings a parked stream to where the others are, or to where it stops again."""
        document_id, position = poison.document_id, checkpoint.position
        before = (await self._loader.load(checkpoint, [document_id]))[document_id]
        retried = await fold_on(self._projection, self._lease.session, poison, before, position, self._batch_size)
        parked = {} if retried.parked is None else {document_id: retried.parked}
        unparked = [] if parked else [document_id]
        parked_revision = self._next_revision()
        self._loader.cache.drop(document_id)
        await self._write(
            Batch(checkpoint, position, self._hash, retried.changes, parked, unparked, parked_revision), {}
        )
        if retried.raised is not None:
            log_parked(self._projection.name, retried.raised)
        else:
            _log.info("parked document applied", projection=self._projection.name, document_id=document_id)

    async def _write(self, batch: Batch, documents: Mapping[str, D]) -> None:
        """`documents` are those that it changes, to be kept."""
        started = perf_counter()
        failpoint("projection.applying", self._projection.name)
        match await self._store.apply(batch, self._lease.epoch):
            case ApplyResult.APPLIED:
                failpoint("projection.applied", self._projection.name)
                self._checkpoint, self._hash = batch.reached, batch.hash
                self._parked |= batch.parked
                for document_id in batch.unparked:
                    del self._parked[document_id]
                for document_id, document in documents.items():
                    self._loader.cache.put(document_id, document, len(batch.changes.documents[document_id]["document"]))
            case ApplyResult.MISMATCH:
                raise CheckpointMismatch
            case ApplyResult.EXISTS:
                raise _DocumentExists
            case ApplyResult.FENCED:
                self._loader.cache.clear()
                _refused(self._projection.name, ApplyResult.FENCED)
                raise Fenced(self._lease.epoch)
        self._apply_seconds.observe(perf_counter() - started)

    def _next_revision(self) -> str:
        """A new name: no two leases have one epoch."""
        self._revisions += 1
        return f"{self._lease.epoch}.{self._revisions}"

    async def _check_log(self, checkpoint: Checkpoint) -> None:
        """Notices a log that was given a new id while we were connected. What is folded until then is right, only its
        name is not."""
        if monotonic() < self._next_log_check:
            return
        head = await self._lease.session.read_head(self._projection.feed)
        if head.log_id != checkpoint.log_id:
            raise CheckpointMismatch
        self._next_log_check = monotonic() + LOG_SECONDS

    async def _check_unmoved(self, checkpoint: Checkpoint) -> None:
        """Notices an emptied or replaced store also while no events arrive."""
        if await self._store.checkpoint() != checkpoint:
            raise CheckpointMismatch

    async def _resume(self) -> Checkpoint:
        """Claims the read model and continues at its checkpoint; begins anew where it is not a fold of this log."""
        self._loader.cache.clear()
        self._prefetched = None
        self._guesses_new = True
        failpoint("projection.claiming", self._projection.name)
        claimed = await self._claim()
        failpoint("projection.claimed", self._projection.name)
        self._lease.session.invalidate()
        head = await self._lease.session.read_head(self._projection.feed)
        reason = await rebuild_reason(self._lease.session, self._projection.feed, claimed, head)
        if reason is None:
            assert claimed is not None
            checkpoint, self._hash = claimed
            parked = await self._store.parked(checkpoint) if checkpoint.parked_revision else []
            self._parked = {poison.document_id: poison for poison in parked}
            _log.info(
                "resuming",
                projection=self._projection.name,
                position=checkpoint.position,
                parked=len(parked),
                head=head.position,
                epoch=self._lease.epoch,
            )
            return checkpoint
        log = _log.info if claimed is None else _log.error
        log(
            "building the read model from the start",
            projection=self._projection.name,
            reason=reason,
            head=head.position,
            epoch=self._lease.epoch,
        )
        self._hash, self._parked = b"", {}
        checkpoint = await self._store.reset(self._lease.epoch, head.log_id, ready_at=head.position)
        failpoint("projection.reset", self._projection.name)
        return checkpoint

    async def _claim(self) -> ClaimedCheckpoint | None:
        try:
            return await self._store.claim(self._lease.epoch)
        except Fenced as higher:
            # Holding the lease, we are the one. Epochs start low again where the log was restored or is a new one.
            await self._lease.raise_epoch(above=higher.epoch)
            return await self._store.claim(self._lease.epoch)


def _refused(projection: str, result: ApplyResult) -> None:
    PROJECTION_REFUSED.labels(projection, result).inc()
