"""Dice and Hausdorff: by sets and distances of all pairs of pixels, and where a class is missing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tasks.metrics.base import Metric
from tasks.metrics.modules import as_evaluate
from tasks.metrics.overlap import Dice, Hausdorff95


def slow_edge(region: np.ndarray) -> list[tuple[int, int]]:
    height, width = region.shape
    inside = {(i, j) for i, j in np.ndindex(height, width) if region[i, j]}
    return [(i, j) for i, j in inside if not {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)} <= inside]


def slow_distance(a: np.ndarray, b: np.ndarray) -> float:
    one, other = slow_edge(a), slow_edge(b)
    there = [min(math.dist(p, q) for q in other) for p in one]
    back = [min(math.dist(p, q) for q in one) for p in other]
    return float(np.percentile(there + back, 95))


def blobs(seed: int, classes: int) -> np.ndarray:
    """Rectangles of each class on a background of 0."""
    generator, image = np.random.default_rng(seed), np.zeros((13, 17), dtype=np.uint8)
    for number in range(1, classes):
        for _ in range(2):
            i, j = generator.integers(10), generator.integers(14)
            image[i : i + generator.integers(2, 6), j : j + generator.integers(2, 6)] = number
    return image


@pytest.mark.parametrize("classes", [2, 4])
def test_both_are_those_of_all_pixels(classes: int) -> None:
    images = [blobs(seed, classes) for seed in range(12)]
    p, r = images[:6], images[6:]
    assert all((image == k).any() for image in images for k in range(1, classes))
    pairs = list(itertools.product(zip(p, r, strict=True), range(1, classes)))
    overlaps = [
        2 * len({*np.flatnonzero(a == k)} & {*np.flatnonzero(b == k)}) / ((a == k).sum() + (b == k).sum())
        for (a, b), k in pairs
    ]
    assert Dice().score(p, r) == pytest.approx(np.mean(overlaps))
    distances = [slow_distance(a == k, b == k) for (a, b), k in pairs]
    assert Hausdorff95().score(p, r) == pytest.approx(np.mean(distances))
    assert Hausdorff95().score(p, r) == pytest.approx(Hausdorff95().score(r, p))


@pytest.mark.slow
@pytest.mark.parametrize("metric", [Dice(), Hausdorff95()])
def test_as_modules_of_evaluate(metric: Metric) -> None:
    p, r = [blobs(seed, 3) for seed in range(4)], [blobs(seed, 3) for seed in range(4, 8)]
    assert as_evaluate(metric).compute(predictions=p, references=r) == {metric.name: pytest.approx(metric.score(p, r))}


def test_the_whole_image_has_the_edge_of_the_image() -> None:
    """A square of 3 within 9 x 9: from the edge of the image to it, and back; by hand."""
    whole, square = np.ones((9, 9), dtype=np.uint8), np.zeros((9, 9), dtype=np.uint8)
    square[3:6, 3:6] = 1
    out = [math.hypot(max(3 - i, i - 5, 0), max(3 - j, j - 5, 0)) for i, j in slow_edge(whole)]
    assert len(out) == 32
    assert Hausdorff95().score([whole], [square]) == pytest.approx(np.percentile(out + [3.0] * 8, 95))


def test_a_class_that_is_missing() -> None:
    """Three images of classes 1 and 2; 2 is in the first reference alone."""
    a, b = np.zeros((3, 4), dtype=np.uint8), np.zeros((3, 4), dtype=np.uint8)
    a[0, 0], a[2, 3], b[0, 0] = 1, 2, 1
    references = [a, b, b]
    right, absent, false = Dice().statistics([a, b, a], references)["value"]
    assert (right, absent, false) == (1.0, 1.0, 0.5)  # 2 in neither: 1; in the prediction alone: 0
    assert Dice().statistics([b], [a])["value"].tolist() == [0.5]
    assert Hausdorff95().statistics([a, b, a], references)["value"].tolist() == [0.0, 0.0, 5 / 2]
    assert Dice().statistics([np.zeros_like(b), b], [np.zeros_like(b)] * 2)["value"].tolist() == [1.0, 0.0]


def test_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"row 1 predicts \(2, 3\), its reference is \(3, 2\)"):
        Dice().score([np.ones((3, 2)), np.ones((2, 3))], [np.ones((3, 2))] * 2)
    with pytest.raises(ValueError, match="2 predictions for 1"):
        Hausdorff95().score([np.ones((3, 2))] * 2, [np.ones((3, 2))])
