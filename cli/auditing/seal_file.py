"""The file of seals. Seals are appended, never rewritten."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.auditing.errors import CannotAudit
from cli.auditing.seals import Seal
from shared.files import sync_directory


class SealFile:
    """An open file of seals, locked by one process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @property
    def empty(self) -> bool:
        return os.fstat(self._descriptor).st_size == 0

    def append(self, seal: Seal) -> None:
        """Append the whole line or nothing, and flush it to disk. Raises CannotAudit."""
        line = seal.line()
        size = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.ftruncate(self._descriptor, size)
                raise CannotAudit(f"{self._path}: no space for another seal")
            os.fsync(self._descriptor)
        except OSError as error:
            raise CannotAudit(f"{self._path}: {error.strerror}") from error


@contextmanager
def open_seal_file(path: Path) -> Iterator[SealFile]:
    """Create the file when it does not exist, and lock it for the block. Raises CannotAudit."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise CannotAudit(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        sync_directory(path.parent)
        yield SealFile(path, descriptor)
    finally:
        os.close(descriptor)
