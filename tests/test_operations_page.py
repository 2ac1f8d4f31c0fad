"""docs/operations.md lists every setting and every metric, with the words of the code."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase
from typer.testing import CliRunner

from cli.main import app
from shared import metrics
from shared.settings import RolePasswords, Settings
from tests.guarantees import functions_in, marked

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"


def settings_table() -> str:
    rows = ["| variable | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def metrics_table() -> str:
    rows = ["| metric | labels | |", "|---|---|---|"]
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (described,) = metric.describe()
            suffix = "_total" if described.type == "counter" else ""
            labels = ", ".join(metric._labelnames)
            rows.append(f"| `{described.name}{suffix}` ({described.type}) | {labels} | {described.documentation} |")
    return "\n".join(rows)


def test_the_page_lists_every_setting() -> None:
    assert settings_table() in PAGE.read_text(), f"docs/operations.md should hold:\n{settings_table()}"


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_command_on_the_page_is_there() -> None:
    named = set(re.findall(r"`orders ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", PAGE.read_text()))
    assert ("log", "new-id") in named
    for command in named:
        words = [word for word in command if word and command[0] != "run"] or ["run"]
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0, command


def test_the_page_names_every_password_of_a_role() -> None:
    assert [name for name in RolePasswords.model_fields if f"`{name.upper()}`" not in PAGE.read_text()] == []


def test_the_page_lists_every_metric() -> None:
    assert metrics_table() in PAGE.read_text(), f"docs/operations.md should hold:\n{metrics_table()}"


def bounds() -> set[tuple[str, str]]:
    """(process, what) of each row of the table of memory."""
    _, _, rest = PAGE.read_text().partition("| process | what | bound | MiB at most |\n|---|---|---|---|\n")
    rows = rest.partition("\n\n")[0].splitlines()
    return {(process, what) for process, what, *_ in (row.strip("| ").split(" | ") for row in rows)}


def test_a_test_fills_every_bound_of_memory() -> None:
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    filled = {bound for file in files for test in functions_in(file) for bound in marked(test, "bound")}
    assert bounds() - {("all", "the program")} == filled
