"""docs/guarantees.md holds what the markers on the tests promise, and every test of a fault proves a promise."""

from __future__ import annotations

from tests.guarantees import PAGE, ROOT, SECTIONS, functions_in, marked, page, proofs, tables


def test_the_page_is_what_the_markers_give() -> None:
    assert PAGE.read_text() == page(tables(proofs())), "run `make guarantees`"


def test_every_section_has_promises() -> None:
    assert {proof.section for proof in proofs()} == SECTIONS.keys()


def test_a_promise_is_one_short_sentence() -> None:
    assert [proof.promise for proof in proofs() if len(proof.promise) > 110 or proof.promise.endswith(".")] == []


def test_every_test_of_a_fault_proves_a_promise() -> None:
    tests = [test for path in (ROOT / "tests" / "faults").glob("test_*.py") for test in functions_in(path)]
    assert [test.name for test in tests if not [*marked(test, "promise")]] == []
