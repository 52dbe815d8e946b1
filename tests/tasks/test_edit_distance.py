"""Word and symbol error rates against known distances and an independent recursion."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tasks.metrics.edit_distance import SymbolErrorRate, WordErrorRate, edits


@pytest.mark.parametrize(
    "a, b, n", [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2), ("a", "a", 0)]
)
def test_known_distances(a: str, b: str, n: int) -> None:
    assert edits(a, b) == n


def test_as_the_recursive_definition() -> None:
    @cache
    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    rng = np.random.default_rng(0)
    for _ in range(100):
        a, b = ("".join(rng.choice(list("abc"), size=rng.integers(0, 7))) for _ in range(2))
        assert edits(a, b) == slow(a, b)


def test_rates() -> None:
    predictions, references = [["a", "b"], "x y z", []], [["a", "c"], "x  y z", ["q"]]
    assert WordErrorRate().score(predictions, references) == pytest.approx(2 / 3)
    assert SymbolErrorRate().score(predictions, references) == pytest.approx((1 + 0 + 1) / 6)
    statistics = SymbolErrorRate().statistics(predictions, references)
    assert statistics["edits"].tolist() == [1, 0, 1]
    assert statistics["symbols"].tolist() == [2, 3, 1]
