"""The settings of a process that a command starts."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from cli.failure import BadArgument
from shared.settings import Settings


def load_settings(**given: Any) -> Settings:
    """The settings of the environment, with those `given` instead of its own. Raises BadArgument, naming variables."""
    try:
        return Settings(**given)
    except ValidationError as error:
        raise BadArgument("; ".join(_explain(error))) from error


def _explain(error: ValidationError) -> list[str]:
    problems = []
    for problem in error.errors():
        variable = "_".join(map(str, problem["loc"])).upper()
        problems.append(f"{variable} is not set" if problem["type"] == "missing" else f"{variable}: {problem['msg']}")
    return problems
