"""How many examples of a property are tried."""

from __future__ import annotations

import hypothesis


def examples(count: int) -> int:
    """So many in `make test-thorough`, 40 % of them in `make test`, a tenth in `make test-fast`."""
    return max(1, count * hypothesis.settings().max_examples // 100)
