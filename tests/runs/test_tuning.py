"""Equal tuning: the same trials for every row, chosen by validation, resumed where they were; the test split unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from seqbench import tuning
from seqbench.build import PairError, build_task
from seqbench.config import RunConfig, check_config
from seqbench.errors import ConfigError
from seqbench.matching.match import moved, with_sizes
from seqbench.record import Record, TrialFacts
from seqbench.records.identity import run_id
from seqbench.records.store import Store
from seqbench.run import run
from seqbench.training.progress import Event
from tasks.data.base import DataError
from tests.seqbench.toy_cli import Toy
from tests.seqbench.toy_config import toy_config
from tests.seqbench.toy_watched import Watched

LR = {"low": 1e-3, "high": 0.1, "log": True}
TUNE = {"trials": 4, "sampler": "random", "seed": 5, "space": {"optimizer.lr": LR}}
SHORT = {"budget.steps": 6, "budget.eval_every": 3, "logger": {}}


def config_of(folder: Path, changes: dict[str, Any] | None = None, **tune: Any) -> RunConfig:
    given = SHORT | {"tune": TUNE | tune, "allowed": ["tests", "encoders", "torch.optim"]}
    return toy_config(folder, given | (changes or {}))


def trial_records(folder: Path) -> list[Record]:
    (row,) = (folder / tuning.FOLDER).iterdir()
    records, damages = Store(row).all()
    assert not damages
    return records


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The record of a tuned run."""
    record = run(config_of(tmp_path_factory.mktemp("tuned"))).record
    assert record.status == "finished"
    return record


def trials_of(record: Record) -> list[TrialFacts]:
    assert record.tuning is not None
    return record.tuning.trials


def test_all_trials_are_in_the_record_and_the_best_by_validation_was_run(tuned: Record) -> None:
    trials = trials_of(tuned)
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert tuned.tuning is not None
    values = [trial.value for trial in trials]
    assert None not in values
    assert values[tuned.tuning.chosen] == max(v for v in values if v is not None)
    assert tuned.tuning.chosen == values.index(max(v for v in values if v is not None))
    lr = trials[tuned.tuning.chosen].settings["optimizer.lr"]
    assert tuned.config["optimizer"]["lr"] == lr
    assert tuned.config["tune"]["chosen"] == {"optimizer.lr": lr}
    assert len({trial.settings["optimizer.lr"] for trial in trials}) == 4
    assert all(1e-3 <= trial.settings["optimizer.lr"] <= 0.1 for trial in trials)


def test_trials_are_ordinary_runs_without_a_test_split(tuned: Record, tmp_path: Path) -> None:
    records = trial_records(Path(tuned.config["results"]))
    assert {record.id for record in records} == {trial.id for trial in trials_of(tuned)}
    for record in records:
        assert set(record.scores) == set(record.splits) - {"train"} == {"valid"}
        assert record.predictions is None
        assert record.checkpoint is None
    first = trials_of(tuned)[0]
    plain = toy_config(tmp_path, SHORT | {"optimizer.lr": first.settings["optimizer.lr"], "seed": 5})
    again = run(plain).record
    assert again.id == first.id
    assert again.scores["valid"]["hits"].value == first.value


def test_the_test_split_is_not_read_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"task.data": {"_target_": "tests.seqbench.toy_watched.Watched", "rows": 42, "seed": 3}}
    monkeypatch.setattr(Watched, "trap", True)
    match = {"budget.match": "params", "budget.target": 400, "budget.tolerance": 0.1}
    Watched.read_so_far.clear()
    with pytest.raises(DataError, match="the test split was touched"):
        run(config_of(tmp_path, data | match))
    assert Watched.read_so_far.count("test") == 1
    assert Watched.read_so_far[-1] == "test"
    records = trial_records(tmp_path)
    assert len(records) == 4
    assert all(record.status == "finished" and "valid" in record.scores for record in records)


def test_every_row_and_seed_has_the_same_trials(tuned: Record) -> None:
    folder = Path(tuned.config["results"])
    before = {record.id: record.ended for record in trial_records(folder)}
    other_seed = run(config_of(folder, {"seed": 1})).record
    assert other_seed.id != tuned.id
    assert trials_of(other_seed) == trials_of(tuned)
    assert {record.id: record.ended for record in trial_records(folder)} == before
    other_row = run(config_of(folder / "other", {"encoder.dim": 9})).record
    assert [t.settings for t in trials_of(other_row)] == [t.settings for t in trials_of(tuned)]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_killed_in_the_middle_only_what_is_missing_is_run(tmp_path: Path, sampler: str) -> None:
    seen: list[int] = []

    def stop(event: Event) -> None:
        if event.kind == "start":
            seen.append(1)
        if len(seen) == 3 and event.kind == "step" and event.step == 5:
            raise KeyboardInterrupt

    config = config_of(tmp_path / "cut", sampler=sampler)
    with pytest.raises(KeyboardInterrupt):
        run(config, watch=stop)
    done = {record.id: record.ended for record in trial_records(tmp_path / "cut") if record.status == "finished"}
    assert len(done) == 2
    starts: list[int] = []
    cut = run(config, watch=lambda event: starts.append(event.step) if event.kind == "start" else None).record
    assert starts == [5, 0, 0]  # the third from where it was stopped, the fourth, the run itself
    whole = run(config_of(tmp_path / "whole", sampler=sampler)).record

    def facts(record: Record) -> list[Any]:
        return [(t.number, t.settings, t.value, t.id) for t in trials_of(record)]

    assert facts(cut) == facts(whole)
    assert cut.checkpoint == whole.checkpoint


