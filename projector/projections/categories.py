"""The tree of the catalogue's categories: one document, folded whole on each change. It has at most 1,000."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from projector.projection import Entry, Projection, RecordedEvent
from shared.catalogue import CATALOGUE, CATEGORY, Category

TREE = "tree"  # id of the document


class CategoryNode(msgspec.Struct, frozen=True):
    name: str
    path: str
    children: tuple[CategoryNode, ...]


class CategoryTree(msgspec.Struct, frozen=True):
    categories: tuple[CategoryNode, ...]  # by name
    version: int  # number of categories


_decode = msgspec.json.Decoder(Category).decode


def route(event: RecordedEvent[Any]) -> tuple[str, ...]:
    """The tree."""
    return (TREE,) if event.category == CATEGORY else ()


def apply(_document_id: str, document: CategoryTree | None, recorded: RecordedEvent[Any]) -> CategoryTree:
    """The tree with the category, below the one that its path names."""
    known = set() if document is None else {*_paths(document.categories)}
    paths = known | {_decode(recorded.data).path}
    return CategoryTree(_nodes("", sorted(paths)), len(paths))


def _paths(nodes: Iterable[CategoryNode]) -> Iterator[str]:
    for node in nodes:
        yield node.path
        yield from _paths(node.children)


def _nodes(above: str, paths: list[str]) -> tuple[CategoryNode, ...]:
    """Those directly below a path that ends with a slash, or is empty."""
    names = [path for path in paths if "/" not in path[len(above) :]]
    return tuple(
        CategoryNode(path[len(above) :], path, _nodes(f"{path}/", [one for one in paths if one.startswith(f"{path}/")]))
        for path in names
    )


def entries(_document: CategoryTree) -> frozenset[Entry]:
    """No index lists the tree."""
    return frozenset()


CATEGORIES = Projection("categories", CategoryTree, route, apply, entries, feed=CATALOGUE)
