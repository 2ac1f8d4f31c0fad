"""Tokens and keys: what is accepted, what is refused and why, and what happens when keys rotate."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from shared.identity import key_set, token_verifier
from shared.identity.caller import Caller, CustomerMissing, Role, RoleMissing
from shared.identity.key_set import KeySet, KeysUnavailable
from shared.identity.token_verifier import LAST_EXPIRY, TokenRefused, TokenVerifier
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer, authorization
from tests.running import eventually


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "keys.json")


@pytest.fixture
async def verifier(issuer: Issuer) -> AsyncIterator[TokenVerifier]:
    verifier = TokenVerifier(KeySet(str(issuer.file)), issuer=ISSUER, audience=AUDIENCE)
    yield verifier
    await verifier.close()


async def test_a_token_names_its_caller(issuer: Issuer, verifier: TokenVerifier) -> None:
    token = issuer.token("customer", "a-role-of-another-program", subject="bob", customer_id="17850")
    for _ in range(2):  # verified, then from the cache
        caller = await verifier.verify(authorization(token))
        assert caller == Caller("bob", frozenset({Role.CUSTOMER}), "17850", caller.expires_at)
        assert caller.expires_at == pytest.approx(time() + 300 + 30, abs=2)


REFUSED: dict[str, Callable[[Issuer], str]] = {
    "its key is not known": lambda issuer: issuer.token(key=generate_private_key(SECP256R1()), key_id="another"),
    "its signature is wrong": lambda issuer: issuer.token(key=generate_private_key(SECP256R1())),
    "it has expired": lambda issuer: issuer.token(valid_seconds=-31),
    "it is not valid yet": lambda issuer: issuer.token(nbf=2_000_000_000),
    "it is for another audience": lambda issuer: issuer.token(aud="shipping"),
    "it is of another issuer": lambda issuer: issuer.token(iss="https://elsewhere.example"),
    "a claim is missing (exp, sub, iss and aud are required)": lambda issuer: issuer.token(exp=None),
    "the claim roles is not a list": lambda issuer: issuer.token(roles="staff"),
    "the claim customer_id is not a text of 1 to 200 printable characters": lambda issuer: issuer.token(
        customer_id="7" * 201
    ),
    "it cannot be read": lambda _: "not-a-token",
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_a_token_is_refused_with_its_reason(issuer: Issuer, verifier: TokenVerifier, reason: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        await verifier.verify(authorization(REFUSED[reason](issuer)))
    assert refused.value.reason == reason


@pytest.mark.parametrize("name", ["sub", "customer_id"])
@pytest.mark.parametrize("value", ["", "a\0b", "a\nb", "\ud800", "a\udfff"])
async def test_no_claim_names_a_caller_that_events_cannot_name(
    issuer: Issuer, verifier: TokenVerifier, name: str, value: str
) -> None:
    claims: dict[str, Any] = {name: value}
    with pytest.raises(TokenRefused, match=f"claim {name} "):
        await verifier.verify(authorization(issuer.token(**claims)))


@pytest.mark.parametrize("expiry", [LAST_EXPIRY + 1, int("9" * 400), "9" * 400])
async def test_a_token_expires_before_the_end_of_the_calendar(
    issuer: Issuer, verifier: TokenVerifier, expiry: object
) -> None:
    with pytest.raises(TokenRefused, match="year 9999"):
        await verifier.verify(authorization(issuer.token(exp=expiry)))
    assert (await verifier.verify(authorization(issuer.token(exp=LAST_EXPIRY)))).subject == "alice"


async def test_nobody_signs_with_what_is_public(issuer: Issuer, verifier: TokenVerifier) -> None:
    """`alg: none`, and an HMAC whose secret is the public key."""
    claims = jwt.decode(issuer.token("staff"), options={"verify_signature": False})
    unsigned = jwt.encode(claims, "", "none", {"kid": "first"})
    parts = [json.dumps({"alg": "HS256", "kid": "first"}).encode(), json.dumps(claims).encode()]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed, issuer.file.read_bytes())
    with_public_key = (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()
    for forged in (unsigned, with_public_key):
        with pytest.raises(TokenRefused) as refused:
            await verifier.verify(authorization(forged))
        assert refused.value.reason == "its algorithm is not that of its key"


async def test_a_new_key_is_found_and_a_withdrawn_one_is_forgotten(
    issuer: Issuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = issuer.token("staff")
    await verifier.verify(authorization(old))
    issuer.add_key("second")
    monkeypatch.setattr(key_set, "UNKNOWN_KEY_SECONDS", 0.0)
    assert (await verifier.verify(authorization(issuer.token("staff", key_id="second")))).roles == {Role.STAFF}
    issuer.withdraw_key("first")
    monkeypatch.setattr(key_set, "REFRESH_SECONDS", 0.0)

    async def is_refused() -> bool:
        try:
            await verifier.verify(authorization(old))
        except TokenRefused as refused:
            return refused.reason == "its key is not known"
        return False

    await eventually(is_refused)


async def test_unknown_keys_are_looked_for_seldom(
    issuer: Issuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    content_of = key_set._content_of

    async def counted(source: str) -> bytes:
        nonlocal reads
        reads += 1
        return await content_of(source)

    monkeypatch.setattr(key_set, "_content_of", counted)
    for number in range(50):
        with pytest.raises(TokenRefused):
            await verifier.verify(
                authorization(issuer.token(key=generate_private_key(SECP256R1()), key_id=f"unknown-{number}"))
            )
    assert reads == 1


async def test_without_keys_the_service_is_unavailable(issuer: Issuer, verifier: TokenVerifier) -> None:
    token = issuer.token("staff")
    issuer.file.unlink()
    with pytest.raises(KeysUnavailable):
        await verifier.verify(authorization(token))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"keys": 7}', b'{"keys": [7, {"kty": "oct", "k": "c2VjcmV0"}]}'])
async def test_what_is_no_set_of_public_keys_changes_nothing(
    issuer: Issuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    token = issuer.token("staff")
    await verifier.verify(authorization(token))
    issuer.file.write_bytes(content)
    monkeypatch.setattr(key_set, "UNKNOWN_KEY_SECONDS", 0.0)
    with pytest.raises(TokenRefused):
        await verifier.verify(authorization(issuer.token(key=generate_private_key(SECP256R1()), key_id="another")))
    assert (await verifier.verify(authorization(token))).roles == {Role.STAFF}


@pytest.mark.bound("all", "verified bearer tokens, with `AUTH=jwt`")
async def test_the_cache_of_tokens_is_bounded_in_bytes(
    issuer: Issuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_verifier, "CACHE_BYTES", 5_000)
    for number in range(20):
        await verifier.verify(authorization(issuer.token(subject=f"subject-{number}")))
    assert sum(len(value) + 500 for value in verifier._cache) == verifier._cached_bytes <= 5_000


def test_a_customer_reaches_what_is_theirs_and_every_other_role_everything() -> None:
    customer = Caller("bob", frozenset({Role.CUSTOMER}), "17850")
    assert customer.limited_to({Role.CUSTOMER, Role.STAFF}) == "17850"
    assert customer._replace(roles=frozenset({Role.CUSTOMER, Role.STAFF})).limited_to(set(Role)) is None
    with pytest.raises(RoleMissing) as missing:
        customer.limited_to({Role.STAFF, Role.AUDITOR})
    assert missing.value.allowed == ["auditor", "staff"]
    with pytest.raises(CustomerMissing):
        customer._replace(customer_id=None).limited_to(set(Role))
