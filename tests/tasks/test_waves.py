"""Waves: the formula, splits that follow one another, noise of the asked size."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tasks.data.waves import Waves


def waves(**changes: Any) -> Waves:
    arguments = {"channels": 3, "periods": [24.0, 50.0], "noise": 0.0, "seed": 1}
    return Waves(**{**arguments, "train_rows": 600, "valid_rows": 80, "test_rows": 70, **changes})


def test_without_noise_a_channel_is_a_sum_of_its_waves() -> None:
    (example,) = waves().read("test")
    series = np.concatenate([example.source, example.target])
    t = np.arange(len(series))
    columns = [f(2 * math.pi * t / period) for period in (24.0, 50.0) for f in (np.sin, np.cos)]
    fit, left, _, _ = np.linalg.lstsq(np.stack(columns, 1), series, rcond=None)
    assert series.shape == (750, 3)
    assert left.max() < 1e-20
    amplitudes = np.hypot(fit[::2], fit[1::2])
    assert 0 < amplitudes.min() < amplitudes.max() < 1
    assert len(np.unique(np.round(amplitudes, 6))) == 6, "each channel has its own"


def test_splits_follow_one_another() -> None:
    data = waves(noise=0.5)
    examples = [data.read(split)[0] for split in ("train", "valid", "test")]
    assert [len(example.target) for example in examples] == [600, 80, 70]
    assert len(examples[0].source) == 0
    for before, after in itertools.pairwise(examples):
        np.testing.assert_array_equal(after.source, np.concatenate([before.source, before.target]))


def test_noise_and_seed() -> None:
    quiet, loud, again, other = (
        data.read("train")[0].target for data in (waves(), waves(noise=0.5), waves(noise=0.5), waves(seed=2))
    )
    assert (loud - quiet).std() == pytest.approx(0.5, rel=0.1)
    np.testing.assert_array_equal(loud, again)
    assert np.abs(quiet - other).max() > 0.1
    with pytest.raises(ValueError, match="periods"):
        waves(periods=[])
