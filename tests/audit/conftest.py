from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from cli.stack.embedded_postgres import EmbeddedPostgres
from shared.migrations import migrate
from tests.audit.evidence import Log, append_orders, audit

_numbers = itertools.count(1)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _append(url: str, first: int, count: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        await append_orders(connection, first, count)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def sealed(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Log:
    """60 events of 20 orders; sealed at positions 30 and 60. To be copied, not changed."""
    directory = tmp_path_factory.mktemp("sealed")
    url = urlsplit(postgres.url)._replace(path="/sealed_log").geturl()
    log = Log(url, directory, directory / "seals.jsonl", directory / "seal.pub.pem", directory / "seal.pem")
    assert audit("keygen", "--key", log.private_key, "--public-key", log.public_key).exit_code == 0
    asyncio.run(_execute(postgres.url, "create database sealed_log"))
    asyncio.run(migrate(url))
    for first in (1, 11):
        asyncio.run(_append(url, first, 10))
        sealing = audit("seal", "--seals", log.seals, "--key", log.private_key, "--database-url", url)
        assert sealing.exit_code == 0, sealing.output
    return log


@pytest.fixture
def untouched(sealed: Log, tmp_path: Path) -> Log:
    """The sealed log itself, with seals of the test's own. For tests that change nothing in the database."""
    seals = tmp_path / "seals.jsonl"
    seals.write_bytes(sealed.seals.read_bytes())
    return replace(sealed, directory=tmp_path, seals=seals)


@pytest.fixture
def disposable(untouched: Log, postgres: EmbeddedPostgres) -> Iterator[Log]:
    """A copy in a database of its own, whose tables may be altered."""
    name = f"disposable_{next(_numbers)}"
    asyncio.run(_execute(postgres.url, f"create database {name} template sealed_log"))
    yield replace(untouched, url=urlsplit(postgres.url)._replace(path=f"/{name}").geturl())
    asyncio.run(_execute(postgres.url, f"drop database {name} with (force)"))


@pytest.fixture(scope="session")
def workbench(sealed: Log, postgres: EmbeddedPostgres) -> str:
    """URL of a copy whose rows can be put back, for that takes a hundredth of the time of another copy."""
    url = urlsplit(postgres.url)._replace(path="/workbench").geturl()
    assert url != sealed.url
    asyncio.run(_execute(postgres.url, "create database workbench template sealed_log"))
    asyncio.run(
        _execute(
            url,
            "alter table events disable trigger all; alter table log_ids disable trigger all; create schema pristine;"
            " create table pristine.events as table events; create table pristine.log_head as table log_head",
        )
    )
    return url


@pytest.fixture
def log(untouched: Log, workbench: str) -> Log:
    """A copy whose rows may be changed."""
    asyncio.run(
        _execute(
            workbench,
            "truncate events, log_head, log_ids; insert into events table pristine.events;"
            " insert into log_head table pristine.log_head",
        )
    )
    return replace(untouched, url=workbench)


@pytest.fixture(scope="session")
def sealed_csv(sealed: Log) -> tuple[Path, Path]:
    """The untouched log as `tools/verify_log.py` wants it."""
    return sealed.exported()
