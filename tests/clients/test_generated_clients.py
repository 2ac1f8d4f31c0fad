"""Clients that are generated from the OpenAPI documents compile, and place and read an order."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.settings import Settings
from tests.clients.programs import PYTHON, TYPESCRIPT, TYPESCRIPT_SETTINGS
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer
from tests.openapi import path_of
from tests.running import running_stack

pytestmark = [pytest.mark.subprocess, pytest.mark.timeout(120)]

# `make openapi` installs them, in an environment of their own.
TOOLS = Path(sys.prefix) / "openapi"
NODE_MODULES, PYTHON_OF_TOOLS = TOOLS / "node_modules", TOOLS / "bin" / "python"
HAS_NPM_PACKAGES = (TOOLS / ".npm-installed").exists()
DOCUMENTS = {"orders_commands": path_of("command"), "orders_queries": path_of("query")}
ANSWERED = "900 PENDING order-not-found"


@pytest.fixture
async def arguments(settings: Settings, tmp_path: Path) -> AsyncIterator[list[str]]:
    """Of a program that calls a running stack: its addresses, and a token of a service."""
    issuer = Issuer(tmp_path / "keys.json")
    named = {"auth_issuer": ISSUER, "auth_audience": AUDIENCE, "auth_jwks": str(issuer.file)}
    identifying = settings.model_copy(update={"auth": "jwt", **named})
    async with running_stack(identifying):
        ports = identifying.command_port, identifying.query_port
        yield [*(f"http://127.0.0.1:{port}" for port in ports), issuer.token("service")]


async def run(*command: Path | str, cwd: Path) -> str:
    """What it prints. Asserts that it succeeds."""
    done = await asyncio.to_thread(subprocess.run, command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.promise("commands", "Clients generated from the OpenAPI documents compile, and place and read an order")
@pytest.mark.skipif(not PYTHON_OF_TOOLS.exists(), reason="no openapi-python-client: `make openapi` installs it")
async def test_a_generated_python_client_places_and_reads_an_order(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    for package, document in DOCUMENTS.items():
        options = ["--meta", "none", "--config", "config.yml", "--fail-on-warning", "--output-path", package]
        tool = TOOLS / "bin" / "openapi-python-client"
        await run(tool, "generate", "--path", document, *options, cwd=tmp_path)
    await run(PYTHON_OF_TOOLS, "-W", "error", "-m", "compileall", "-q", *DOCUMENTS, cwd=tmp_path)
    (tmp_path / "shop.py").write_text(PYTHON)
    assert await run(PYTHON_OF_TOOLS, "shop.py", *arguments, cwd=tmp_path) == ANSWERED


@pytest.mark.promise("commands", "Clients generated from the OpenAPI documents compile, and place and read an order")
@pytest.mark.skipif(not HAS_NPM_PACKAGES, reason="no npm packages: `make openapi` installs them where npm is")
async def test_a_generated_typescript_client_places_and_reads_an_order(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for service in ("command", "query"):
        tool = NODE_MODULES / ".bin" / "openapi-typescript"
        await run(tool, path_of(service), "--default-non-nullable=false", "--output", f"{service}.d.ts", cwd=tmp_path)
    (tmp_path / "shop.ts").write_text(TYPESCRIPT)
    (tmp_path / "tsconfig.json").write_text(TYPESCRIPT_SETTINGS)
    await run(NODE_MODULES / ".bin" / "tsc", cwd=tmp_path)
    assert await run("node", "shop.js", *arguments, cwd=tmp_path) == ANSWERED
