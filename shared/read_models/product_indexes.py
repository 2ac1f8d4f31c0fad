"""The names of the indexes of the products read model.

A category holds no two slashes in a row, and a tag comes last, so the names cannot collide.
"""

from __future__ import annotations

ALL = "all"


def of(category: str | None, tag: str | None) -> str:
    """Of the products in this category or below it, with this tag; None: any."""
    parts = ([] if category is None else [f"category:{category}"]) + ([] if tag is None else [f"tag:{tag}"])
    return "//".join(parts) or ALL
