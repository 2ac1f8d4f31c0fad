"""Writes .env, which docker compose reads, from .env.example with random passwords. Keeps one that is there.

    python3 tools/make_env.py

Needs nothing but Python.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

ROOT = Path(__file__).parents[1]


def filled(example: str) -> str:
    """The example with a password, or a key, of its own wherever one is missing."""
    missing = re.compile(r"^(\w+_PASSWORD|SNAPSHOT_KEY|KEY_ENCRYPTION_KEY)=$", re.MULTILINE)
    return missing.sub(lambda match: f"{match[1]}={secrets.token_urlsafe(24)}", example)


def write_env(directory: Path = ROOT) -> str:
    """What was done, for the user."""
    file = directory / ".env"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return f"{file} is there already and stays as it is: its passwords belong to the data"
    with os.fdopen(descriptor, "w") as written:
        written.write(filled((directory / ".env.example").read_text()))
    return f"wrote {file} with new passwords"


if __name__ == "__main__":
    print(write_env())
