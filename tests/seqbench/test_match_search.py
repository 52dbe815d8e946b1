"""The search of a width, against trying all."""

from __future__ import annotations

import numpy as np
import pytest

from seqbench.matching.search import search


# -- the search ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(30))
def test_the_width_is_the_nearest_of_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    step, power, scale = int(random.integers(1, 9)), random.uniform(0.5, 2.2), random.uniform(0.1, 50)
    target = scale * random.uniform(1, 400) ** power

    def measure(width: int, factor: float) -> float | None:
        return None if width % step else scale * width**power

    start = step * int(random.integers(1, 60))
    found = search(measure, start=start, target=target, tolerance=0.02, step=None)
    best = min(range(step, 1000 * step, step), key=lambda width: abs(scale * width**power - target))
    assert found is not None
    assert found.width == best
    assert found.reached == pytest.approx(scale * best**power)


def test_what_goes_along_fills_up_and_stays_near_its_proportion() -> None:
    def measure(width: int, factor: float) -> float | None:
        return None if width % 8 else width * (4.0 * width + 2 * round(4 * width * factor))

    found = search(measure, start=128, target=333_333, tolerance=0.02, step=1 / 512)
    assert found is not None
    assert abs(found.leftover(333_333)) < 0.002
    assert found.width == 168  # 12 w^2 = 333333 at w = 166.7
    assert 0.9 < found.factor < 1.1


@pytest.mark.parametrize("target", [38_888, 39_999, 46_665, 66_663])
def test_of_two_fillings_one_that_does_not_come_near_is_not_taken_for_its_proportion(target: int) -> None:
    """Of the widths around the target the one nearer to its proportion would miss by more than the other."""

    def measure(width: int, factor: float) -> float | None:
        return None if width % 8 else width * (4.0 * width + 16 * round(width * factor / 2))

    found = search(measure, start=128, target=target, tolerance=0.02, step=1 / 64)
    assert found is not None
    assert abs(found.leftover(target)) < 0.002


def test_nothing_that_can_be_built_is_nothing_found() -> None:
    assert search(lambda w, f: None, start=8, target=10, tolerance=0.02, step=None) is None
