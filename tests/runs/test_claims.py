"""Claims: bounds that can be missed on either side, numbers by formula, a page, a command that runs a study."""
# S seeds, N examples

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from seqbench.board.entries import Entry
from seqbench.board.statistics import Examples
from seqbench.claims import command, kept, page, sheet, words
from seqbench.claims.curves import line, places
from seqbench.claims.estimate import Estimate, _counted, _ratio_of_scores, _together, estimate
from seqbench.claims.selection import Run, chosen, quantity
from seqbench.claims.sheet import Claim, Comparison, Curve, read_claim
from seqbench.claims.verdict import Judged, check, judge, side_of, together
from seqbench.config import Names
from seqbench.errors import ConfigError
from seqbench.record import Cost, Record
from seqbench.records import published
from seqbench.records.claim import Claimed
from seqbench.records.claim import claim as claiming
from seqbench.records.store import Store
from seqbench.studies.study import Cell, plan
from tests.seqbench.board_records import write
from tests.seqbench.toy_cli import ALLOWED, Toy

COUNTS = {
    *("parameters", "parameters_encoder", "parameters_embedding", "parameters_trained"),
    *("flops_train", "flops_forward", "train_tokens", "train_items"),
}
CELL = plan("quickstart", ["encoder=majority", "task=listops", "seed=0"]).cells[0]


def run_of(results: Path, encoder: str, seed: int, hits: np.ndarray | None = None, **keys: Any) -> Run:
    """A run with a made-up record; the config's own budget.steps is the record's."""
    statistics = {"value": hits} if hits is not None else None
    record = write(results, encoder=encoder, seed=seed, statistics=statistics, **keys)
    return planned(encoder, seed, record, results)


def planned(encoder: str, seed: int, record: Record | None = None, results: Path = Path()) -> Run:
    names = Names.model_validate({**CELL.names.model_dump(), "encoder": encoder})
    config = CELL.config.model_copy(update={"seed": seed})
    steps = record.config["budget"]["steps"] if record else 100
    cell = Cell(id=f"{encoder}{seed}{steps}", config=config, names=names, overrides=[f"encoder={encoder}"])
    entry = Entry(record=record, folder=results / record.id) if record else None
    return Run(cell=cell, config=record.config if record else {"budget": {"steps": 100}}, entry=entry)


def hits(rate: float, seed: int, n: int = 400) -> np.ndarray:
    """0/1, by examples that are hard for all."""
    hard = np.random.default_rng(1).uniform(size=n)
    return (hard + np.random.default_rng([2, seed]).normal(scale=0.03, size=n) < rate).astype(np.float64)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    results = tmp_path_factory.mktemp("results")
    found = [run_of(results, "good", s, hits(0.8, s), parameters=200_000) for s in range(3)]
    return [*found, *(run_of(results, "poor", s, hits(0.6, 10 + s), parameters=100_000) for s in range(3))]


def comparison(**changes: Any) -> Comparison:
    content = {"name": "x", "a": {"encoder": "good"}, "b": {"encoder": "poor"}, "of": "test/accuracy", "at_least": 0.0}
    return Comparison.model_validate(content | changes)


def claim(*comparisons: Comparison, **changes: Any) -> Claim:
    content: dict[str, Any] = {
        "title": "Good <b>is</b> better",
        "paper": "A. Author 2020",
        "statement": "good is better than poor",
        "published": "by 20 points",
        "study": "none",
        "comparisons": [c.model_dump() for c in comparisons or (comparison(),)],
    }
    return Claim.model_validate(content | changes)


