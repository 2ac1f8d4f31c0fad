"""Ed25519 keys: PEM files, or the environment for the private one."""

from __future__ import annotations

import base64
import binascii
import os
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cli.auditing.errors import CannotAudit

ENVIRONMENT = "ORDERS_SEAL_KEY"


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the 32 bytes of the public key, in hex."""
    return sha256(key.public_bytes_raw()).hexdigest()


def make_keys(private: Path, public: Path) -> Ed25519PublicKey:
    """Write a new pair; the private file can be read by its owner only. Raises CannotAudit rather than overwrite."""
    key = Ed25519PrivateKey.generate()
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    spki = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if public.exists():
        raise CannotAudit(f"{public} is there already; keys are not overwritten")
    _write_new(private, pkcs8, 0o600)
    _write_new(public, spki, 0o644)
    return key.public_key()


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise CannotAudit(f"{path} is there already; keys are not overwritten") from error
    except OSError as error:
        raise CannotAudit(f"{path}: {error.strerror}") from error


def load_private_key(path: Path | None) -> Ed25519PrivateKey:
    """The key in the file, else in ORDERS_SEAL_KEY (the PEM, or its middle line alone). Raises CannotAudit."""
    if path is not None:
        content, source = _read(path), str(path)
    elif value := os.environ.get(ENVIRONMENT):
        content, source = value.encode(), ENVIRONMENT
    else:
        raise CannotAudit(f"no key to seal with: give --key FILE or set {ENVIRONMENT}")
    try:
        if content.lstrip().startswith(b"-----"):
            key = serialization.load_pem_private_key(content, password=None)
        else:
            key = serialization.load_der_private_key(base64.b64decode(content, validate=True), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error) as error:
        raise CannotAudit(f"{source} holds no private key that can be read (PEM, not encrypted)") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CannotAudit(f"{source} holds a private key that is not Ed25519")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Raises CannotAudit."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CannotAudit(f"{path} holds no public key that can be read (PEM)") from error
    if not isinstance(key, Ed25519PublicKey):
        raise CannotAudit(f"{path} holds a public key that is not Ed25519")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotAudit(f"{path}: {error.strerror}") from error
