"""A key that `orders up --auth` makes and trusts, and the tokens that `orders token` signs with it.

For development on one machine: a program that reads the data directory can sign for every caller.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

ISSUER = "orders up"
AUDIENCE = "orders"


class NoKey(Exception):
    """The data directory has no key: no `orders up --auth` ran there."""


class LocalIssuer:
    def __init__(self, data_dir: Path) -> None:
        self._private = data_dir / "identity" / "private.pem"
        self._public = data_dir / "identity" / "keys.json"

    def create(self) -> None:
        """Makes the key, unless it is there."""
        self._private.parent.mkdir(mode=0o700, exist_ok=True)
        if not self._private.exists():
            pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            partial = self._private.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
            partial.replace(self._private)
        self._public.write_text(json.dumps({"keys": [self._public_key()]}))

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a service that accepts its tokens."""
        return {"AUTH": "jwt", "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE, "AUTH_JWKS": str(self._public)}

    def token(self, subject: str, roles: Sequence[str], customer_id: str | None, valid_seconds: int) -> str:
        """Raises `NoKey`."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "roles": list(roles),
            "iat": now,
            "exp": now + valid_seconds,
        }
        if customer_id is not None:
            claims["customer_id"] = customer_id
        return jwt.encode(claims, self._key(), "ES256", {"kid": self._public_key()["kid"]})

    def _key(self) -> EllipticCurvePrivateKey:
        try:
            key = load_pem_private_key(self._private.read_bytes(), password=None)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NoKey from error
        assert isinstance(key, EllipticCurvePrivateKey)
        return key

    def _public_key(self) -> dict[str, str]:
        key: dict[str, str] = jwt.algorithms.ECAlgorithm.to_jwk(self._key().public_key(), as_dict=True)
        return {**key, "use": "sig", "kid": sha256(f"{key['x']}{key['y']}".encode()).hexdigest()[:16]}
