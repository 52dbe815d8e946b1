"""The contract of tasks as functions: each takes a TaskCase, and fails with an assertion.

They are run for every file of configs/task by test_tasks.py. DATA_CHECKS read the whole data set; QUICK_CHECKS need few
rows; TRAINING_CHECKS train or start processes.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from seqbench.build import build, locate
from seqbench.records.identity import without_paths
from tasks.base import Task
from tasks.candidates import CandidateTask
from tasks.classification import Classification
from tasks.data.base import Example
from tasks.data.blocks import Blocks
from tasks.data.pinned import CARDS, card
from tasks.forecasting import Forecasting
from tasks.labelling import Labelling
from tasks.language_modelling import LanguageModelling
from tasks.loading import Batching, sample_rows
from tasks.next_item import NextItem
from tasks.recognition import Recognition
from tasks.regression import Regression
from tasks.segmentation import Segmentation
from tasks.sequence_to_sequence import SequenceToSequence
from tests.arguments import arguments_of
from tests.contract.task_cases import (
    SPLITS,
    Counting,
    TaskCase,
    TaskCheck,
    canonical,
    content,
    plain,
    rows_of,
    run,
    tiny,
)


# -- the config and the constructor ------------------------------------------------------------------------------
def keys_are_the_arguments(case: TaskCase) -> None:
    def check(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                check(item)
        if not isinstance(node, dict):
            return
        if "_target_" in node:
            assert next(iter(node)) == "_target_", f"{node['_target_']}: _target_ stands first"
            parameters = arguments_of(locate(node["_target_"], "task", case.allowed))
            assert {p.kind for p in parameters.values()} <= {inspect.Parameter.KEYWORD_ONLY}, str(parameters)
            assert all(p.default is inspect.Parameter.empty for p in parameters.values()), str(parameters)
            assert set(node) - {"_target_"} == set(parameters), node["_target_"]
        for value in node.values():
            check(value)

    check(case.node)


def declares_what_it_is(case: TaskCase) -> None:
    task = case.whole
    assert task.version >= 1
    assert task.data.version >= 1
    assert task.data.modality
    names = [metric.name for metric in task.metrics]
    assert len(set(names)) == len(names)
    assert task.headline is task.metrics[0]
    for metric in task.metrics:
        assert metric.best in ("max", "min")
        assert metric.bounds[0] < metric.bounds[1]
        assert metric.aggregate(metric.statistics([], [])) != metric.aggregate(metric.statistics([], []))  # NaN
    facts = task.data.identity()
    assert all(len(fact.sha256) == 64 and fact.url and fact.name for fact in facts)


def its_config_has_an_id(case: TaskCase) -> None:
    """No name of a data set's own stands for what `paths` says to ids: which arguments lead to files."""
    for node in (case.node, case.node["data"]):
        target = locate(node["_target_"], "task", case.allowed)
        assert not callable(getattr(target, "paths", ())), f"{target.__name__}.paths names arguments"
    assert without_paths(case.node, case.allowed)["_target_"] == case.node["_target_"]


def its_outline_builds_the_plain_encoders(case: TaskCase) -> None:
    spec = case.whole.outline()
    for family in ("encoder_only", "decoder_only", "encoder_decoder", "gru"):
        with torch.device("meta"):
            encoder = build(plain(family), "encoder", ("encoders",), spec=spec)
        assert all(parameter.is_meta for parameter in encoder.parameters())


def its_outline_is_borne_out(case: TaskCase) -> None:
    outline, spec = case.whole.outline(), case.task.spec
    assert (outline.vocab_size is None) == (spec.vocab_size is None)
    assert set(outline.streams) == set(spec.streams)
    assert (outline.target_length > 0) == (spec.target_length > 0)


