"""Files that are replaced are whole, and on disk with their names."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from shared.files import replacing
from shared.privacy.key_encryption import new_secret, write_secrets


def on_disk(descriptor: int) -> str:
    return Path(f"/proc/self/fd/{descriptor}").resolve().name


@pytest.mark.promise("privacy", "A new key-encryption key is on disk, with the name of its file, before it wraps a key")
def test_a_replaced_file_is_on_disk_before_it_has_its_name_and_its_name_is_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(on_disk(descriptor)))
    path = tmp_path / "secrets"
    write_secrets(path, [new_secret()])
    assert done == ["secrets.partial", tmp_path.name]


def test_a_file_that_was_not_written_whole_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with suppress(ZeroDivisionError), replacing(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    with replacing(path) as file:
        file.write(b"after")
    assert path.read_text() == "after"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
