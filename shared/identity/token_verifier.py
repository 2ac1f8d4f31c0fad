"""From a bearer token (a JSON Web Token, RFC 7519) to the caller that it names."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from time import time
from typing import Any, NamedTuple

import jwt

from shared.errors import Unauthenticated
from shared.identity.caller import Caller, Role
from shared.identity.key_set import KeySet

CLOCK_TOLERANCE_SECONDS = 30
MAX_NAME = 200  # characters of a subject or a customer id
LAST_EXPIRY = 253_402_300_799  # the end of the year 9999, as Unix time; JSON knows integers that no float holds
CACHE_BYTES = 4 * 2**20  # of tokens that were verified; a signature costs up to 0.2 ms
_ENTRY_BYTES = 500  # of a cache entry without its key

_SCHEME = b"bearer "
_ROLES = {role.value: role for role in Role}
# Without control characters and lone surrogates, which JSON can spell and the database cannot store.
_NAME = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{MAX_NAME}}}")


@dataclass
class TokenRefused(Unauthenticated):
    """`reason` says what is wrong with the token, so that its issuer can be mended; never what would be right."""

    reason: str
    code = "token-refused"
    title = "The bearer token is not accepted"

    @property
    def detail(self) -> str:
        return f"The bearer token is not accepted: {self.reason}."


class _Verified(NamedTuple):
    caller: Caller
    generation: int  # of the keys


def is_bearer(authorization: bytes) -> bool:
    """Whether this value of the header has a bearer token."""
    return len(authorization) > len(_SCHEME) and authorization[: len(_SCHEME)].lower() == _SCHEME


class TokenVerifier:
    def __init__(self, keys: KeySet, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._cache: OrderedDict[bytes, _Verified] = OrderedDict()
        self._cached_bytes = 0

    def known(self, authorization: bytes) -> Caller | None:
        """The caller, if this value of the header was verified before and its token counts still."""
        if (known := self._cache.get(authorization)) is not None:
            if known.caller.expires_at > time() and known.generation == self._keys.generation():
                return known.caller
            self._evict(authorization)
        return None

    async def verify(self, authorization: bytes) -> Caller:
        """The caller whom a value of the header names that `is_bearer`. Raises `TokenRefused` and `KeysUnavailable`."""
        if (known := self.known(authorization)) is not None:
            return known
        caller = await self._verify(authorization[len(_SCHEME) :].strip().decode("latin-1"))
        self._store(authorization, _Verified(caller, self._keys.generation()))
        return caller

    async def close(self) -> None:
        await self._keys.close()

    async def _verify(self, token: str) -> Caller:
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = await self._keys.find(key_id if isinstance(key_id, str) else None)
            if key is None:
                raise TokenRefused("its key is not known")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # what the key is for, whatever the token says
                audience=self._audience,
                issuer=self._issuer,
                leeway=CLOCK_TOLERANCE_SECONDS,
                options={"require": ["exp", "sub", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise TokenRefused(_reason(error)) from error
        return _caller_of(claims)

    def _store(self, authorization: bytes, verified: _Verified) -> None:
        self._evict(authorization)  # two requests may have verified it at the same time
        self._cache[authorization] = verified
        self._cached_bytes += len(authorization) + _ENTRY_BYTES
        while self._cached_bytes > CACHE_BYTES:
            self._evict(next(iter(self._cache)))

    def _evict(self, authorization: bytes) -> None:
        if self._cache.pop(authorization, None) is not None:
            self._cached_bytes -= len(authorization) + _ENTRY_BYTES


_REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "it is not valid yet"),
    (jwt.InvalidAudienceError, "it is for another audience"),
    (jwt.InvalidIssuerError, "it is of another issuer"),
    (jwt.MissingRequiredClaimError, "a claim is missing (exp, sub, iss and aud are required)"),
    (jwt.InvalidAlgorithmError, "its algorithm is not that of its key"),
    (jwt.InvalidSignatureError, "its signature is wrong"),
)


def _reason(error: jwt.PyJWTError) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "it cannot be read")


def _caller_of(claims: dict[str, Any]) -> Caller:
    """Roles that this program does not know count for nothing: an issuer serves other programs as well."""
    subject, roles, customer_id = claims["sub"], claims.get("roles", []), claims.get("customer_id")
    if not isinstance(roles, list):
        raise TokenRefused("the claim roles is not a list")
    for name, value in (("sub", subject), ("customer_id", customer_id)):
        if value is not None and not (isinstance(value, str) and _NAME.fullmatch(value)):
            raise TokenRefused(f"the claim {name} is not a text of 1 to {MAX_NAME} printable characters")
    expires_at = int(claims["exp"])
    if expires_at > LAST_EXPIRY:
        raise TokenRefused("the claim exp is after the year 9999")
    known = frozenset(_ROLES[role] for role in roles if isinstance(role, str) and role in _ROLES)
    return Caller(subject, known, customer_id, expires_at + CLOCK_TOLERANCE_SECONDS)
