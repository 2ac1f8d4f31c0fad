"""The database roles of the tests' servers."""

from __future__ import annotations

from typing import Literal, get_args
from urllib.parse import urlsplit

from pydantic import SecretStr

from shared.settings import Settings

Role = Literal["orders_migrator", "orders_command", "orders_projector", "orders_query", "orders_auditor"]
ROLES: tuple[Role, ...] = get_args(Role)
PASSWORDS: dict[str, str] = {role: f"test-password-of-{role}" for role in ROLES}


def url_of(database_url: str, role: Role) -> str:
    """The same database, as another role."""
    url = urlsplit(database_url)
    return url._replace(netloc=f"{role}:{PASSWORDS[role]}@{url.hostname}:{url.port}").geturl()


def settings_of(settings: Settings, role: Role) -> Settings:
    """The same settings for a process that connects as its own role."""
    url = url_of(settings.database_url.get_secret_value(), role)
    # A copy: to validate anew would read the environment and .env again, for every process of every test.
    return settings.model_copy(update={"database_url": SecretStr(url)})
