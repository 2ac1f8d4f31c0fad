"""Keys are wrapped with secrets that the database does not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.privacy.key_encryption import (
    CannotUnwrap,
    KeyEncryption,
    UnusableSecrets,
    Wrapped,
    id_of_secret,
    read_secrets,
    write_secrets,
)
from shared.settings import Settings
from tests.running import settings_for

OLD, NEW = "the secret of yesterday", "the secret of today"
KEY = b"a key"


@pytest.fixture
def settings_of_nowhere() -> Settings:
    return settings_for("postgresql://nowhere", "redis://nowhere", key_encryption_key=None)


def test_a_wrapped_key_is_unwrapped_as_that_of_its_subject_alone() -> None:
    encryption = KeyEncryption(lambda: [OLD])
    wrapped = encryption.wrap(KEY, "id", "customer-1")
    assert wrapped.by == id_of_secret(OLD)
    assert KEY not in wrapped.key
    assert encryption.unwrap(wrapped, "id", "customer-1") == KEY
    for key_id, subject in (("id", "customer-2"), ("other", "customer-1")):
        with pytest.raises(CannotUnwrap):
            encryption.unwrap(wrapped, key_id, subject)


def test_the_newest_secret_wraps_and_the_older_ones_unwrap() -> None:
    wrapped = KeyEncryption(lambda: [OLD]).wrap(KEY, "id", "s")
    both = KeyEncryption(lambda: [NEW, OLD])
    assert both.wrap(KEY, "id", "s").by == both.newest == id_of_secret(NEW)
    assert both.unwrap(wrapped, "id", "s") == KEY
    with pytest.raises(CannotUnwrap):
        KeyEncryption(lambda: [NEW]).unwrap(wrapped, "id", "s")


def test_a_file_that_was_changed_is_read_again_by_a_running_process(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write_secrets(path, [OLD])
    assert path.stat().st_mode & 0o777 == 0o600
    running = KeyEncryption(lambda: read_secrets(path))
    write_secrets(path, [NEW, OLD])
    assert running.wrap(KEY, "id", "s").by == id_of_secret(NEW)
    reader = KeyEncryption(lambda: [OLD])
    with pytest.raises(CannotUnwrap):
        reader.unwrap(Wrapped(b"x" * 32, id_of_secret(NEW)), "id", "s")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, settings_of_nowhere: Settings) -> None:
    with pytest.raises(UnusableSecrets, match="none"):
        KeyEncryption.of(settings_of_nowhere.model_copy(update={"key_encryption_key_file": str(tmp_path / "none")}))


def test_the_setting_holds_several_with_commas(settings_of_nowhere: Settings) -> None:
    given = settings_of_nowhere.model_copy(update={"key_encryption_key": SecretStr(f"{NEW}, {OLD}")})
    encryption = KeyEncryption.of(given)
    assert encryption is not None
    assert encryption.newest == id_of_secret(NEW)
    assert encryption.unwrap(KeyEncryption(lambda: [OLD]).wrap(KEY, "id", "s"), "id", "s") == KEY
    assert KeyEncryption.of(settings_of_nowhere) is None


@pytest.mark.parametrize("secrets", [[], ["short"], [OLD, "short"]])
def test_secrets_that_are_missing_or_short_are_refused(secrets: list[str]) -> None:
    with pytest.raises(UnusableSecrets):
        KeyEncryption(lambda: secrets)