@pytest.mark.parametrize(
    "changes, verdict",
    [
        ({"at_least": 0.0}, "reproduced"),
        ({"at_least": 0.1}, "reproduced"),
        ({"at_least": 0.2}, "inconclusive"),
        ({"at_least": 0.5}, "not reproduced"),
        ({"at_least": None, "at_most": 0.0}, "not reproduced"),
        ({"at_least": None, "at_most": 0.5}, "reproduced"),
        ({"at_least": -0.5, "at_most": 0.1}, "not reproduced"),
        ({"a": {"encoder": "poor"}, "b": {"encoder": "good"}}, "not reproduced"),
        ({"a": {"encoder": "poor"}, "b": {"encoder": "good"}, "at_least": -0.5}, "reproduced"),
        ({"b": None, "at_least": 0.7}, "reproduced"),
        ({"b": None, "at_least": 0.9}, "not reproduced"),
        ({"of": "cost/parameters", "by": "ratio", "at_least": 2.0, "at_most": 2.0}, "reproduced"),
        ({"of": "cost/parameters", "by": "ratio", "at_least": 2.01}, "not reproduced"),
        ({"of": "cost/parameters", "at_most": 99_999.0, "at_least": None}, "not reproduced"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(changes: dict[str, Any], verdict: str, runs: list[Run]) -> None:
    assert judge(claim(comparison(**changes)), runs, confidence=0.95).verdict == verdict


@pytest.mark.parametrize(
    "bounds, verdict", [((0.0, None), "inconclusive"), ((None, 0.0), "inconclusive"), ((-0.1, None), "reproduced")]
)
def test_sides_that_fail_alike_decide_nothing_on_the_bound(
    bounds: tuple[float | None, float | None], verdict: str, tmp_path: Path
) -> None:
    """All wrong on both sides: a difference of 0 (0 to 0) is not above 0, but it is above -0.1."""
    runs = [run_of(tmp_path, name, seed, hits(-1.0, seed)) for name in ("good", "poor") for seed in range(3)]
    judged = judge(claim(comparison(at_least=bounds[0], at_most=bounds[1])), runs, confidence=0.95)
    found = judged.outcomes[0].estimate
    assert found is not None
    assert (found.low, found.high) == (0.0, 0.0)
    assert judged.verdict == verdict


def test_one_seed_decides_nothing_of_scores(runs: list[Run]) -> None:
    one = [run for run in runs if run.seed == 0]
    for changes in ({"at_least": 0.0}, {"at_least": 0.9}):  # the interval over examples lies inside, and outside
        assert judge(claim(comparison(**changes)), one, confidence=0.95).verdict == "inconclusive"
    assert judge(claim(comparison(of="cost/parameters", by="ratio", at_least=2.0)), one, confidence=0.95).verdict == (
        "reproduced"  # what is counted is the same for any seed
    )


def test_a_difference_is_the_boards_with_its_examples(runs: list[Run]) -> None:
    good, poor = runs[:3], runs[3:]
    found = estimate(comparison(), good, poor, confidence=0.95)
    scores = [quantity(run.entry.record, "test/accuracy") for run in runs if run.entry]
    assert found.value == pytest.approx(np.mean(scores[:3]) - np.mean(scores[3:]))  # type: ignore[arg-type]
    assert found.basis == "seeds and examples"
    one = estimate(comparison(), good[:1], poor[:1], confidence=0.95)
    assert one.low is not None
    assert one.low > 0  # examples alone
    wider = estimate(comparison(), good, poor, confidence=0.999)
    assert wider.low is not None
    assert found.low is not None
    assert wider.low < found.low


def test_costs_are_paired_by_seed_and_students(tmp_path: Path) -> None:
    a = [run_of(tmp_path, "a", s, parameters=size) for s, size in enumerate((100, 210, 330))]
    b = [run_of(tmp_path, "b", s, parameters=size) for s, size in reversed(list(enumerate((50, 100, 150))))]
    found = estimate(comparison(of="cost/parameters", by="ratio"), a, b, confidence=0.9)
    logs = np.log([2.0, 2.1, 2.2])
    low, high = stats.t.interval(0.9, 2, loc=logs.mean(), scale=stats.sem(logs))
    assert (found.value, found.low, found.high) == pytest.approx(tuple(np.exp([logs.mean(), low, high])))
    assert (found.a, found.b, found.seeds, found.basis) == (pytest.approx(640 / 3), 100.0, 3, "seeds")
    with pytest.raises(ConfigError, match=r"other seeds: \[0, 1, 2\] and \[0, 1\]"):
        estimate(comparison(of="cost/parameters"), a, [run for run in b if run.seed < 2], confidence=0.9)
    with pytest.raises(ConfigError, match="one run a seed"):
        estimate(comparison(of="cost/parameters"), [*a, a[0]], b, confidence=0.9)


@pytest.mark.parametrize("times", [2, 3, 5, 10, 49])
def test_a_counted_ratio_is_exact_and_meets_a_bound_that_it_equals(times: int, tmp_path: Path) -> None:
    a = [run_of(tmp_path, "good", s, parameters=times * 700) for s in range(3)]
    b = [run_of(tmp_path, "poor", s, parameters=700) for s in range(3)]
    this = comparison(of="cost/parameters", by="ratio", at_least=float(times), at_most=float(times))
    found = estimate(this, a, b, confidence=0.95)
    assert (found.low, found.value, found.high) == (times, times, times), "and not exp(log(x))"
    assert judge(claim(this), [*a, *b], confidence=0.95).verdict == "reproduced"


def scored(mean: float, seeds: int, n: int, spread: float, draw: np.random.Generator, easy_N: np.ndarray) -> np.ndarray:
    """Scores (S, N) of a side: seeds that differ by spread, examples that are easy for both sides or for one."""
    own_N = easy_N + draw.normal(size=n) * 0.2
    return mean + spread * draw.normal(size=(seeds, 1)) + own_N + 0.1 * draw.normal(size=(seeds, n))


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("shared", [True, False])
def test_a_ratio_of_scores_covers_whether_seeds_or_examples_err(spread: float, seeds: int, shared: bool) -> None:
    """Student's interval over seeds alone misses 30 to 65 % where seeds do not matter: all read the same examples."""
    draw, missed, repeats, n = np.random.default_rng(7), 0, 400, 200
    for _ in range(repeats):
        easy_N = draw.normal(size=n) * 0.2
        a_SN, b_SN = (scored(1.0, seeds, n, spread, draw, easy_N * shared) for _ in "ab")
        sides = [[Examples(values={"value": x}, aggregate=None, group=g) for x in x_SN]
                 for x_SN, g in ((a_SN, "g"), (b_SN, "g" if shared else "h"))]  # fmt: skip
        runs = [_together((x, x.score()), (y, y.score())) for x, y in zip(*sides, strict=True)]
        found = _ratio_of_scores(comparison(by="ratio"), a_SN.mean(1), b_SN.mean(1), runs, 0.95)
        assert found.low is not None
        assert found.high is not None
        assert found.basis == "seeds and examples"
        missed += not found.low <= 1.0 <= found.high
    assert 0.015 <= missed / repeats <= 0.08


def test_a_ratio_of_scores_is_paired_by_seed_and_by_example(tmp_path: Path) -> None:
    """With the same error in each seed nothing but the examples speak, and pairs of them: by the delta method."""
    a_N, b_N = hits(0.8, 1), hits(0.6, 2)
    a = [run_of(tmp_path, "a", s, a_N) for s in range(3)]
    b = [run_of(tmp_path, "b", s, b_N) for s in range(3)]
    this = comparison(by="ratio", at_least=1.0)
    found = estimate(this, a, b, confidence=0.95)
    part_N = a_N / a_N.mean() - b_N / b_N.mean()
    half = stats.t.isf(0.025, 300) * part_N.std(ddof=1) / np.sqrt(len(part_N))
    assert found.value == pytest.approx(a_N.mean() / b_N.mean())
    assert found.low is not None
    assert found.high is not None
    assert np.log([found.value / found.low, found.high / found.value]) == pytest.approx([half, half], rel=0.02)
    one = estimate(this, a[:1], b[:1], confidence=0.95)
    assert (one.basis, judge(claim(this, study="x"), [*_named(a[:1], "good"), *_named(b[:1], "poor")],
                             confidence=0.95).verdict) == ("one seed", "inconclusive")  # fmt: skip
    bare = [run_of(tmp_path / "bare", name, s, value=v) for name, v in (("a", 0.8), ("b", 0.6)) for s in range(3)]
    silent = estimate(this, bare[:3], bare[3:], confidence=0.95)
    assert (silent.low, silent.high) == (None, None), "seeds that coincide, without examples, tell of no error"
    alone = comparison(by="ratio", a={"encoder": "a"}, b=None)
    assert estimate(alone, a, None, confidence=0.95) == estimate(
        alone.model_copy(update={"by": "difference"}), a, None, confidence=0.95
    )


def _named(runs: list[Run], encoder: str) -> list[Run]:
    return [planned(encoder, run.seed, run.entry.record, run.entry.folder.parent) for run in runs if run.entry]


def test_one_seed_of_operations_is_no_count_that_all_share(tmp_path: Path) -> None:
    """Operations of a training depend on how rows fell into batches: only several seeds say whether they are alike."""
    a, b = run_of(tmp_path, "good", 0), run_of(tmp_path, "poor", 0)
    for of, basis in (("cost/flops_train", "one seed"), ("cost/parameters", "counted")):
        assert estimate(comparison(of=of, by="ratio"), [a], [b], confidence=0.95).basis == basis


def test_a_side_of_one_seed_decides_nothing_whatever_the_other_has(runs: list[Run]) -> None:
    for some in ([*runs[:1], *runs[3:]], [*runs[:3], *runs[3:4]]):
        judged = judge(claim(comparison(at_least=0.0)), some, confidence=0.95)
        assert judged.outcomes[0].estimate is not None
        assert (judged.outcomes[0].estimate.basis, judged.verdict) == ("one seed", "inconclusive")


def test_what_is_counted_is_exact_only_where_all_seeds_agree(tmp_path: Path) -> None:
    """Operations that differ by a little from seed to seed have an error; what is measured always has one."""
    a = [run_of(tmp_path, "good", s, parameters=100_000 + s) for s in range(3)]
    b = [run_of(tmp_path, "poor", s, parameters=50_000) for s in range(3)]
    found = estimate(comparison(of="cost/parameters", by="ratio"), a, b, confidence=0.95)
    assert found.basis == "seeds"
    assert found.low is not None
    assert found.low < found.value
    counted = {f"cost/{key}" for key in Cost.model_fields if _counted(f"cost/{key}")}
    assert counted == {f"cost/{key}" for key in COUNTS}
    assert _counted("cost/generation.cache_mib")
    assert not _counted("cost/generation.next_ms")


def test_a_measured_cost_of_one_seed_has_no_interval_and_decides_nothing(tmp_path: Path) -> None:
    a, b = run_of(tmp_path, "good", 0), run_of(tmp_path, "poor", 0, parameters=9)
    measured = comparison(of="cost/latency.p50_ms", by="ratio", at_least=0.001)
    found = estimate(measured, [a], [b], confidence=0.95)
    assert (found.low, found.high) == (None, None)
    assert judge(claim(measured), [a, b], confidence=0.95).verdict == "inconclusive"


def test_an_exponent_is_that_of_a_power_law(tmp_path: Path) -> None:
    a, b = [], []
    for seed in range(2):
        for steps in (10, 20, 80):
            a.append(run_of(tmp_path, "a", seed, parameters=3 * steps**2, budget__steps=steps))
            b.append(run_of(tmp_path, "b", seed, parameters=7 * steps, budget__steps=steps))
    this = comparison(of="cost/parameters", exponent_over="budget.steps", at_least=1.0, at_most=1.0 + 1e-9)
    found = estimate(this, a, b, confidence=0.95)
    assert (found.a, found.b, found.value) == pytest.approx((2.0, 1.0, 1.0))
    twice = run_of(tmp_path, "c", 1, parameters=1, budget__steps=20)
    with pytest.raises(ConfigError, match=r"one run a seed and budget\.steps; seed 1 has more of one"):
        estimate(this, [*a, twice], b, confidence=0.95)
    with pytest.raises(ConfigError, match=r"optimizer.lr_ is no number|budget.name is no number"):
        estimate(comparison(of="cost/parameters", exponent_over="budget.name"), a, b, confidence=0.95)


def test_one_refuted_comparison_is_enough_and_many_do_not_refute_by_chance(runs: list[Run]) -> None:
    holds, fails = comparison(), comparison(name="y", at_least=0.5)
    assert judge(claim(holds, fails), runs, confidence=0.95).verdict == "not reproduced"
    beside = comparison(name="y", at_least=0.5, decides=False)
    assert judge(claim(holds, beside), runs, confidence=0.95).verdict == "reproduced"
    assert together(["reproduced", "inconclusive"]) == "inconclusive"
    assert together(["inconclusive", "not run", "reproduced"]) == "not run"
    narrow = Estimate(value=-1.0, low=-2.0, high=-0.1, a=0.0, b=1.0, seeds=3, basis="seeds")
    wide = narrow.model_copy(update={"low": -3.0, "high": 0.2})
    assert side_of(comparison(), narrow, narrow) == "not reproduced"
    assert side_of(comparison(), narrow, wide) == "inconclusive"
    found = estimate(comparison(), runs[:3], runs[3:], confidence=0.95)
    assert found.high is not None
    just_out = comparison(name="one", at_least=found.high + 1e-6)  # refuted alone, not beside nineteen others
    assert judge(claim(just_out), runs, confidence=0.95).verdict == "not reproduced"
    many = [comparison(name=str(i), at_least=-1.0) for i in range(19)]
    assert judge(claim(just_out, *many), runs, confidence=0.95).verdict == "inconclusive"
    shown = [this.model_copy(update={"decides": False}) for this in many]
    assert judge(claim(just_out, *shown), runs, confidence=0.95).verdict == "not reproduced", "what is shown costs none"
    assert found.low is not None
    just_in = comparison(name="one", at_least=found.low - 1e-6)  # to reproduce, each at the level that is asked for
    judged = judge(claim(just_in, *many), runs, confidence=0.95)
    assert judged.verdict == "reproduced"
    assert judged.outcomes[0].estimate == found


def test_what_has_not_run_or_failed_is_told(runs: list[Run], tmp_path: Path) -> None:
    failed = run_of(tmp_path, "good", 3, status="diverged", reason="loss is NaN at step 6")
    judged = judge(claim(), [*runs, failed], confidence=0.95)
    assert judged.verdict == "not run"
    assert judged.outcomes[0].why.startswith("1 run has no score: good x listops")
    assert judged.failed[0].endswith("diverged: loss is NaN at step 6")
    judged = judge(claim(), [*runs, planned("poor", 4)], confidence=0.95)
    assert (judged.verdict, judged.missing, len(judged.ids)) == ("not run", 1, 6)


def test_the_time_of_a_claim_is_that_of_all_its_runs_those_before_them_once(tmp_path: Path) -> None:
    """Two children of one stage, whose own parent comes before it; a stage that is not there costs nothing."""

    def took(seconds: float, encoder: str, seed: int, *parents: str) -> Run:
        run = run_of(tmp_path, encoder, seed)
        assert run.entry is not None
        cost = run.entry.record.cost.model_copy(update={"wall_seconds": seconds})
        record = run.entry.record.model_copy(update={"cost": cost, "parents": list(parents)})
        Store(tmp_path).write(record)
        return planned(encoder, seed, record, tmp_path)

    def id_of(run: Run) -> str:
        return run.entry.record.id if run.entry else ""

    teacher = took(1000.0, "teacher", 0)
    stage = took(100.0, "stage", 0, id_of(teacher))
    runs = [took(10.0, "good", 0, id_of(stage)), took(1.0, "good", 1, id_of(stage), "0" * 16), took(5.0, "poor", 0)]
    runs.append(took(6.0, "poor", 1))
    judged = judge(claim(), runs, confidence=0.95)
    assert (judged.seconds, len(judged.ids)) == (1122.0, 4)
    (tmp_path / id_of(stage) / "record.json").write_text("{")
    assert judge(claim(), runs, confidence=0.95).seconds == 22.0


def test_selectors_name_what_is_there(runs: list[Run]) -> None:
    assert [run.seed for run in chosen(list(reversed(runs)), {"encoder": "good"}, where="")] == [0, 1, 2]
    assert len(chosen(runs, {"budget.steps": 100}, where="")) == 6
    assert len(chosen(runs, {"label": None}, where="")) == 6
    for selector, text in (
        ({"encoder": "god"}, "x: no run of the study has encoder=god; it has good, poor"),
        ({"budget.steps": True}, "budget.steps=True; it has 100"),
        ({"encoder.wdth": 3}, "encoder.wdth=3; it has no such key"),
    ):
        with pytest.raises(ConfigError, match=text):
            chosen(runs, selector, where="x")
    one = [Run(cell=runs[0].cell, config={"a": 1, "b": 0, "c": True, "d": None}, entry=None)]
    for key, value in (("a", True), ("b", False), ("c", 1), ("d", 0), ("b", None)):
        with pytest.raises(ConfigError, match=f"no run of the study has {key}="):
            chosen(one, {key: value}, where="x")
    assert chosen(one, {"a": 1.0, "b": 0, "c": True, "d": None}, where="x") == one
    for of in ("test/f1", "cost/parameter", "cost/latency", "cost/latency.p51_ms"):
        with pytest.raises(ConfigError, match=f"{of}: .* it has"):
            check(claim(comparison(of=of)), runs)
    check(claim(comparison(of="cost/latency.p50_ms"), comparison(name="y")), runs)


def test_sides_that_cannot_be_compared_are_told_before_anything_is_run() -> None:
    def cells(encoder: str, *seeds: int, steps: int = 100) -> list[Run]:
        runs = [planned(encoder, seed) for seed in seeds]
        return [dataclasses.replace(run, config={"budget": {"steps": steps}}) for run in runs]

    ratio = comparison(by="ratio", of="cost/latency.p50_ms", at_least=1.0)
    slope = comparison(of="cost/latency.p50_ms", exponent_over="budget.steps")
    other = "x: a and b have other seeds: \\[0, 1\\] and \\[0, 1, 2\\]"
    both = [*cells("good", 0, 1), *cells("poor", 0, 1)]
    check(claim(comparison(), ratio.model_copy(update={"name": "y"})), both)
    check(claim(slope), [*both, *cells("good", 0, 1, steps=7), *cells("poor", 0, 1, steps=9)])
    check(claim(comparison()), [*both, *cells("poor", 2)])  # a difference of scores needs no pairs of seeds
    for this, runs, text in (
        (comparison(), [*both, *cells("good", 1, steps=7)], "x: a side has one run a seed, this one has 3: good x"),
        (ratio, [*both, *cells("poor", 2)], other),
        (comparison(by="ratio"), [*both, *cells("poor", 2)], other),
        (slope, both, "no exponent over budget.steps: two or more positive values"),
        (slope, [*both, *cells("good", 0, 1, steps=0), *cells("poor", 0, 1, steps=9)], "two or more positive values"),
        (slope, [*both, *cells("good", 0, 1, 1, steps=7), *cells("poor", 0, 1, steps=9)], "seed 1 has more of one"),
        (slope.model_copy(update={"exponent_over": "budget"}), both, "x: budget is no number of good x"),
    ):
        with pytest.raises(ConfigError, match=text):
            check(claim(this), runs)


def test_lines_of_a_plot(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path, "a", seed, parameters=steps, value=seed + steps / 100, budget__steps=steps)
        for steps in (20, 10)
        for seed in (0, 1)
    ]
    curve = Curve(name="c", x="budget.steps", y="test/accuracy", lines={"a": {}})
    found = line(curve, "a", runs)
    assert [(dot.x, dot.low, dot.high, dot.seeds) for dot in found.dots] == [(10, 0.1, 1.1, 2), (20, 0.2, 1.2, 2)]
    assert [dot.y for dot in found.dots] == pytest.approx([0.6, 0.7])


def test_a_dot_over_a_quantity_is_of_the_seeds_of_one_set_up(tmp_path: Path) -> None:
    """Costs differ from seed to seed, so runs are told by what was typed for them."""
    runs = []
    for steps in (20, 10):
        for seed in (0, 1):
            run = run_of(tmp_path, "a", seed, parameters=steps + seed, value=steps / 100 + seed, budget__steps=steps)
            cell = dataclasses.replace(run.cell, overrides=["encoder=a", f"budget.steps={steps}", f"seed={seed}"])
            runs.append(dataclasses.replace(run, cell=cell))
    dots = line(Curve(name="c", x="cost/parameters", y="test/accuracy", lines={"a": {}}), "a", runs).dots
    assert [(dot.x, dot.y, dot.low, dot.high, dot.seeds) for dot in dots] == [
        (10.5, pytest.approx(0.6), 0.1, 1.1, 2),
        (20.5, pytest.approx(0.7), 0.2, 1.2, 2),
    ]


def test_a_plot_along_a_sequence(tmp_path: Path) -> None:
    """A dot for each part that has a score, by the share of the sequence that has come at its end."""
    runs = []
    for seed, along in enumerate(([0.9, 0.5, None, 0.1], [0.7, 0.3, 0.2, 0.1])):
        run = run_of(tmp_path, "a", seed, value=0.5)
        assert run.entry is not None
        run.entry.record.scores["test"]["accuracy"] = run.entry.record.scores["test"]["accuracy"].model_copy(
            update={"along": along}
        )
        runs.append(run)
    curve = Curve(name="c", x="along", y="test/accuracy", lines={"a": {}})
    dots = line(curve, "a", runs).dots
    assert [(dot.x, dot.low, dot.high, dot.seeds) for dot in dots] == [
        (0.25, 0.7, 0.9, 2),
        (0.5, 0.3, 0.5, 2),
        (0.75, 0.2, 0.2, 1),
        (1.0, 0.1, 0.1, 2),
    ]
    assert dots[0].y == pytest.approx(0.8)
    assert places(curve, runs) == ()
    assert line(curve.model_copy(update={"y": "test/other"}), "a", runs).dots == ()


def test_what_an_encoder_tells_of_itself_is_paired_by_seed(tmp_path: Path) -> None:
    runs = []
    for seed, number in enumerate((0.1, 0.3, 0.2)):
        run = run_of(tmp_path, "a", seed, value=0.5)
        assert run.entry is not None
        run.entry.record.encoder.told["lead"] = number
        runs.append(run)
    lead = comparison(a={"encoder": "a"}, b=None, of="encoder/lead")
    check(claim(lead), runs)
    found = judge(claim(lead), runs, confidence=0.95).outcomes[0].estimate
    assert found is not None
    half = 4.3027 * 0.1 / 3**0.5  # Student, 2 degrees
    assert (found.value, found.low, found.basis) == (pytest.approx(0.2), pytest.approx(0.2 - half, abs=1e-4), "seeds")
    assert runs[0].entry is not None
    told = runs[0].entry.record.encoder.told
    assert quantity(runs[0].entry.record, "encoder/lead") == 0.1
    for value in (float("inf"), float("nan")):
        told["endless"] = value
        assert quantity(runs[0].entry.record, "encoder/endless") is None
    del told["endless"]
    with pytest.raises(ConfigError, match="encoder/other is not defined"):
        judge(claim(comparison(a={"encoder": "a"}, b=None, of="encoder/other")), runs, confidence=0.95)


def test_a_plot_over_names(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path, "a", seed, parameters=1, value=0.5, optimizer__x=name) for name in "dac" for seed in (0, 1)
    ]
    curve = Curve(
        name="c",
        x="optimizer.x",
        y="test/accuracy",
        lines={"all": {}, "a": {"optimizer.x": "a"}, "d": {"optimizer.x": "d"}},
    )
    this = claim(comparison(a={"optimizer.x": "a"}, b=None), curves=[curve.model_dump()])
    plot = judge(this, runs, confidence=0.95).plots[0]
    assert plot.places == ("a", "c", "d")
    assert [[dot.x for dot in line.dots] for line in plot.lines] == [[0, 1, 2], [0], [2]]
    assert places(Curve(name="c", x="seed", y="test/accuracy", lines={"a": {}}), runs) == ()
    with pytest.raises(ConfigError, match=r"optimizer\.x is no number"):
        line(curve, "all", runs, ["a", "c"])


def test_what_does_not_decide_is_beside(runs: list[Run]) -> None:
    shown = comparison(name="y", decides=False)
    outcome = judge(claim(comparison(), shown), runs, confidence=0.95).outcomes[1]
    assert outcome.verdict == "reproduced"
    assert words.said(shown, outcome) == "beside"
    assert words.said(comparison(), outcome) == "reproduced"
    assert [words.number(x) for x in (0.012345, 104331.0, 1.2345e9)] == ["0.01235", "104,331", "1.234e+09"]


def test_the_number_of_a_side_has_its_unit_where_the_quantitys_name_tells_it() -> None:
    of = {"cost/latency.p50_ms": "66.67 ms", "cost/train_seconds": "66.67 s", "cost/peak_memory_mib": "66.67 MiB"}
    for name, shown in {**of, "test/accuracy": "66.67", "cost/parameters": "66.67"}.items():
        assert words.side(66.6666, comparison(of=name)) == shown
    assert words.side(1.2, comparison(of="cost/latency.p50_ms", exponent_over="task.window")) == "1.2"


def test_help_tells_the_claims_that_have_a_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PUBLISHED", tmp_path)
    (tmp_path / "claims.json").write_text('{"informer": {}, "gone": {}}')
    assert command.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "published verdict (docs/claims.md): informer\n" in out
    others = out.partition("not been run yet: ")[2].splitlines()[0].split(", ")
    assert {*others, "informer"} == set(sheet.names())
    (tmp_path / "claims.json").unlink()
    assert command.main(["--help"]) == 0
    assert "(docs/claims.md): none\n" in capsys.readouterr().out


def test_the_page_holds_hostile_words_harmlessly(runs: list[Run]) -> None:
    hostile = "</script><script>alert(1)</script>"
    this = claim(
        comparison(name=hostile),
        title=hostile,
        curves=[{"name": hostile, "x": "budget.steps", "y": "test/accuracy", "lines": {hostile: {}}}],
    )
    html = page.render({"c": this}, {"c": judge(this, runs, confidence=0.95)})
    assert "<script>alert" not in html
    assert html.count("<script") == 2
    assert "reproduced" in html
    assert page.render({"c": claim()}, {"c": judge(this, runs, confidence=0.95)}).count('class="claim"') == 0


def test_verdicts_are_kept_beside_each_other(runs: list[Run], tmp_path: Path) -> None:
    judged = judge(claim(), runs, confidence=0.95)
    kept.write(tmp_path, {"b": judged})
    kept.write(tmp_path, {"a": judged})
    assert kept.read(tmp_path) == {"a": judged, "b": judged}
    text = words.table({"a": claim(), "z": claim()}, kept.read(tmp_path))
    assert text.count("### ") == 1
    assert "**reproduced**" in text
    assert "| a - b of test/accuracy | at least 0 | 0.19" in text


def test_what_is_published_is_the_last_verdict_and_records_of_no_machine(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged again, the new verdict takes the old one's place; records lose predictions and the folder's name."""
    results, into, pages = tmp_path / "results", tmp_path / "published", tmp_path / "claims.md"
    stage = write(results, encoder="stage")
    record = write(results, encoder="good", statistics={"value": hits(0.8, 1)})
    changes = {
        "config": record.config | {"results": str(results)},
        "overrides": [f"results={results}", "seed=0"],
        "parents": [stage.id],
    }
    Store(results).write(record.model_copy(update=changes))
    pages.write_text(f"before\n{kept.BEGIN}\nold\n{kept.END}\nafter\n")
    monkeypatch.setattr(published, "PUBLISHED", into)
    monkeypatch.setattr(kept, "PAGE", pages)
    every = {"a": claim(), "b": claim(title="Never judged")}
    for bound, verdict in ((0.0, "reproduced"), (0.5, "not reproduced")):
        every["a"] = claim(comparison(at_least=bound))
        judged = judge(every["a"], runs, confidence=0.95).model_copy(update={"ids": (record.id,)})
        kept.publish(results, "a", judged, every)
        assert kept.read(into)["a"].verdict == verdict
        text = pages.read_text()
        assert text.startswith(f"before\n{kept.BEGIN}\n1 {verdict}.\n\n| claim")
        assert text.endswith(f"{kept.END}\nafter\n")
        assert text.count(f"**{verdict}**") == 1
        assert text.count("### ") == 1
        assert "old" not in text
    assert sorted(path.name for path in into.glob("*/*")) == ["record.json", "record.json"]
    copied = Store(into).find(record.id)
    assert copied is not None
    assert (copied.predictions, copied.checkpoint, copied.overrides) == (None, None, ["seed=0"])
    assert copied.config["results"] == "results"
    assert copied.scores == record.scores
    assert str(tmp_path) not in (into / record.id / "record.json").read_text()
    with pytest.raises(ConfigError, match="has no record ffff"):
        published.keep(results, ["f" * 16], into)


@pytest.mark.parametrize("changed", [comparison(name="y"), comparison(at_least=-0.1), comparison(at_most=1.0)])
def test_a_verdict_is_not_shown_beside_other_bounds(changed: Comparison, runs: list[Run]) -> None:
    """A sheet whose bounds were moved, or that got a comparison, after its verdict fell: the verdict is not its."""
    judged = judge(claim(), runs, confidence=0.95)
    for now in (claim(changed), claim(comparison(), comparison(name="z"))):
        text = words.table({"a": now, "b": claim()}, {"a": judged, "b": judged})
        assert [line.split(" | ")[3] for line in text.splitlines()[4:6]] == [
            "its file has changed since",
            "**reproduced**",
        ]
        assert text.count("### ") == 1
        assert page.render({"a": now}, {"a": judged}).count('class="claim"') == 0
    old = judged.model_copy(update={"outcomes": tuple(o.model_copy(update={"bounds": None}) for o in judged.outcomes)})
    assert words.table({"a": claim()}, {"a": old}).count("### ") == 1, "of a file that kept no bounds"


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"statment": "x"}, "statment"),
        ({"comparisons": []}, "comparisons"),
        ({"comparisons": [{"name": "x", "a": {}, "of": "test/accuracy"}]}, "give at_least, at_most or both"),
        ({"comparisons": [{"name": "x", "a": {}, "of": "accuracy", "at_least": 1.0}]}, "comparisons.0.of"),
        ({"comparisons": [comparison().model_dump()] * 2}, "two comparisons are named 'x'"),
        ({"comparisons": [comparison(decides=False).model_dump()]}, "no comparison decides"),
    ],
)
def test_a_file_that_is_no_claim(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(claim().model_dump() | changes))
    with pytest.raises(ConfigError, match=text):
        read_claim("mine", [tmp_path])


@pytest.mark.parametrize("name", sheet.names())
def test_a_claim_of_ours_is_about_runs_of_its_study(name: str) -> None:
    this = read_claim(name)
    runs = [Run(cell=cell, config=cell.config.model_dump(), entry=None) for cell in plan(this.study).cells]
    check(this, runs)
    assert judge(this, runs, confidence=0.95).verdict == "not run"


def test_the_page_of_ours_is_made_of_what_is_published() -> None:
    every = {name: read_claim(name) for name in sheet.names()}
    verdicts = kept.read(kept.published.PUBLISHED)
    text = kept.PAGE.read_text()
    made = kept.published.between(text, kept.BEGIN, kept.END, words.table(every, verdicts), name="claims.md")
    assert made == text or not verdicts


@pytest.mark.slow
def test_the_command_runs_a_study_and_judges(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    this = claim(
        comparison(a={"encoder": "toy"}, b={"encoder": "majority"}, of="test/hits", at_least=-1.0),
        study="tiny",
        curves=[{"name": "c", "x": "budget.steps", "y": "test/hits", "lines": {"toy": {"encoder": "toy"}}}],
    )
    toy.write("claim/mine.yaml", this.model_dump())
    arguments = ["--config-dir", str(toy.configs), "claim=mine", ALLOWED]
    assert command.main([*arguments, "run=false"]) == 1
    assert "not run" in capsys.readouterr().out
    assert command.main([*arguments, "encoder=toy,majority"]) == 0
    out = capsys.readouterr().out
    assert ": reproduced" in out
    page = Path("reports/claims/index.html").read_text()
    assert f"<code>python scripts/claims.py --config-dir {toy.configs} claim=mine</code>" in page
    assert "scripts/claims.py claim=" in page or not kept.read(kept.published.PUBLISHED), "ours need no folder"
    assert out.splitlines()[-1] == "reports/claims/index.html"
    assert json.loads(Path("results/claims.json").read_text())["mine"]["verdict"] == "reproduced"
    before = [path.stat().st_mtime for path in toy.records()]
    assert command.main([*arguments, "encoder=toy,majority"]) == 0
    assert [path.stat().st_mtime for path in toy.records()] == before
    assert command.main([*arguments, "publish=true"]) == 2
    assert "publish: not with" in capsys.readouterr().err


def test_published_verdicts_stand_where_a_claim_was_only_begun_or_judged_by_its_published_records(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published records have no predictions: judged again they would give other intervals than those kept."""
    into = tmp_path / "published"
    monkeypatch.setattr(command, "PUBLISHED", into)
    reproduced = judge(claim(), runs, confidence=0.95)
    kept.write(into, {"mca": reproduced})
    before = (into / "claims.json").read_bytes()
    own = ["run=false", f"out={tmp_path / 'page'}"]
    assert command.main(["claim=mca", f"results={into}", *own]) == 1
    assert (into / "claims.json").read_bytes() == before
    results = f"results={tmp_path / 'mine'}"
    assert command.main(["claim=mca", results, *own]) == 1
    assert "not run\n  published: reproduced (docs/claims.md)\n" in capsys.readouterr().out
    settings = command.Settings(
        **yaml.safe_load(command.DEFAULTS.read_text()) | {"claims": "all", "results": str(tmp_path / "mine")}
    )
    assert command._known(settings)["mca"] == reproduced
    kept.write(tmp_path / "mine", {"mca": reproduced.model_copy(update={"verdict": "inconclusive"})})
    assert command._known(settings)["mca"].verdict == "inconclusive"


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([], "which one? claim=NAME"),
        (["claim=x", "claims=all"], "which one? claim=NAME"),
        (["claim=nothing"], "'nothing' is not one of configs/claim"),
        (["clam=x"], "clam: no such key (did you mean claim"),
        (["claims=some"], "claims: 'some'"),
        (["claims=all", "seed=1"], "all takes no seed=1"),
        (
            ["claim=lmuformer", "publish=true", "confidence=0.8"],
            "publish: confidence=0.8: what is published is at 0.95",
        ),
    ],
)
def test_mistakes_are_a_line(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    said = capsys.readouterr()
    assert text in said.err
    assert said.err.count("\n") <= 2


def test_the_example_of_the_page_is_a_claim(tmp_path: Path) -> None:
    text = (kept.PAGE).read_text().partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "mine.yaml").write_text(text)
    this = read_claim("mine", [tmp_path])
    assert [comparison.decides for comparison in this.comparisons] == [True, False]


