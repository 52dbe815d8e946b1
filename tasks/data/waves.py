"""Waves: a generated series, sines of some periods in each channel and noise; as long as is asked for."""
# R rows, C channels, P periods

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from tasks.data.base import SPLITS, DataSet, Example, FileFact


class Waves(DataSet):
    """One series: x_tc = sum_p a_cp sin(2 pi t / period_p + phase_cp) + `noise` times a normal number.

    Amplitudes are uniform in [0, 1], phases in [0, 2 pi], drawn from `seed`. The splits follow one another, each is one
    example: `source` all rows before it (R, C), `target` its own `train_rows`, `valid_rows` or `test_rows`, float64.
    What can be forecast is the waves: no forecast has a mean squared error below noise^2 (before standardising). For
    trials without data, and for costs at any length: windows may be long and splits short.
    """

    modality = "time series"

    def __init__(
        self,
        *,
        channels: Annotated[int, Field(gt=0)],
        periods: list[float],
        noise: Annotated[float, Field(ge=0)],
        train_rows: Annotated[int, Field(gt=0)],
        valid_rows: Annotated[int, Field(gt=0)],
        test_rows: Annotated[int, Field(gt=0)],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        if not periods or min(periods) <= 0:
            raise ValueError(f"periods: {periods}; give at least one, in rows, above 0")
        self.channels, self.periods, self.noise, self.seed = channels, periods, noise, seed
        self.rows = (train_rows, valid_rows, test_rows)

    def identity(self) -> list[FileFact]:
        """Nothing but the arguments."""
        return []

    def check(self) -> None:
        """Nothing can be missing."""

    def read(self, split: str) -> Sequence[Example]:
        """The split's rows and all rows before it."""
        generator = np.random.default_rng(self.seed)
        amplitude_CP = generator.uniform(size=(self.channels, len(self.periods)))
        phase_CP = generator.uniform(0, 2 * np.pi, size=amplitude_CP.shape)
        time_R = np.arange(sum(self.rows))
        angle_RP = 2 * np.pi * time_R[:, None] / np.array(self.periods)
        values_RC = (amplitude_CP * np.sin(angle_RP[:, None] + phase_CP)).sum(axis=2)
        values_RC += self.noise * generator.standard_normal(values_RC.shape)
        number = SPLITS.index(split)
        start, end = sum(self.rows[:number]), sum(self.rows[: number + 1])
        return [Example(source=values_RC[:start], target=values_RC[start:end])]