# -- data ----------------------------------------------------------------------------------------------------------
def splits_share_nothing_but_as_declared(case: TaskCase) -> None:
    overlap = case.read_once.inner.overlap
    contents = {split: set(found) for split, found in case.contents.items()}
    shared = {
        f"{a} and {b}": len(contents[a] & contents[b])
        for a, b in (("train", "valid"), ("train", "test"), ("valid", "test"))
        if contents[a] & contents[b]
    }
    assert bool(shared) == bool(overlap), f"shared: {shared}; declared: {overlap!r}"


def reads_the_same_twice_and_as_many_as_it_says(case: TaskCase) -> None:
    data, again = case.read_once.inner, case.data()
    facts = set(data.identity())
    cards = [card(path.stem) for path in CARDS.glob("*.yaml")]
    counts = [c.splits for c in cards if facts and facts <= set(c.files) and set(c.splits) == set(SPLITS)]
    for split in SPLITS:
        first = case.contents[split]
        assert first == [content(example) for example in again.read(split)]
        asked = case.small["data"].get(split)
        if type(asked) is int and not isinstance(case.whole, LanguageModelling):  # which counts characters
            assert len(first) == asked
        if counts and not isinstance(data, Blocks):  # of a document are many
            assert len(first) == counts[0][split]


# -- scores --------------------------------------------------------------------------------------------------------
def gold_predictions_are_perfect(case: TaskCase) -> None:
    for split in SPLITS[1:]:
        scores = case.task.score(split, gold(case.task, split))
        assert [score.metric for score in scores.values()] == case.task.metrics
        for score in scores.values():
            best = score.metric.bounds[score.metric.best == "max"]
            assert score.value == pytest.approx(best, abs=1e-6), score.metric.name
            assert score.n == len(case.task.references(split))
            assert all(len(column) == score.n for column in score.statistics.values())


def a_missing_row_raises(case: TaskCase) -> None:
    predictions = gold(case.task, "test")
    del predictions[len(predictions) - 1]
    with pytest.raises(ValueError, match=r"1 of .* rows have no prediction"):
        case.task.score("test", predictions)


def a_limit_scores_a_fixed_sample(case: TaskCase) -> None:
    predictions = gold(case.task, "test")
    rows = sample_rows(len(predictions), 2).tolist()
    scores = case.task.score("test", {row: predictions[row] for row in rows}, limit=2)
    assert all(score.n == 2 for score in scores.values())


def trivial_rules_are_pure_and_finite(case: TaskCase) -> None:
    task = case.task
    for rule in sorted(task.rules):
        predictions = task.trivial(rule, "test", 0)
        assert sorted(predictions) == list(range(len(task.references("test"))))
        assert canonical(sorted(predictions.items())) == canonical(sorted(task.trivial(rule, "test", 0).items()))
        for score in task.score("test", predictions).values():
            low, high = score.metric.bounds
            undefined = math.isnan(score.value) and score.metric.name in ("spearman", "pearson")  # of a constant
            assert undefined or low <= score.value <= high, (rule, score.metric.name, score.value)
    with pytest.raises(ValueError, match="no_such_rule"):
        task.trivial("no_such_rule", "test", 0)


def gold(task: Task, split: str) -> dict[int, Any]:
    """Predictions that are right: the references, but where a prediction is a rank."""
    if isinstance(task, NextItem | CandidateTask):
        return {
            row: {"rank": 1.0, "rank_uniform": 1.0, "rank_popularity": 1.0, "top": []}
            for row in range(len(task.references(split)))
        }
    return dict(enumerate(task.references(split)))


# -- with an encoder -----------------------------------------------------------------------------------------------
def batch_size_changes_nothing(case: TaskCase) -> None:
    task, encoder = case.task, case.encoder
    rows = rows_of(task, "test", 15)
    ones, alone = run(task, encoder, "test", rows, 1)
    sevens, together = run(task, encoder, "test", rows, 7)
    assert sum(o.items for o in ones) == sum(o.items for o in sevens) > 0
    mean = [sum(float(o.loss) * o.items for o in outputs) / sum(o.items for o in outputs) for outputs in (ones, sevens)]
    assert mean[0] == pytest.approx(mean[1], rel=1e-5, abs=1e-5)
    assert sorted(alone) == sorted(together) == rows.tolist()
    for row in alone:
        same(alone[row], together[row])


