"""Sealed values: personal data as ciphertext, `sealed:1:<key id>:<AES-SIV, base64url>`. Pure.

Subject and field are associated data, so a value that was moved to another field or subject does not open. AES-SIV
needs no nonce: the same text of one subject and field is the same value, by which "the same again" is recognised.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from shared.errors import Corrupt

KEY_BYTES = 64  # AES-256-SIV uses half of it for the tag

_SEALED = re.compile(r"sealed:1:([A-Za-z0-9_-]{16}):([A-Za-z0-9_-]{22,})")
_BEGIN_IN_JSON = b'"sealed:1:'
_IN_JSON = re.compile(rb'"(sealed:1:[A-Za-z0-9_-]{16}:[A-Za-z0-9_-]{22,})"')
_THROWAWAY, _OF_ERASED = "-" * 16, "_" * 16  # ids of keys that are kept nowhere


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


def is_of_erased(value: str) -> bool:
    """Whether the value was sealed for a subject that is erased: it never opens."""
    return key_id_of(value) == _OF_ERASED


def has_sealed(body: bytes) -> bool:
    """Whether a text of the JSON may be sealed."""
    return _BEGIN_IN_JSON in body


def replace_sealed(body: bytes, texts: Mapping[str, str | None]) -> bytes:
    """The JSON with the text of each sealed value in its place, or null. Other values stay."""

    def text_of(match: re.Match[bytes]) -> bytes:
        value = match[1].decode()
        return msgspec.json.encode(texts[value]) if value in texts else match[0]

    return _IN_JSON.sub(text_of, body)


class SubjectKey:
    """Seals and opens the values of one subject: a stream, such as `customer-17850`."""

    __slots__ = ("_associated", "_cipher", "key_id", "subject")

    def __init__(self, key_id: str, subject: str, key: bytes) -> None:
        self.key_id = key_id
        self.subject = subject
        self._associated = subject.encode()
        self._cipher = AESSIV(key)

    @classmethod
    def throwaway(cls, subject: str) -> SubjectKey:
        """A key that is kept nowhere, for a subject that has none: what it seals is never stored."""
        return cls(_THROWAWAY, subject, AESSIV.generate_key(KEY_BYTES * 8))

    @classmethod
    def of_erased(cls, subject: str) -> SubjectKey:
        """A key that is kept nowhere, for a subject that is erased: what it seals never opens."""
        return cls(_OF_ERASED, subject, AESSIV.generate_key(KEY_BYTES * 8))

    def seal(self, field: str, text: str) -> str:
        sealed = self._cipher.encrypt(text.encode(), [self._associated, field.encode()])
        return f"sealed:1:{self.key_id}:{urlsafe_b64encode(sealed).rstrip(b'=').decode()}"

    def open(self, field: str, value: str) -> str:
        """Raises `Unopenable`."""
        match = _SEALED.fullmatch(value)
        if match is None or match[1] != self.key_id:
            raise Unopenable(self.key_id, field)
        sealed = urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4))
        try:
            return self._cipher.decrypt(sealed, [self._associated, field.encode()]).decode()
        except InvalidTag:
            raise Unopenable(self.key_id, field) from None
