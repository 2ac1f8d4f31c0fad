"""Which partitions a batch of reads concerns, and how the pages of all partitions become one."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from query_service.read_result import IndexPage, ReadResult
from shared.read_models.keys import Checkpoint, partition_of


class Read(NamedTuple):
    name: str  # of the document or the index
    start: str | None  # None: a document; else a page of an index, from there
    limit: int
    result: asyncio.Future[ReadResult[Any]]


class PartitionReads(NamedTuple):
    """The reads of a batch that concern one partition."""

    documents: list[Read]
    pages: list[Read]


def by_partition(batch: list[Read], partitions: int) -> dict[int, PartitionReads]:
    """The reads of each partition that has to be read, in order of partitions. A page concerns all of them."""
    documents: dict[int, list[Read]] = {0: []}
    pages = [read for read in batch if read.start is not None]
    for read in batch:
        if read.start is None:
            documents.setdefault(partition_of(read.name, partitions), []).append(read)
    concerned = range(partitions) if pages else sorted(documents)
    return {partition: PartitionReads(documents.get(partition, []), pages) for partition in concerned}


def merge_pages(parts: list[list[bytes]], limit: int) -> IndexPage:
    """One page of the pages of all partitions: {next entry, entry, summary, entry, summary ...}."""
    entries = sorted((entry for part in parts for entry in zip(part[1::2], part[2::2], strict=True)), reverse=True)
    more = len(entries) > limit or any(part[0] is not None for part in parts)
    del entries[limit:]
    return IndexPage(entries[-1][0] if more else None, [summary for _, summary in entries])


def lagging_partition(checkpoints: list[Checkpoint | None]) -> int:
    def progress(partition: int) -> tuple[bool, bool, int]:
        checkpoint = checkpoints[partition]
        if checkpoint is None:
            return False, False, 0
        return True, not checkpoint.rebuilding, checkpoint.position

    return min(range(len(checkpoints)), key=progress)
