"""Key-encryption keys: they wrap the keys of subjects, and the database does not hold them.

Each is derived from a secret of the setting or of a file, the newest first. New keys are wrapped with the newest; the
older ones unwrap until `orders keys rotate` has wrapped everything anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.files import replacing
from shared.settings import Settings

MIN_SECRET = 16  # characters


class UnusableSecrets(ValueError):
    """There is no secret, one is too short, or the file cannot be read."""


class CannotUnwrap(LookupError):
    """No secret at hand wrapped the key. `wrapped_by` is the id of the key-encryption key that did."""

    def __init__(self, wrapped_by: str) -> None:
        super().__init__(
            f"the key-encryption key {wrapped_by} is not among those of this process, or the key is damaged"
        )


class Wrapped(NamedTuple):
    key: bytes
    by: str  # id of the key-encryption key


class _KeyEncryptionKey:
    def __init__(self, secret: str) -> None:
        key = HKDF(SHA512(), 64, None, b"orders: key-encryption key").derive(secret.encode())
        self.id = sha256(b"id of " + key).hexdigest()[:16]
        self.cipher = AESSIV(key)


class KeyEncryption:
    """Wraps and unwraps keys. `read` answers the secrets, the newest first; it is asked again for each wrapping, and
    where a key was wrapped with one that is not known yet."""

    def __init__(self, read: Callable[[], Sequence[str]]) -> None:
        """Raises `UnusableSecrets`."""
        self._read = read
        self._secrets: Sequence[str] = ()
        self._keys: dict[str, _KeyEncryptionKey] = {}
        self._refresh()

    @classmethod
    def of(cls, settings: Settings) -> KeyEncryption | None:
        """None where the settings name no secret. Raises `UnusableSecrets`."""
        if settings.key_encryption_key_file:
            path = Path(settings.key_encryption_key_file)
            return cls(lambda: read_secrets(path))
        if settings.key_encryption_key is None:
            return None
        given = split_secrets(settings.key_encryption_key.get_secret_value())
        return cls(lambda: given)

    @property
    def newest(self) -> str:
        """The id of the key-encryption key that wraps."""
        return next(iter(self._keys))

    def wrap(self, key: bytes, key_id: str, subject: str) -> Wrapped:
        """Raises `UnusableSecrets`."""
        self._refresh()
        wrapping = self._keys[self.newest]
        return Wrapped(wrapping.cipher.encrypt(key, [key_id.encode(), subject.encode()]), wrapping.id)

    def unwrap(self, wrapped: Wrapped, key_id: str, subject: str) -> bytes:
        """Raises `CannotUnwrap`, and `UnusableSecrets` where the secrets are read again."""
        if wrapped.by not in self._keys:
            self._refresh()
        if (wrapping := self._keys.get(wrapped.by)) is None:
            raise CannotUnwrap(wrapped.by)
        try:
            return wrapping.cipher.decrypt(wrapped.key, [key_id.encode(), subject.encode()])
        except InvalidTag:
            raise CannotUnwrap(wrapped.by) from None

    def _refresh(self) -> None:
        if (found := self._read()) == self._secrets:
            return
        if not found or min(map(len, found)) < MIN_SECRET:
            raise UnusableSecrets(f"give at least one key-encryption key, each of at least {MIN_SECRET} characters")
        self._secrets = found
        self._keys = {key.id: key for key in map(_KeyEncryptionKey, found)}


def id_of_secret(secret: str) -> str:
    """The id under which wrapped keys name the secret."""
    return _KeyEncryptionKey(secret).id


def split_secrets(setting: str) -> list[str]:
    """Of KEY_ENCRYPTION_KEY, the newest first."""
    return [secret.strip() for secret in setting.split(",")]


def read_secrets(path: Path) -> list[str]:
    """The lines of the file. Raises `UnusableSecrets`."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableSecrets(f"the key-encryption keys in {path} cannot be read: {error}") from error
    return [line for line in map(str.strip, lines) if line]


def write_secrets(path: Path, given: Sequence[str]) -> None:
    """Replaces the file, which only its owner can read."""
    with replacing(path, 0o600) as file:
        file.write("".join([f"{secret}\n" for secret in given]).encode("ascii"))


def new_secret() -> str:
    return secrets.token_urlsafe(48)