def test_more_trials_begin_with_those_there_are(tuned: Record) -> None:
    more = run(config_of(Path(tuned.config["results"]), trials=6)).record
    assert trials_of(more)[:4] == trials_of(tuned)
    assert len(trials_of(more)) == 6


def test_the_id_counts_the_search_and_not_what_was_found(tuned: Record, tmp_path: Path) -> None:
    def of(changes: dict[str, Any] | None = None, **tune: Any) -> str:
        config = config_of(tmp_path, changes, **tune)
        return run_id(config, build_task(config))

    assert of() == tuned.id == of({"optimizer.lr": 0.5})
    plain = toy_config(tmp_path, SHORT)
    others = [of(trials=5), of(seed=6), of(sampler="tpe"), of(space={"optimizer.lr": LR | {"low": 1e-4}})]
    assert len({tuned.id, run_id(plain, build_task(plain)), *others}) == 6


def test_the_record_alone_makes_the_run_again_without_trials(tuned: Record, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    again = check_config(
        tuned.config | {"results": str(tmp_path)},
        config.names,
        [],
        allowed=["tests", "encoders", "torch"],
        found=True,
    )
    record = run(again).record
    assert record.id == tuned.id
    assert record.scores == tuned.scores
    assert record.checkpoint == tuned.checkpoint
    assert not (tmp_path / tuning.FOLDER).exists()


@pytest.mark.parametrize("chosen", ["{optimizer.lr: 0.5}", "{}", "{optimizer.lr: 0.03}", "3"])
def test_what_is_chosen_cannot_be_typed(toy: Toy, chosen: str) -> None:
    words = ["tune=random", "tune.trials=2", f"+tune.chosen={chosen}"]
    for more in ([], ["-m", "seed=0,1"]):
        found = toy(*words, *more)
        assert found.code == 2, found.out
        assert "tune.chosen: " in found.err
        assert "can't be given" in found.err
        assert len(found.err.strip().splitlines()) <= 2
        assert not toy.left
    assert "tune:" in toy("tune=random", "+tune.chosen=null", "--cfg", "job").out


def test_what_is_chosen_cannot_stand_in_a_file(toy: Toy) -> None:
    tune = {"trials": 64, "sampler": "random", "seed": 0, "space": {"optimizer.lr": LR}, "chosen": {}}
    toy.write("experiment/sly.yaml", "# @package _global_\n" + yaml.safe_dump({"tune": tune}))
    found = toy("experiment=sly")
    assert found.code == 2, found.out
    assert "tune.chosen: {} can't be given" in found.err
    assert not toy.left


@pytest.mark.parametrize("chosen", [{"optimizer.lr": 0.5}, {}, {"optimizer.lr": 0.03, "optimizer.eps": 1e-8}])
def test_what_a_record_says_was_chosen_is_what_it_has(tmp_path: Path, chosen: dict[str, float]) -> None:
    config = config_of(tmp_path)
    tree = config.resolved()
    assert tree["optimizer"]["lr"] == 0.03
    assert tree["optimizer"]["eps"] == 1e-8
    tree["tune"]["chosen"] = chosen
    with pytest.raises(ConfigError, match=r"^tune\.chosen: "):
        run(check_config(tree, config.names, [], allowed=config.allowed, found=True))
    assert not list(tmp_path.iterdir())


def test_a_record_without_trials_is_none_of_a_tuned_run(tuned: Record, tmp_path: Path) -> None:
    config = config_of(tmp_path, {"optimizer.lr": 0.5}, trials=2)
    folder = tmp_path / run_id(config, build_task(config))
    false = tuned.model_copy(update={"id": folder.name, "tuning": None})
    for status in ("finished", "diverged", "failed"):
        Store(tmp_path).write(false.model_copy(update={"status": status}))
        made = run(config)
        assert not made.skipped
        assert len(trials_of(made.record)) == 2
    assert run(config).skipped
    killed = false.model_copy(update={"status": "killed", "reason": "the process was killed (signal 9)"})
    Store(tmp_path).write(killed)  # who writes it for the dead knows no trials, and `rerun=never` leaves it
    assert run(config).skipped


def test_a_trial_that_fails_is_told_and_passed_over(tmp_path: Path) -> None:
    choices = {"choices": [0.1, 1e30]}
    record = run(config_of(tmp_path, {"trainer.clip": None}, space={"optimizer.lr": choices}, trials=5)).record
    trials = trials_of(record)
    bad = [trial for trial in trials if trial.settings["optimizer.lr"] > 1]
    assert bad
    assert all(t.status == "diverged" and t.value is None and "loss" in (t.reason or "") for t in bad)
    assert record.config["optimizer"]["lr"] == 0.1


def test_equal_scores_go_to_the_earlier_trial() -> None:
    def trial(number: int, value: float | None) -> TrialFacts:
        return TrialFacts(number=number, settings={}, status="finished", value=value)

    trials = [trial(0, None), trial(1, 0.2), trial(2, 0.9), trial(3, 0.9), trial(4, 0.2)]
    best, least = tuning.best_of(trials, "max"), tuning.best_of(trials, "min")
    assert best is not None
    assert least is not None
    assert (best.number, least.number) == (2, 1)
    assert tuning.best_of([trial(0, None)], "max") is None


def test_floors_are_not_tuned(tmp_path: Path) -> None:
    trivial = {"encoder": {"_target_": "encoders.trivial.Trivial", "rule": "majority"}}
    record = run(config_of(tmp_path, trivial)).record
    assert record.status == "finished"
    assert record.tuning is None
    assert not (tmp_path / tuning.FOLDER).exists()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"budget.steps": {"low": 1, "high": 5, "whole": True}}, r"tune\.space: budget\.steps can't be tuned"),
        ({"task.max_length": {"choices": [5, 7]}}, r"tune\.space: task\.max_length can't be tuned"),
        ({"optimizer.lr": {"choices": ["fast"]}}, r"optimizer\.lr: 'fast'"),
        ({"encoder.dropout": {"low": 0.0, "high": 1.5}}, r"encoder\.dropout"),
    ],
)
def test_a_search_space_is_held_against_the_config(tmp_path: Path, space: dict[str, Any], message: str) -> None:
    config = config_of(tmp_path, space=space)
    with pytest.raises(ConfigError, match=message):
        tuning.check(config)