def predictions_are_for_evaluation_alone(case: TaskCase) -> None:
    task, encoder = case.task, case.encoder
    batch = task.collate("train", rows_of(task, "train", 3))
    try:
        task.train()
        output = task(encoder, batch)
        assert output.predictions == []
        assert output.loss.shape == ()
        assert output.loss.requires_grad
        assert torch.isfinite(output.loss)
    finally:
        task.eval()


def targets_change_no_prediction(case: TaskCase) -> None:
    if isinstance(case.whole, SequenceToSequence) and case.whole.search is None:
        pytest.skip("without a search a prediction is the likelihood of the target")
    rows = rows_of(case.task, "test", 7)
    changed = case.make(other_target)
    pairs = zip(case.task.examples["test"], changed.examples["test"], strict=True)
    assert any(canonical(a.target) != canonical(b.target) for a, b in pairs)
    changed.attach(case.encoder)
    changed.load_state_dict(case.task.state_dict())
    changed.eval()
    _, before = run(case.task, case.encoder, "test", rows, 7)
    _, after = run(changed, case.encoder, "test", rows, 7)
    for row in rows.tolist():
        same(without_rank(before[row]), without_rank(after[row]))


def other_target(task: Task, example: Example, neighbour: Example) -> Example:
    """The example with another target, as far as the kind allows."""
    if isinstance(task, CandidateTask):
        candidates = example.source[1]
        return replace(example, target=candidates[(candidates.index(example.target) + 1) % len(candidates)])
    if isinstance(task, Segmentation):
        return replace(example, target=np.roll(example.target, 1, axis=0))
    if isinstance(task, Labelling):
        turned = example.target
        return replace(
            example, target=np.roll(turned, 1) if isinstance(turned, np.ndarray) else [*turned[1:], turned[0]]
        )
    if isinstance(example.target, np.ndarray) and example.target.ndim == 2:  # a series, whose last rows no window reads
        target = example.target.copy()
        target[-1] += 1
        return replace(example, target=target)
    return replace(example, target=neighbour.target)


def without_rank(prediction: Any) -> Any:
    """A prediction without what says where the right answer is."""
    return prediction["top"] if isinstance(prediction, dict) and "rank" in prediction else prediction


def the_loss_begins_at_log_k(case: TaskCase) -> None:
    task = case.task
    if isinstance(task, Classification):
        classes = len(task.classes)
    elif isinstance(task, Labelling):
        classes = len(task.tags)
    else:
        assert isinstance(task, LanguageModelling)
        classes = task.tokenizer.vocab_size
    outputs, _ = run(task, case.encoder, "test", rows_of(task, "test", 20), 20)
    assert float(outputs[0].loss) == pytest.approx(math.log(classes), abs=0.15)


def accounting_is_of_what_is_fed(case: TaskCase) -> None:
    task, encoder = case.task, case.encoder
    for split in SPLITS:
        accounting = task.accounting(split)
        assert accounting.examples == len(task.lengths(split))
        assert 0 <= accounting.truncated <= accounting.examples
        if split != "train":
            assert accounting.dropped == 0
            assert accounting.examples == len(task.references(split))
    counting = Counting(encoder)
    try:
        task.train()  # sources and given targets, no decoding
        rows = np.arange(len(task.lengths("test")))
        with torch.no_grad():
            for start in range(0, len(rows), 8):
                task(counting, task.collate("test", rows[start : start + 8]))
    finally:
        task.eval()
    assert counting.seen == task.accounting("test").positions


# -- batches -------------------------------------------------------------------------------------------------------
def batches_hold_every_row_once(case: TaskCase) -> None:
    task = case.task
    size = len(task.lengths("valid"))
    longest = int(task.lengths("valid").max())
    for batching in (Batching(rows=7), Batching(tokens=3 * longest)):
        loader = task.loader("valid", batching=batching, seed=0, shuffle=True)
        seen = [row for batch in loader for row in batch.index.tolist()]
        assert sorted(seen) == list(range(size))


