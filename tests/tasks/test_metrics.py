"""Errors, rankings, correlations against independent computations; all metrics as modules of `evaluate`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, ndcg_score, r2_score

from seqbench.composition.compose import CONFIGS
from seqbench.composition.nodes import compose_node
from tasks.metrics.accuracy import Accuracy, MacroF1, TokenAccuracy
from tasks.metrics.along import FirstWordAccuracy, LastWordAccuracy, WordAccuracy
from tasks.metrics.base import Metric
from tasks.metrics.correlation import Pearson, Spearman
from tasks.metrics.edit_distance import SymbolErrorRate, WordErrorRate
from tasks.metrics.entity_f1 import EntityF1
from tasks.metrics.errors import MAE, MSE, R2, RMSE
from tasks.metrics.exact_match import ExactMatch
from tasks.metrics.frames import FrameNLL
from tasks.metrics.likelihood import BitsPerCharacter, EndBitsPerCharacter, Perplexity
from tasks.metrics.modules import as_evaluate
from tasks.metrics.overlap import Dice, Hausdorff95
from tasks.metrics.ranking import (
    HR10,
    MRR,
    NDCG10,
    R1,
    HR10Popularity,
    HR10Uniform,
    NDCG10Popularity,
    NDCG10Uniform,
    ranks_of,
)
from tasks.metrics.translation import Bleu, Chrf

RNG = np.random.default_rng(5)


def rows(statistics: Any, keep: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[keep] for name, column in statistics.items()}


# -- errors ------------------------------------------------------------------------------------------------------
def test_errors_of_numbers_are_scikit_learns() -> None:
    p, r = RNG.normal(size=40), RNG.normal(size=40)
    assert MSE().score(p.tolist(), r.tolist()) == pytest.approx(mean_squared_error(r, p), rel=1e-12)
    assert MAE().score(p.tolist(), r.tolist()) == pytest.approx(mean_absolute_error(r, p), rel=1e-12)
    assert RMSE().score(p.tolist(), r.tolist()) == pytest.approx(mean_squared_error(r, p) ** 0.5, rel=1e-12)
    assert R2().score(p.tolist(), r.tolist()) == pytest.approx(r2_score(r, p), rel=1e-12)
    some = RNG.choice(40, 15)  # what a board resamples, without the model
    assert R2().aggregate(rows(R2().statistics(p, r), some)) == pytest.approx(r2_score(r[some], p[some]), rel=1e-12)
    assert math.isnan(R2().score([1.0, 2.0], [3.0, 3.0]))


def test_errors_of_windows_are_over_all_their_entries() -> None:
    p, r = RNG.normal(size=(9, 5, 3)).astype(np.float32), RNG.normal(size=(9, 5, 3)).astype(np.float32)
    squared = sum((float(p[n, h, c]) - float(r[n, h, c])) ** 2 for n in range(9) for h in range(5) for c in range(3))
    assert MSE().score(list(p), list(r)) == pytest.approx(squared / 135, rel=1e-12)
    assert MAE().score(list(p), list(r)) == pytest.approx(mean_absolute_error(r.ravel(), p.ravel()), rel=1e-6)


def test_errors_refuse_what_would_be_broadcast() -> None:
    with pytest.raises(ValueError, match=r"row 1 predicts shape \(1,\), its reference has \(3,\)"):
        MSE().score([np.zeros(3), np.zeros(1)], [np.zeros(3), np.zeros(3)])
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        MAE().score([1.0], [1.0, 2.0])


# -- rankings ----------------------------------------------------------------------------------------------------
def slow_rank(scores: np.ndarray, true: int) -> float:
    """Mean of the rank with all equals before and with all equals behind."""
    better = sum(s > scores[true] for s in scores)
    equal = sum(s == scores[true] for i, s in enumerate(scores) if i != true)
    return ((better + 1) + (better + equal + 1)) / 2


def test_ranks_by_the_definition_with_ties() -> None:
    scores = RNG.integers(0, 6, size=(50, 12)).astype(np.float32)
    true = RNG.integers(0, 12, size=50)
    assert ranks_of(scores, true).tolist() == [slow_rank(s, t) for s, t in zip(scores, true, strict=True)]
    assert ranks_of(scores, true).tolist() == [
        stats.rankdata(-s, method="average")[t] for s, t in zip(scores, true, strict=True)
    ]


def test_ranks_of_no_opinion_of_what_is_left_out_and_of_no_number() -> None:
    assert ranks_of(np.zeros((1, 11)), [3]).tolist() == [6.0]
    left_out = np.array([[5.0, -np.inf, 3.0, 4.0, -np.inf]])
    assert ranks_of(left_out, [2]).tolist() == [3.0]
    assert ranks_of(left_out, [1]).tolist() == [5.0]
    assert ranks_of(np.full((1, 5), np.nan), [1]).tolist() == [5.0]


@pytest.mark.parametrize("metric, k", [(NDCG10(), 10), (HR10(), 10), (R1(), 1), (MRR(), 40)])
def test_ranking_metrics_against_scikit_learn_and_the_definition(metric: Metric, k: int) -> None:
    scores, true = RNG.normal(size=(60, 40)), RNG.integers(0, 40, size=60)
    relevant = np.eye(40)[true]
    predictions = [{"rank": rank, "top": []} for rank in ranks_of(scores, true).tolist()]
    value = metric.score(predictions, true.tolist())
    if isinstance(metric, NDCG10):
        assert value == pytest.approx(ndcg_score(relevant, scores, k=k), rel=1e-12)
        return
    places = [np.argsort(-s).tolist().index(t) for s, t in zip(scores, true, strict=True)]
    gains = [1 / (place + 1) if isinstance(metric, MRR) else float(place < k) for place in places]
    assert value == pytest.approx(np.mean(gains), rel=1e-12)


def test_ranking_metrics_count_the_tenth_and_not_the_eleventh() -> None:
    assert [NDCG10().score([{"rank": r}], [0]) for r in (1.0, 3.0, 10.0, 11.0)] == pytest.approx(
        [1.0, 0.5, 1 / math.log2(11), 0.0]
    )
    assert [HR10().score([{"rank": r}], [0]) for r in (10.0, 10.5, 11.0)] == [1.0, 0.0, 0.0]
    assert [R1().score([{"rank": r}], [0]) for r in (1.0, 1.5)] == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"row 1 has rank 0\.0; ranks begin at 1"):
        MRR().score([{"rank": 1.0}, {"rank": 0.0}], [0, 0])


# -- correlations ------------------------------------------------------------------------------------------------
def test_correlations_are_scipys_with_ties_and_on_any_rows() -> None:
    p, r = RNG.normal(size=80).round(1), RNG.integers(0, 6, size=80).astype(float)
    keep = RNG.integers(0, 80, size=80)
    for metric, reference in ((Pearson(), stats.pearsonr), (Spearman(), stats.spearmanr)):
        statistics = metric.statistics(p.tolist(), r.tolist())
        assert metric.aggregate(statistics) == pytest.approx(reference(p, r)[0], rel=1e-12)
        assert metric.aggregate(rows(statistics, keep)) == pytest.approx(reference(p[keep], r[keep])[0], rel=1e-12)


@pytest.mark.parametrize("metric", [Pearson(), Spearman()])
def test_correlation_of_a_constant_is_undefined(metric: Metric) -> None:
    for predictions in ([2.7] * 4, [1.0, math.nan, 2.0, 3.0]):
        assert math.isnan(metric.score(predictions, [1.0, 2.0, 3.0, 4.0]))
    assert math.isnan(metric.score([0.1 + 0.2] * 3, [1.0, 2.0, 3.0]))
    assert math.isnan(metric.score([1.0], [1.0]))


def test_spearman_sees_order_alone() -> None:
    p = RNG.normal(size=30)
    assert Spearman().score(np.exp(3 * p).tolist(), p.tolist()) == pytest.approx(1.0)
    assert Pearson().score(np.exp(3 * p).tolist(), p.tolist()) < 0.95


# -- modules of evaluate -----------------------------------------------------------------------------------------
WORDS = ["the cat sat", "a dog ran home", "no"]
TRUTHS = ["the cat sat down", "a dog ran home", "yes"]
TAGS = [["O", "B-a", "I-a"], ["B-b"], ["O", "O"]]
GOLD = [["O", "B-a", "I-a"], ["B-a"], ["B-b", "O"]]
RANKED = [{"rank": 1.0, "top": [4, 2]}, {"rank": 3.5, "top": [1]}, {"rank": 12.0, "top": [7, 8, 9]}]
SAMPLED = [{"rank": 99.0, "rank_uniform": 1.0 + i, "rank_popularity": 9.5 + i} for i in range(3)]
WINDOWS = RNG.normal(size=(2, 3, 4, 2)).tolist()
COUNTS = ([[3.0, 2.0, 7.0], [5.0, 4.0, 9.0]], [[0.0, 2.0, 7.0], [0.0, 4.0, 9.0]])
LONG = (
    [list("abcdefghij"), list("abcdefghijkl")],
    [list("abxdefghij"), list("xbcdefghijkz")],
)  # a word a tenth at least
IMAGES = (
    [np.eye(4, dtype=np.uint8), np.ones((3, 5), dtype=np.uint8)],
    [np.tri(4, dtype=np.uint8), np.eye(3, 5, dtype=np.uint8)],
)
CASES: list[tuple[Metric, list[Any], list[Any]]] = [
    (Accuracy(), ["a", "b", "a"], ["a", "a", "a"]),
    (Accuracy(), [0, 1, 2], [0, 1, 1]),
    (MacroF1(), [0, 1, 2, 1], [0, 1, 1, 1]),
    (TokenAccuracy(), TAGS, GOLD),
    (EntityF1(), TAGS, GOLD),
    (ExactMatch(), WORDS, TRUTHS),
    (ExactMatch(), TAGS, GOLD),
    (Bleu(), WORDS, TRUTHS),
    (Chrf(), WORDS, TRUTHS),
    (BitsPerCharacter(), *COUNTS),
    (EndBitsPerCharacter(), *([[*row, *row] for row in side] for side in COUNTS)),
    (WordAccuracy(), *LONG),
    (FirstWordAccuracy(), *LONG),
    (LastWordAccuracy(), *LONG),
    (Perplexity(), *COUNTS),
    (MSE(), [1.0, 2.5], [0.0, 2.0]),
    (MSE(), WINDOWS[0], WINDOWS[1]),
    (MAE(), WINDOWS[0], WINDOWS[1]),
    (RMSE(), [1.0, 2.5], [0.0, 2.0]),
    (R2(), [1.0, 2.5, 2.0], [0.0, 2.0, 1.0]),
    (Pearson(), [1.0, 2.5, 2.0], [0.0, 2.0, 1.0]),
    (Spearman(), [1.0, 2.5, 2.0], [0, 2, 1]),
    (NDCG10(), RANKED, [4, 5, 6]),
    (HR10(), RANKED, [4, 5, 6]),
    (MRR(), RANKED, ["x", "y", "z"]),
    (HR10Uniform(), SAMPLED, [4, 5, 6]),
    (NDCG10Uniform(), SAMPLED, [4, 5, 6]),
    (HR10Popularity(), SAMPLED, [4, 5, 6]),
    (NDCG10Popularity(), SAMPLED, [4, 5, 6]),
    (R1(), RANKED, ["x", "y", "z"]),
    (WordErrorRate(), TAGS, GOLD),
    (SymbolErrorRate(), TAGS, GOLD),
    (FrameNLL(), [(2.5, 4), (1.0, 3)], [(0.0, 4), (0.0, 3)]),
    (Dice(), *IMAGES),
    (Hausdorff95(), *IMAGES),
]


@pytest.mark.slow  # importing evaluate takes seconds
def test_modules_of_evaluate_give_the_same_scores(tmp_path: Any) -> None:
    for metric, predictions, references in CASES:
        expected = metric.score(predictions, references)
        module = as_evaluate(metric, keep_in_memory=True, cache_dir=str(tmp_path))
        assert module.compute(predictions=predictions, references=references) == {metric.name: pytest.approx(expected)}
        for prediction, reference in zip(predictions, references, strict=True):
            module.add_batch(predictions=[prediction], references=[reference])
        assert module.compute() == {metric.name: pytest.approx(expected)}


@pytest.mark.slow
def test_every_metric_of_the_configs_is_among_the_modules() -> None:
    used = {
        metric["_target_"]
        for path in (CONFIGS / "task").glob("*.yaml")
        for metric in compose_node("task", path.stem)["metrics"]
    }
    tested = {f"{type(metric).__module__}.{type(metric).__name__}" for metric, _, _ in CASES}
    assert used
    assert used <= tested, used - tested


@pytest.mark.slow
def test_modules_combine_and_describe_themselves(tmp_path: Any) -> None:
    import evaluate

    made = [as_evaluate(metric, keep_in_memory=True, cache_dir=str(tmp_path)) for metric in (MSE(), MAE())]
    assert "Mean squared error" in made[0].description
    scores = evaluate.combine(made).compute(predictions=[1.0, 2.0], references=[0.0, 4.0])
    assert scores == {"mse": pytest.approx(2.5), "mae": pytest.approx(1.5)}
