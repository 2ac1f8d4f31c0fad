"""The generic packages know aggregates and read models by their registries: they name no field, event, route or key."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.aggregates import AGGREGATES
from shared.aggregates.order import OrderDocument

ROOT = Path(__file__).parents[1]
GENERIC = [
    "shared/eventstore",
    "shared/http",
    "shared/privacy",
    "command_service",
    "projector",
    "query_service",
    "cli/auditing",
]
CONCRETE = [
    "command_service/domain",
    "command_service/api",
    "command_service/catalogue.py",
    "command_service/gateways/carrier.py",
    "command_service/gateways/payment.py",
    "command_service/gateways/sandbox",
    "command_service/processes/fulfilment",
    "command_service/reservation_expiry.py",
    "projector/projections",
    "query_service/read_models",
    "query_service/api",
]

# Fields whose names other aggregates and this program's own tables use as well.
COMMON = {"status", "version", "items", "returns", "currency", "metadata", "last_event_at"}
FIELDS = set(OrderDocument.__struct_fields__) - COMMON
EVENTS = {event.__name__ for aggregate in AGGREGATES.values() for event in aggregate.events}
PATHS = r"/(orders|customers|accounts|products)\b|\{orders\b|\b(order|account|stock)-"
NAMES = re.compile(rf"\b({'|'.join(sorted(FIELDS | EVENTS))})\b|{PATHS}")


def generic_files() -> Iterator[Path]:
    for name in GENERIC:
        path = ROOT / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.*")):
            concrete = any(file.is_relative_to(ROOT / one) for one in CONCRETE)
            if file.suffix in {".py", ".lua", ".sql"} and not concrete:
                yield file


def texts(file: Path) -> Iterator[str]:
    """The strings of a Python file that are not documentation; the whole text of another."""
    if file.suffix != ".py":
        yield file.read_text("utf-8")
        return
    tree = ast.parse(file.read_text("utf-8"))
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


@pytest.mark.parametrize("file", [*generic_files()], ids=lambda file: str(file.relative_to(ROOT)))
def test_a_generic_file_names_nothing_of_one_aggregate(file: Path) -> None:
    assert [text for text in texts(file) if NAMES.search(text)] == []