def the_order_is_a_function_of_seed_and_epoch(case: TaskCase) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        loader = case.task.loader("train", batching=Batching(rows=5), seed=seed, shuffle=True)
        loader.load_state_dict({"epoch": epoch, "position": 0})
        return [rows.tolist() for rows in loader.batches()]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def workers_and_resuming_change_no_batch(case: TaskCase) -> None:
    task = case.task

    def loader(workers: int) -> Any:
        made = task.loader("train", batching=Batching(rows=5), seed=3, shuffle=True, workers=workers)
        made.load_state_dict({"epoch": 2, "position": max(0, len(made) - 4)})
        return made

    def fields(batch: Any) -> list[bytes]:
        return [batch.index.numpy().tobytes(), batch.source.values.numpy().tobytes()]

    expected = [fields(batch) for batch in loader(0)]
    assert expected == [fields(batch) for batch in loader(2)]
    cut = loader(0)
    iterator = iter(cut)
    next(iterator), next(iterator)
    resumed = task.loader("train", batching=Batching(rows=5), seed=3, shuffle=True)
    resumed.load_state_dict(cut.state_dict())
    assert [fields(batch) for batch in resumed] == expected[2:]


# -- training ------------------------------------------------------------------------------------------------------
def eight_rows_are_overfitted(case: TaskCase) -> None:
    task = case.make()
    encoder = tiny(task.spec, dim=32)
    if isinstance(task, Segmentation):  # a state a square can't draw fine lines
        encoder = build(plain("transunet"), "encoder", ("encoders",), spec=task.spec)
    task.attach(encoder)
    batch = task.collate("train", rows_of(task, "train", 8))
    parameters = [*encoder.parameters(), *task.parameters()]
    rate = 1e-3 if isinstance(task, Forecasting) else 1e-2  # its head reads thousands of numbers at once
    optimizer = torch.optim.Adam(parameters, lr=rate)
    losses: list[float] = []
    while len(losses) < 60 and (not losses or losses[-1] > losses[0] / 2):
        loss = task(encoder, batch).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    assert losses[-1] <= losses[0] / 2, losses[::10]


def same(a: Any, b: Any) -> None:
    """Equal predictions, numbers up to 1e-5."""
    if isinstance(a, str | int | type(None)):
        assert a == b
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple) and any(isinstance(x, str | list | tuple | None) for x in a):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        np.testing.assert_allclose(np.asarray(a, dtype=float), np.asarray(b, dtype=float), rtol=1e-5, atol=1e-5)


DATA_CHECKS = [splits_share_nothing_but_as_declared, reads_the_same_twice_and_as_many_as_it_says]
QUICK_CHECKS = [
    its_outline_is_borne_out,
    gold_predictions_are_perfect,
    a_missing_row_raises,
    a_limit_scores_a_fixed_sample,
    trivial_rules_are_pure_and_finite,
    batch_size_changes_nothing,
    predictions_are_for_evaluation_alone,
    targets_change_no_prediction,
    the_loss_begins_at_log_k,
    accounting_is_of_what_is_fed,
    batches_hold_every_row_once,
    the_order_is_a_function_of_seed_and_epoch,
]
CONFIG_CHECKS = [
    keys_are_the_arguments,
    declares_what_it_is,
    its_config_has_an_id,
    its_outline_builds_the_plain_encoders,
]
TRAINING_CHECKS = [workers_and_resuming_change_no_batch, eight_rows_are_overfitted]
KINDS: dict[TaskCheck, tuple[type[Task], ...]] = {  # checks that are for some kinds only
    the_loss_begins_at_log_k: (Classification, Labelling, LanguageModelling),
    targets_change_no_prediction: (
        Classification,
        Forecasting,
        Labelling,
        NextItem,
        Recognition,
        Regression,
        CandidateTask,
        Segmentation,
        SequenceToSequence,
    ),  # in language modelling the source is the target
}
