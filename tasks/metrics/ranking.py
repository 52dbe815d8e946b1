"""Scores of a ranking with one right answer: by the rank that it was given among all candidates."""
# N examples, A candidates

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.metrics.base import Mean, Statistics


def ranks_of(scores: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """Rank (1 = best), (N,), of candidate `true` (N,) by `scores` (N, A); equal scores share their mean rank.

    The "realistic" rank of Berrendorf et al. 2020, arXiv 2002.06914: neither the order of the candidates nor a model
    that gives all of them one score can gain by ties. Candidates scored -inf are left out; where the true one is, or
    has no score (NaN), its rank is A.
    """
    values_NA = np.asarray(scores)
    own_N1 = np.take_along_axis(values_NA, np.asarray(true, dtype=np.int64)[:, None], axis=1)
    better_N, equal_N = (values_NA > own_N1).sum(1), (values_NA == own_N1).sum(1)
    ranks_N = 1.0 + better_N + (equal_N - 1) / 2
    return np.where(np.isfinite(own_N1[:, 0]), ranks_N, float(values_NA.shape[1]))


class Ranking(Mean):
    """A mean of something of a rank. Predictions are mappings with `rank` (or what `of` says), a float of at least 1.

    What else a prediction says (`top`, the best candidates in order) is for its reader. References are not read: the
    rank is that of the right answer.
    """

    best = "max"
    k: ClassVar[int] = 0  # ranks that count; 0: all
    of: ClassVar[str] = "rank"  # which of a prediction's ranks

    def statistics(self, predictions: Sequence[Any], references: Sequence[Any]) -> Statistics:
        """`value` (N,): what the rank of each example is worth."""
        if len(predictions) != len(references):
            raise ValueError(f"{self.name}: {len(predictions)} predictions for {len(references)} references")
        ranks = np.array([prediction[self.of] for prediction in predictions], dtype=np.float64)
        if not (ranks >= 1).all():
            row = int(np.argmin(ranks >= 1))
            raise ValueError(f"{self.name}: row {row} has rank {ranks[row]}; ranks begin at 1")
        within = ranks <= self.k if self.k else np.ones(len(ranks), dtype=bool)
        return {"value": np.where(within, self.worth(ranks), 0.0)}

    def worth(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        """What ranks (N,) are worth within the first k: 1 for a hit."""
        return np.ones(len(ranks))


class HR10(Ranking):
    """Hit rate at 10, which with one right answer is recall at 10: share of examples with a rank of at most 10."""

    name, k = "hr@10", 10


class R1(Ranking):
    """Recall at 1: share of examples whose right answer is first, alone."""

    name, k = "r@1", 1


class NDCG10(Ranking):
    """Normalised discounted cumulative gain at 10; with one right answer 1 / log2(1 + rank) up to rank 10, else 0.

    Järvelin and Kekäläinen 2002; in this form Kang and McAuley 2018, arXiv 1808.09781, section IV-C.
    """

    name, k = "ndcg@10", 10

    def worth(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 / log2(1 + rank)."""
        return 1.0 / np.log2(1.0 + ranks)


class HR10Uniform(HR10):
    """Hit rate at 10 among negatives that were drawn evenly; no estimate of HR10 (Krichene and Rendle 2020)."""

    name, of = "hr@10_uniform", "rank_uniform"


class NDCG10Uniform(NDCG10):
    """NDCG at 10 among negatives that were drawn evenly."""

    name, of = "ndcg@10_uniform", "rank_uniform"


class HR10Popularity(HR10):
    """Hit rate at 10 among negatives that were drawn by their popularity (BERT4Rec, arXiv 1904.06690, section 4.1)."""

    name, of = "hr@10_popularity", "rank_popularity"


class NDCG10Popularity(NDCG10):
    """NDCG at 10 among negatives that were drawn by their popularity."""

    name, of = "ndcg@10_popularity", "rank_popularity"


class MRR(Ranking):
    """Mean reciprocal rank over all ranks, without a cut."""

    name = "mrr"

    def worth(self, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 / rank."""
        return 1.0 / ranks