def test_a_damaged_file_of_verdicts_is_told(tmp_path: Path) -> None:
    for content in ("{", '{"a": {}}', "[1]"):
        (tmp_path / kept.NAME).write_text(content)
        with pytest.raises(ConfigError, match="delete it and judge again"):
            kept.read(tmp_path)


def test_a_mistake_in_a_comparison_names_the_keys(tmp_path: Path) -> None:
    wrong = {key: value for key, value in comparison().model_dump().items() if key != "at_least"} | {"atleast": 1.0}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(claim().model_dump() | {"comparisons": [wrong]}))
    with pytest.raises(ConfigError, match=r"atleast.*did you mean at_least"):
        read_claim("mine", [tmp_path])


def test_commands_at_once_lose_no_verdict(runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = judge(claim(), runs, confidence=0.95)
    read = kept.read

    def slowly(folder: Path) -> dict[str, Judged]:
        found = read(folder)
        time.sleep(0.05)  # in which the others would write
        return found

    monkeypatch.setattr(kept, "read", slowly)
    names = [f"claim_{i}" for i in range(6)]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pool.starmap(kept.write, [(tmp_path, {name: judged}) for name in names], chunksize=1)
    assert sorted(read(tmp_path)) == names
    assert not (tmp_path / kept.LOCK).exists()


def test_a_command_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "PATIENCE", 0.05)
    with claiming(tmp_path / kept.LOCK), pytest.raises(Claimed, match="works on this run"):
        kept.write(tmp_path, {})
    kept.write(tmp_path, {})
    assert kept.read(tmp_path) == {}
