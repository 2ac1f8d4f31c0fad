"""The file of seals: appended to, never rewritten."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.auditing.errors import CannotAudit
from cli.auditing.seals import Seal


class SealFile:
    """Open for one process at a time."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @property
    def empty(self) -> bool:
        return os.fstat(self._descriptor).st_size == 0

    def append(self, seal: Seal) -> None:
        """On disk when this returns; all of the line or nothing of it. Raises CannotAudit."""
        line = seal.line()
        size = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.ftruncate(self._descriptor, size)
                raise CannotAudit(f"{self._path}: no room for another seal")
            os.fsync(self._descriptor)
        except OSError as error:
            raise CannotAudit(f"{self._path}: {error.strerror}") from error


@contextmanager
def open_seal_file(path: Path) -> Iterator[SealFile]:
    """Made when it is not there; locked until the end. Raises CannotAudit."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise CannotAudit(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _sync_directory(path.absolute().parent)
        yield SealFile(path, descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    """So that a file just made is still there after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
