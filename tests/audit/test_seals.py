"""Seals: how they are made, and the messages about bad ones."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.auditing.finding import Kind
from tests.audit.evidence import Log, audit, verify_log
from tests.audit.tampering import HEAD_FOLLOWS, rehash


def seal(log: Log, *options: object, **environment: str) -> tuple[int, str]:
    answer = audit("seal", "--seals", log.seals, "--database-url", log.url, *options, **environment)
    return answer.exit_code, answer.output


def test_a_seal_is_one_line_that_names_the_head(untouched: Log) -> None:
    lines = untouched.seals.read_text().splitlines()
    assert [json.loads(line)["position"] for line in lines] == [30, 60]
    assert list(json.loads(lines[0])) == [
        "log_id", "position", "hash", "recorded_at", "sealed_at", "key_id", "signature",
    ]  # fmt: skip


def test_keygen_writes_a_private_key_for_its_owner_only_and_overwrites_nothing(tmp_path: Path) -> None:
    options = ("keygen", "--key", tmp_path / "key", "--public-key", tmp_path / "public")
    assert audit(*options).exit_code == 0
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    before = (tmp_path / "key").read_bytes()
    assert audit(*options).exit_code == 2
    (tmp_path / "public").unlink()
    assert audit(*options).exit_code == 2
    assert (tmp_path / "key").read_bytes() == before


def test_the_key_may_come_from_the_environment_as_pem_or_as_its_middle_line(untouched: Log) -> None:
    pem = untouched.private_key.read_text()
    for value in (pem, pem.splitlines()[1]):
        assert seal(untouched, ORDERS_SEAL_KEY=value)[0] == 0
    assert audit("verify", "--database-url", untouched.url, *untouched.seal_options).exit_code == 0
    assert len(untouched.seals.read_bytes().splitlines()) == 4


@pytest.mark.parametrize(
    "tampering",
    [
        ["update events set data = '{}' where position = 44", rehash(44), HEAD_FOLLOWS],
        ["delete from events where position > 50", HEAD_FOLLOWS],
        ["update log_head set position = 61"],
    ],
    ids=["rewritten", "cut", "head moved"],
)
def test_what_contradicts_a_seal_or_itself_is_not_sealed(log: Log, tampering: list[str]) -> None:
    before = log.seals.read_bytes()
    log.execute(*tampering)
    code, output = seal(log, "--key", log.private_key)
    assert (code, output[:9]) == (1, "position ")
    assert log.seals.read_bytes() == before


def test_an_empty_log_is_not_sealed(log: Log) -> None:
    log.execute(
        "delete from events",
        "update log_head set position = 0, hash = sha256(uuid_send(log_id)), recorded_at = '-infinity'",
    )
    log.seals.unlink()
    code, output = seal(log, "--key", log.private_key)
    assert code == 2
    assert "the log is empty" in output
    assert log.seals.read_bytes() == b""


def test_sealing_wants_a_key(untouched: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORDERS_SEAL_KEY", raising=False)
    assert seal(untouched) == (2, "orders: no key to seal with: give --key FILE or set ORDERS_SEAL_KEY\n")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("-----BEGIN NONSENSE-----")
    for option in (nonsense, untouched.public_key, tmp_path / "absent"):
        code, output = seal(untouched, "--key", option)
        assert (code, output.startswith(f"orders: {option}")) == (2, True)
    assert seal(untouched, ORDERS_SEAL_KEY="c2VjcmV0")[0] == 2


def test_another_key_does_not_add_to_the_seals_of_the_first(untouched: Log, tmp_path: Path) -> None:
    audit("keygen", "--key", tmp_path / "other", "--public-key", tmp_path / "other.pub")
    code, output = seal(untouched, "--key", tmp_path / "other")
    assert code == 2
    assert f"{untouched.seals} line 1: made with the key " in output


def edited(**values: object) -> Callable[[bytes], bytes]:
    return lambda line: json.dumps({**json.loads(line), **values}).encode() + b"\n"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _: b"{nonsense}\n", id="not JSON"),
        pytest.param(lambda _: b"\n", id="an empty line"),
        pytest.param(lambda _: b"[]\n", id="not an object"),
        pytest.param(lambda line: line[:-20], id="cut short"),
        pytest.param(lambda line: line[:-1], id="no end of line"),
        pytest.param(lambda _: b"\xff\xfe\n", id="not UTF-8"),
        pytest.param(edited(position="60"), id="position is a text"),
        pytest.param(edited(position=0), id="position 0"),
        pytest.param(edited(position=59), id="another position"),
        pytest.param(edited(hash="0" * 64), id="another hash"),
        pytest.param(edited(sealed_at="2020-01-01T00:00:00.000000Z"), id="another time"),
        pytest.param(edited(signature="0" * 128), id="another signature"),
        pytest.param(edited(key_id="0" * 64), id="another key"),
        pytest.param(edited(note="x"), id="unknown field"),
    ],
)
def test_both_verifiers_name_the_line_of_a_seal_that_is_no_good(
    untouched: Log, sealed_csv: tuple[Path, Path], spoil: Callable[[bytes], bytes]
) -> None:
    first, second = untouched.seals.read_bytes().splitlines(keepends=True)
    untouched.seals.write_bytes(first + spoil(second))
    ours = audit("verify", "--database-url", untouched.url, *untouched.seal_options)
    events, head = sealed_csv
    theirs = verify_log(events, "--head", head, *untouched.seal_options)
    for answer in (ours, theirs):
        assert answer.exit_code == 2, answer.output
        assert f"{untouched.seals} line 2: " in answer.output


@pytest.mark.parametrize("key", ["other.pub", "nonsense", "absent", "rsa.pub"])
def test_both_verifiers_refuse_a_wrong_key(
    untouched: Log, sealed_csv: tuple[Path, Path], tmp_path: Path, key: str
) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    audit("keygen", "--key", tmp_path / "other", "--public-key", tmp_path / "other.pub")
    (tmp_path / "nonsense").write_text("no key")
    rsa_key = rsa.generate_private_key(65537, 2048).public_key()
    (tmp_path / "rsa.pub").write_bytes(rsa_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    options = ("--seals", untouched.seals, "--public-key", tmp_path / key)
    events, head = sealed_csv
    for answer in (
        audit("verify", "--database-url", untouched.url, *options),
        verify_log(events, "--head", head, *options),
    ):
        assert answer.exit_code == 2, answer.output
        assert "Traceback" not in answer.output


def test_both_verifiers_refuse_a_seal_file_that_proves_nothing(untouched: Log, sealed_csv: tuple[Path, Path]) -> None:
    events, head = sealed_csv
    untouched.seals.write_bytes(b"")
    for answer in (
        audit("verify", "--database-url", untouched.url, *untouched.seal_options),
        verify_log(events, "--head", head, *untouched.seal_options),
        audit("verify", "--database-url", untouched.url, "--seals", untouched.seals),
        verify_log(events, "--head", head, "--seals", untouched.seals),
    ):
        assert answer.exit_code == 2, answer.output


def test_the_seals_of_another_system_are_told_from_tampering(log: Log) -> None:
    log.execute("update log_head set log_id = gen_random_uuid()", rehash(1), HEAD_FOLLOWS)
    log.seals.unlink()
    assert seal(log, "--key", log.private_key)[0] == 0
    other = log.seals.read_bytes()
    log.execute("update log_head set log_id = gen_random_uuid()", rehash(1), HEAD_FOLLOWS)
    log.seals.write_bytes(other)
    answer = audit("verify", "--database-url", log.url, *log.seal_options)
    assert answer.finding == (1, Kind.FOREIGN)
    assert "the seal on line 1 is of " in answer.output
