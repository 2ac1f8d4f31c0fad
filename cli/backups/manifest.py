"""The list of a backup's files, `backup.json`. It is written last: a backup without it is not complete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cli.failure import CommandFailed

MANIFEST = "backup.json"
EVENTS, HEAD, LOG_IDS, KEYS = "events.csv", "head.csv", "ids.csv", "idempotency_keys.csv"
SUBJECT_KEYS = "subject_keys.csv"
CATALOGUE_HEAD = "catalogue_head.csv"
# Each table in a file of its own; a table comes after those that it refers to.
CATALOGUE = ("brands", "categories", "tags", "products", "product_tags", "reviews", "catalogue_changes")
FORMAT = 3

_CHUNK = 1 << 18  # bytes


def file_of(table: str) -> str:
    """The name of the file that has the table's rows."""
    return f"{table}.csv"


class BackupFailed(CommandFailed):
    """The backup was not made, or cannot be restored; the message says why."""


class FileSum(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`hash` and `position` are those of the log's head."""

    format: int
    made_at: str
    log_id: str
    position: int
    hash: str
    files: dict[str, FileSum]


def load_manifest(directory: Path) -> Manifest:
    """Raises BackupFailed."""
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise BackupFailed(f"{directory} holds no complete backup: {MANIFEST}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise BackupFailed(f"{directory / MANIFEST}: {error}") from error
    if manifest.format != FORMAT:
        raise BackupFailed(f"{directory} has format {manifest.format}; this program reads format {FORMAT}")
    return manifest


def checked_chunks(directory: Path, name: str, manifest: Manifest) -> Iterator[bytes]:
    """The file's content. Raises BackupFailed, at its end, where it is not the content that was backed up."""
    digest = hashlib.sha256()
    try:
        with (directory / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                yield chunk
    except OSError as error:
        raise BackupFailed(f"{directory / name}: {error.strerror}") from error
    known = manifest.files.get(name)
    if known is None or known.sha256 != digest.hexdigest():
        raise BackupFailed(f"{directory / name} is damaged: it is not the file that {MANIFEST} names")