def test_a_row_without_a_key_of_the_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PairError, match=r"encoder toy has no encoder\.heads, and every row has the same"):
        tuning.check(config_of(tmp_path, space={"encoder.heads": {"choices": [2, 4]}}))


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ({"low": 1.0}, "give a smaller and a larger number"),
        ({"low": 2.0, "high": 1.0}, "give a smaller and a larger number"),
        ({"low": 0.0, "high": 1.0, "log": True}, "no logarithm"),
        ({"choices": [1], "low": 2.0}, "stand alone"),
        ({"low": 0.5, "high": 2.0, "whole": True}, "not both whole"),
    ],
)
def test_what_is_no_dimension(tmp_path: Path, dimension: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(tmp_path, space={"optimizer.lr": dimension})


# -- with a match --------------------------------------------------------------------------------------------------
WIDE = {"_target_": "tests.runs.test_match.Wide", "size": 8, "inner": 16, "depth": 2}


@pytest.mark.parametrize(
    ("of", "space", "message"),
    [
        ("params", {"encoder.size": {"choices": [8, 16]}}, r"encoder\.size is what budget\.match solves"),
        ("params", {"encoder.depth": {"low": 2, "high": 4, "whole": True}}, r"holds equal \(encoder\.depth=4 comes to"),
        ("latency", {"encoder.size": {"choices": [8, 16]}}, r"encoder\.size is what budget\.match solves"),
    ],
)
def test_a_size_that_is_tuned_is_refused_before_any_trial(
    tmp_path: Path, of: str, space: dict[str, Any], message: str
) -> None:
    match = {"encoder": WIDE, "budget.match": of, "budget.target": 4000 if of == "params" else 0.05}
    config = config_of(tmp_path, match | {"budget.tolerance": 0.1 if of == "params" else 100.0}, space=space)
    with pytest.raises(ConfigError, match=r"tune\.space: .*" + message):
        run(config)
    assert not (tmp_path / tuning.FOLDER).exists()


def test_sizes_beside_a_latency_are_told_by_their_operations(tmp_path: Path) -> None:
    budget = {"budget.match": "latency", "budget.target": 5.0}
    config = with_sizes(config_of(tmp_path, {"encoder": WIDE, **budget}), {"encoder.size": 8})
    nodes = {str(depth): WIDE | {"depth": depth} for depth in (1, 2, 4)} | {"none": WIDE | {"size": 7}}
    assert set(moved(config, nodes)) == set()  # layers that the toy does not use: no operations
    assert set(moved(config, {"12": WIDE | {"size": 12}})) == {"12"}


def test_what_keeps_the_size_can_be_tuned_with_a_match(tmp_path: Path) -> None:
    match = {"budget.match": "params", "budget.target": 400, "budget.tolerance": 0.1}
    record = run(config_of(tmp_path, match, trials=2, space={"encoder.dropout": {"choices": [0.0, 0.3]}})).record
    assert record.status == "finished"
    dims = {one.config["encoder"]["dim"] for one in [record, *trial_records(tmp_path)]}
    assert dims == {record.config["budget"]["matched"]["encoder.dim"]}
