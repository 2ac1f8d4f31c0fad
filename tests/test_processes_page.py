"""The picture in docs/processes.md is what the code does."""

from __future__ import annotations

from tests.process_states import PAGE, page_with, text


def test_the_picture_of_the_states_is_current() -> None:
    drawn = page_with(text())
    assert PAGE.read_text("utf-8") == drawn, "docs/processes.md has drifted: run `python -m tests.process_states`"
