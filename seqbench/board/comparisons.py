"""Every row of a column against every other: paired on shared examples, unpaired in seeds."""
# C rows of a column that have a score, G blocks of examples, P pairs of rows, each once

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqbench.board import critical
from seqbench.board.statistics import Floats, Sample, freedom_by, unrounded


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Differences between rows: [a, b] is the mean of a less that of b. NaN where nothing is known of the error."""

    difference_CC: Floats
    low_CC: Floats
    high_CC: Floats
    p_CC: Floats  # of no difference, two-sided, not corrected; above 1 - confidence where the interval holds 0
    examples_CC: Floats  # the part of the variance that comes from examples; 0 where not known

    def upper(self) -> Floats:
        """p of each pair once, (C (C - 1) / 2,)."""
        return self.p_CC[np.triu_indices(len(self.p_CC), 1)]


def compare(samples: Sequence[Sample], *, confidence: float) -> Pairs:
    """All pairs of rows.

    A row of one seed is taken to vary by seed as the other does; where both have one, examples alone speak: of these
    two trained models, not of their encoders. A row without statistics per example is compared by seeds alone.
    """
    mean_C = unrounded(np.array([sample.mean for sample in samples]))
    seeds_C = np.array([sample.seeds for sample in samples])
    of_seeds_C = np.array([sample.of_seeds for sample in samples])
    x_C, unknown_C = np.nan_to_num(of_seeds_C), np.isnan(of_seeds_C)
    k_CC, freedom_CC, paired_CC = _examples(samples)
    count = len(samples)
    a_P, b_P = np.triu_indices(count)  # but for the sign of the difference all is the same for b and a
    k, freedom, paired = k_CC[a_P, b_P], freedom_CC[a_P, b_P], paired_CC[a_P, b_P]
    x1, x2, df1, df2 = x_C[a_P], x_C[b_P], seeds_C[a_P] - 1.0, seeds_C[b_P] - 1.0
    lacks1, lacks2 = unknown_C[a_P], unknown_C[b_P]
    x1, x2 = (
        # variance of one seed is S times that of the mean
        np.where(lacks2 & ~lacks1, x1 * (1 + (df1 + 1) / (df2 + 1)), x1),
        np.where(lacks1 & ~lacks2, x2 * (1 + (df2 + 1) / (df1 + 1)), x2),
    )
    df1, df2 = np.where(lacks1, 0.0, df1), np.where(lacks2, 0.0, df2)
    x1, x2 = np.where(lacks1, 0.0, x1), np.where(lacks2, 0.0, x2)
    x = x1 + x2
    difference_CC = mean_C[:, None] - mean_C[None, :]
    difference = difference_CC[a_P, b_P]
    unknown = ~paired & ((lacks1 & lacks2) | (x <= 0))
    half = critical.quantile(confidence, k, x, critical.of_two(confidence, x1, df1, x2, df2), freedom) * np.sqrt(k + x)
    p = critical.p_values(difference, k, x, critical.welch(x1, df1, x2, df2), freedom)
    p = np.where(np.abs(difference) > half, p, np.maximum(p, np.nextafter(level_of(confidence), 1.0)))
    p = np.where(difference == 0, 1.0, p)
    half_CC, p_CC = np.empty((count, count)), np.empty((count, count))
    for whole_CC, each in ((half_CC, half), (p_CC, p)):
        whole_CC[a_P, b_P] = whole_CC[b_P, a_P] = np.where(unknown, np.nan, each)
    return Pairs(
        difference_CC=difference_CC,
        low_CC=difference_CC - half_CC,
        high_CC=difference_CC + half_CC,
        p_CC=p_CC,
        examples_CC=k_CC,
    )


def level_of(confidence: float) -> float:
    """0.05 for 0.95, and not 0.050000000000000044."""
    return round(1 - confidence, 12)


def _examples(samples: Sequence[Sample]) -> tuple[Floats, Floats, np.ndarray]:
    """Of each pair the variance by examples, its degrees of freedom, and whether both have statistics per example."""
    count = len(samples)
    known = np.array([sample.examples_G is not None for sample in samples], dtype=bool)
    alone = np.nan_to_num(np.array([sample.of_examples for sample in samples]))
    k_CC = np.where(known[:, None] & known[None, :], alone[:, None] + alone[None, :], 0.0)  # other examples: unpaired
    freedom_CC = np.full((count, count), 1e9)
    groups: dict[tuple[str, int], list[int]] = {}
    for c, sample in enumerate(samples):
        if sample.examples_G is not None:
            groups.setdefault((sample.group, len(sample.examples_G)), []).append(c)
    for (_, size), members in groups.items():
        x_CG = np.stack([x for c in members if (x := samples[c].examples_G) is not None])
        scale = float(np.abs(x_CG).max()) or 1.0
        x_CG = x_CG / scale  # so that fourth powers neither vanish nor overflow
        squares, cubes = x_CG**2, x_CG**3
        cross = x_CG @ x_CG.T / size
        second = np.add.outer(np.diag(cross), np.diag(cross)) - 2 * cross
        fourths = (squares**2).mean(axis=1)
        mixed = cubes @ x_CG.T / size
        fourth = np.add.outer(fourths, fourths) - 4 * (mixed + mixed.T) + 6 * (squares @ squares.T) / size
        at = np.ix_(members, members)
        noise = np.array([samples[c].noise for c in members])
        variance = np.maximum(second, 0.0) * scale**2 / (size - 1)
        k_CC[at] = np.maximum(variance - np.add.outer(noise, noise), 0.0)
        freedom_CC[at] = freedom_by(size, np.maximum(second, 1e-30), np.maximum(fourth, 1e-60))
    return k_CC, freedom_CC, known[:, None] & known[None, :]


def places(pairs: Pairs, adjusted_CC: Floats, *, best: str, level: float) -> list[tuple[int, int]]:
    """First and last place that each row may truly have: rows told to be better stand before, worse ones behind.

    With p-values corrected over all pairs the places of all rows hold at once (Mogstad, Romano, Shaikh and Wilhelm
    2024, Inference for ranks).
    """
    told = adjusted_CC <= level
    sign = 1.0 if best == "max" else -1.0
    ahead = sign * pairs.difference_CC
    count = len(ahead)
    better, worse = (told & (ahead < 0)).sum(axis=1), (told & (ahead > 0)).sum(axis=1)
    return [(1 + int(b), count - int(w)) for b, w in zip(better, worse, strict=True)]
