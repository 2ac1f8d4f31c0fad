"""The key of `orders up --auth` and the tokens of `orders token`."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cli.stack.local_issuer import LocalIssuer, NoKey
from shared.identity.caller import Role
from shared.identity.key_set import KeySet
from shared.identity.token_verifier import TokenVerifier
from tests.identity.issuer import authorization


@pytest.fixture
def issuer(tmp_path: Path) -> LocalIssuer:
    issuer = LocalIssuer(tmp_path)
    issuer.create()
    return issuer


async def test_a_stack_accepts_the_tokens_of_its_key_also_after_a_restart(issuer: LocalIssuer) -> None:
    token = issuer.token("bob", ["customer"], "17850", 60)
    issuer.create()
    settings = issuer.environment
    verifier = TokenVerifier(
        KeySet(settings["AUTH_JWKS"]), issuer=settings["AUTH_ISSUER"], audience=settings["AUTH_AUDIENCE"]
    )
    assert (await verifier.verify(authorization(token)))[:3] == ("bob", frozenset({Role.CUSTOMER}), "17850")
    await verifier.close()


@pytest.mark.usefixtures("issuer")
def test_only_its_owner_reads_the_private_key(tmp_path: Path) -> None:
    directory = tmp_path / "identity"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "private.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in (directory / "keys.json").read_text()


def test_without_a_key_there_is_no_token(tmp_path: Path) -> None:
    with pytest.raises(NoKey):
        LocalIssuer(tmp_path).token("bob", ["staff"], None, 60)
