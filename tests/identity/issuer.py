"""An issuer of tokens, as the identity provider of a company is one: its keys, and tokens signed with them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

ISSUER = "https://issuer.example"
AUDIENCE = "orders"


class Issuer:
    """Writes its public keys to `file`, as a service reads them with AUTH_JWKS."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._keys: dict[str, EllipticCurvePrivateKey] = {}
        self.add_key("first")

    def add_key(self, key_id: str) -> None:
        self._keys[key_id] = generate_private_key(SECP256R1())
        self._publish()

    def withdraw_key(self, key_id: str) -> None:
        del self._keys[key_id]
        self._publish()

    def _publish(self) -> None:
        keys = [
            jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": key_id, "use": "sig"}
            for key_id, key in self._keys.items()
        ]
        self.file.write_text(json.dumps({"keys": keys}))

    def token(
        self,
        *roles: str,
        subject: str = "alice",
        customer_id: str | None = None,
        key_id: str = "first",
        valid_seconds: float = 300,
        key: EllipticCurvePrivateKey | None = None,
        **claims: Any,
    ) -> str:
        """A claim that is None is left out."""
        content = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "exp": int(time.time() + valid_seconds),
            "roles": list(roles),
            "customer_id": customer_id,
            **claims,
        }
        content = {name: value for name, value in content.items() if value is not None}
        return jwt.encode(content, key or self._keys[key_id], "ES256", {"kid": key_id})


def authorization(token: str) -> bytes:
    """The value of the header, as a server reads it."""
    return f"Bearer {token}".encode()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
