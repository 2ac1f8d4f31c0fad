"""In which order sides are measured."""

from __future__ import annotations

from bench.interleave import interleave


def test_every_other_round_goes_the_other_way_round() -> None:
    order: list[str] = []

    def side(name: str) -> str:
        order.append(name)
        return f"{name}{order.count(name)}"

    assert interleave(3, lambda: side("a"), lambda: side("b")) == [["a1", "a2", "a3"], ["b1", "b2", "b3"]]
    assert order == ["a", "b", "b", "a", "a", "b"]
