"""The OpenAPI documents of both services, as the code makes them.

`python -m tests.openapi` writes them to docs/openapi/.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from command_service.app import create_app as create_command_app
from query_service.app import create_app as create_query_app
from shared.settings import Settings

DIRECTORY = Path(__file__).parents[1] / "docs" / "openapi"
NOWHERE = Settings.model_validate({"database_url": "postgresql://nowhere", "redis_url": "redis://nowhere"})
APPS: dict[str, Callable[[Settings], FastAPI]] = {"command": create_command_app, "query": create_query_app}


@cache
def document_of(service: str) -> dict[str, Any]:
    document: dict[str, Any] = APPS[service](NOWHERE).openapi()
    return document


def path_of(service: str) -> Path:
    return DIRECTORY / f"{service}.json"


def text_of(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name in APPS:
        path_of(name).write_text(text_of(document_of(name)), "utf-8")
