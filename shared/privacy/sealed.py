"""Sealed values: personal data as ciphertext, `sealed:1:<key id>:<AES-SIV, base64url>`. Pure.

Subject and field are associated data, so a value that was moved to another field or subject does not open. AES-SIV
needs no nonce: the same text of one subject and field is the same value, by which "the same again" is recognised.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from shared.errors import Corrupt

KEY_BYTES = 64  # AES-256-SIV uses half of it for the tag

_SEALED = re.compile(r"sealed:1:([A-Za-z0-9_-]{16}):([A-Za-z0-9_-]{22,})")


@dataclass
class Unopenable(Corrupt):
    """The value was sealed for another subject or field, or is damaged. Its key exists."""

    key_id: str
    field: str
    code = "unopenable-value"
    title = "A sealed value cannot be opened"

    @property
    def detail(self) -> str:
        return f"The value of {self.field} under key {self.key_id} was not sealed as this field of this subject."


def key_id_of(value: str) -> str | None:
    """The id of the key that the value was sealed with; None where it is not sealed."""
    match = _SEALED.fullmatch(value)
    return None if match is None else match[1]


class SubjectKey:
    """Seals and opens the values of one subject: a stream, such as `customer-17850`."""

    __slots__ = ("_cipher", "_subject", "key_id")

    def __init__(self, key_id: str, subject: str, key: bytes) -> None:
        self.key_id = key_id
        self._subject = subject.encode()
        self._cipher = AESSIV(key)

    @classmethod
    def throwaway(cls, subject: str) -> SubjectKey:
        """A key that is kept nowhere, for a subject that has none: what it seals is never stored."""
        return cls("-" * 16, subject, AESSIV.generate_key(KEY_BYTES * 8))

    def seal(self, field: str, text: str) -> str:
        sealed = self._cipher.encrypt(text.encode(), [self._subject, field.encode()])
        return f"sealed:1:{self.key_id}:{urlsafe_b64encode(sealed).rstrip(b'=').decode()}"

    def open(self, field: str, value: str) -> str:
        """Raises `Unopenable`."""
        match = _SEALED.fullmatch(value)
        if match is None or match[1] != self.key_id:
            raise Unopenable(self.key_id, field)
        sealed = urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4))
        try:
            return self._cipher.decrypt(sealed, [self._subject, field.encode()]).decode()
        except InvalidTag:
            raise Unopenable(self.key_id, field) from None
