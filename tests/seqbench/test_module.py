"""The module, the feed and the evaluation, each against a plain loop."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from encoders.base import Encoder, InputSpec
from seqbench import build, randomness
from seqbench.run import run
from seqbench.training import fit as fit_module
from seqbench.training.evaluation import Evaluator
from seqbench.training.feed import Feed, count_positions
from seqbench.training.fit import fit
from seqbench.training.health import Deadline
from seqbench.training.ledger import Progress
from seqbench.training.module import Module
from seqbench.training.optimizers import parameter_groups
from seqbench.training.progress import ignore
from seqbench.training.resume import Checkpoints, weights
from seqbench.training.schedules import factor
from tasks.base import Batch, Output
from tasks.loading import Batching, plan_batches, sample_rows
from tests.seqbench.toy import Hits, ToyBatch, ToyData, ToyEncoder, ToyTask
from tests.seqbench.toy_config import toy_config


def pair(rows: int = 42) -> tuple[ToyEncoder, ToyTask]:
    task = ToyTask(data=ToyData(rows=rows, seed=3), metrics=[Hits()], max_length=7)
    task.setup()
    torch.manual_seed(1)
    encoder = ToyEncoder(dim=12, dropout=0.2, spec=task.spec)
    task.attach(encoder)
    return encoder, task


def module_of(encoder: ToyEncoder, task: ToyTask, train: Any) -> Module:
    make = functools.partial(torch.optim.SGD, lr=0.1)
    return Module(encoder=encoder, task=task, train=train, optimizer=make, factor=lambda step: 1.0, accumulate=1)


@pytest.mark.parametrize("rows", [40, 42])  # all batches as large, and one of two rows
def test_training_is_a_plain_loop(rows: int, tmp_path: Any) -> None:
    """Batches, accumulation, clipping, schedule and dropout written out by hand: the same weights, bit for bit."""
    config = toy_config(tmp_path, {"budget.steps": 7, "budget.select": "last", "logger": {}})
    encoder, task = pair(rows)
    fit(
        config,
        task,
        encoder,
        checkpoints=Checkpoints(tmp_path),
        state=None,
        progress=Progress(),
        sinks=[],
        watch=ignore,
        deadline=Deadline(None),
    )

    plain_encoder, plain_task = pair(rows)
    both = torch.nn.ModuleDict({"encoder": plain_encoder, "task": plain_task}).train()
    optimizer = torch.optim.AdamW(parameter_groups(both), lr=0.03, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
    lengths = plain_task.lengths("train")
    randomness.seed_all(randomness.derive(0, "training"))
    steps = [
        rows
        for epoch in range(2)
        for rows in plan_batches(lengths, Batching(rows=8), seed=0, epoch=epoch, shuffle=True)
    ]
    for step in range(7):
        for group in optimizer.param_groups:
            group["lr"] = 0.03 * factor(step, steps=7, kind="cosine", warmup=0.1, floor=0.05)
        optimizer.zero_grad()
        parts = steps[step][0::2], steps[step][1::2]  # a step's batch is the same, however it is cut
        outputs = [plain_task(plain_encoder, plain_task.collate("train", part)) for part in parts]
        first, second = (output.items for output in outputs)
        loss = outputs[0].loss + outputs[1].loss * (second / first)  # uneven batches: a mean over rows, not of means
        (loss / (1 + second / first)).backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
    trained = weights(torch.nn.ModuleDict({"encoder": encoder, "task": task}))
    for name, value in weights(both).items():
        if rows == 40:
            assert torch.equal(trained[name], value), name
        torch.testing.assert_close(trained[name], value, rtol=1e-5, atol=1e-6)


class Tokens(ToyTask):
    """Its items are positions, and a batch's loss is their mean."""

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        assert isinstance(batch, ToyBatch)
        states = encoder(batch.source)
        logits_MK = self.head(states.values[states.mask])
        label_M = batch.label.unsqueeze(1).expand(states.mask.shape)[states.mask]
        loss = torch.nn.functional.cross_entropy(logits_MK, label_M) + sum(states.losses.values())
        return Output(loss=loss, items=len(label_M))


class Priced(ToyEncoder):
    """With an auxiliary loss that is a mean over positions."""

    def forward(self, source: Any) -> Any:
        states = super().forward(source)
        return replace(states, losses={"size": 0.1 * states.values[states.mask].square().mean()})


def gradients(cuts: list[list[int]], precision: Any = "32-true") -> list[torch.Tensor]:
    """Of one step over these batches of rows, before clipping would touch them."""
    task = Tokens(data=ToyData(rows=42, seed=3), metrics=[Hits()], max_length=7)
    task.setup()
    torch.manual_seed(1)
    encoder = Priced(dim=12, dropout=0.0, spec=task.spec)
    task.attach(encoder)
    make = functools.partial(torch.optim.SGD, lr=1.0)
    module = Module(
        encoder=encoder, task=task, train="all", optimizer=make, factor=lambda step: 1.0, accumulate=len(cuts)
    )
    before = weights(module)
    batches = [task.collate("train", np.array(rows)) for rows in cuts]
    with fit_module._quiet():
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            precision=precision,
            accumulate_grad_batches=len(cuts),
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, train_dataloaders=torch.utils.data.DataLoader(batches, batch_size=None))
    assert trainer.global_step == 1
    return [before[name] - value for name, value in weights(module).items()]


def test_parts_of_a_step_weigh_as_many_items_as_they_have() -> None:
    rows = list(range(16))
    whole = gradients([rows])
    assert max(float(gradient.abs().max()) for gradient in whole) > 0.01
    for cuts in ([rows[:4], rows[4:8], rows[8:12], rows[12:]], [rows[:1], rows[1:3], rows[3:5], rows[5:]]):
        for one, other in zip(gradients(cuts), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_frozen_encoder_stays_in_evaluation_mode() -> None:
    encoder, task = pair()
    module = module_of(encoder, task, "head")
    module.train()
    assert task.training
    assert not any(part.training for part in encoder.modules())
    assert {name for name, p in module.named_parameters() if p.requires_grad} == {"task.head.weight", "task.head.bias"}


def test_nothing_to_train_is_said() -> None:
    encoder, task = pair()
    task.requires_grad_(False)
    with pytest.raises(ValueError, match=r"protocol\.train: head leaves ToyTask no parameter to train; use all"):
        module_of(encoder, task, "head")


# -- feed --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("done", [0, 1, 10, 11, 12, 25])  # 11 batches an epoch
def test_feed_goes_on_where_it_stood(done: int) -> None:
    _, task = pair()

    def feed(count: int) -> Feed:
        return Feed(task.loader("train", batching=Batching(rows=4), seed=5, shuffle=True), count)

    straight = feed(30)
    rows = [batch.index.tolist() for batch in straight]
    first = feed(done)
    begun = [batch.index.tolist() for batch in first]
    second = feed(30 - done)
    second.load_state_dict(first.state_dict())
    assert begun + [batch.index.tolist() for batch in second] == rows
    for epoch in (rows[:11], rows[11:22]):
        assert sorted(row for batch in epoch for row in batch) == list(range(42))
    assert (second.real, second.padded) == (straight.real, straight.padded)
    assert second.loader.state_dict() == straight.loader.state_dict()


def test_feed_counts_positions() -> None:
    _, task = pair()
    feed = Feed(task.loader("train", batching=Batching(rows=4), seed=5, shuffle=True), 11)
    shapes = [batch.source.mask.shape for batch in feed]
    assert feed.real == task.lengths("train").sum()
    assert feed.padded == sum(b * length for b, length in shapes)
    assert 0 <= feed.waited < 5


# -- evaluation --------------------------------------------------------------------------------------------------------
def evaluator(encoder: ToyEncoder, task: ToyTask, tokens: int) -> Evaluator:
    return Evaluator(
        task=task,
        encoder=encoder,
        batching=Batching(tokens=tokens),
        device=torch.device("cpu"),
        precision=contextlib.nullcontext,
        workers=0,
        seed=0,
    )


@pytest.mark.parametrize("limit", [None, 3])
def test_evaluation_is_every_row_by_itself(limit: int | None) -> None:
    encoder, task = pair()
    encoder.train()
    task.head.train()
    task.eval()
    modes = [module.training for module in [*encoder.modules(), *task.modules()]]
    state = torch.get_rng_state()
    evaluation = evaluator(encoder, task, 20).run("valid", limit=limit)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in [*encoder.modules(), *task.modules()]] == modes
    encoder.eval()
    task.eval()
    with torch.no_grad():
        rows = sample_rows(14, limit).tolist()
        outputs = [task(encoder, task.collate("valid", np.array([row]))) for row in rows]
    assert evaluation.predictions == {row: out.predictions[0] for row, out in zip(rows, outputs, strict=True)}
    assert evaluation.loss == pytest.approx(sum(float(output.loss) for output in outputs) / len(outputs), rel=1e-5)


class Sampling(ToyTask):
    """Predicts at random, as a task does that samples."""

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        output = super().forward(encoder, batch)
        return replace(output, predictions=torch.rand(len(batch.index)).tolist())


def test_evaluation_that_draws_is_seeded_and_leaves_no_trace() -> None:
    encoder, _ = pair()
    task = Sampling(data=ToyData(rows=42, seed=3), metrics=[Hits()], max_length=7)
    task.setup()
    task.attach(encoder)
    state = torch.get_rng_state()
    one = evaluator(encoder, task, 20).run("valid").predictions
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert evaluator(encoder, task, 20).run("valid").predictions == one


def test_positions_of_a_batch() -> None:
    _, task = pair()
    rows = np.array([0, 1, 2])
    real, padded = count_positions(task.collate("train", rows))
    assert real == task.lengths("train")[rows].sum()
    assert padded == 3 * task.lengths("train")[rows].max()
    assert isinstance(task.spec, InputSpec)


# -- precision ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_evaluation_has_the_precision_of_training(
    precision: str, dtype: torch.dtype, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, forward = set(), ToyEncoder.forward

    def noting(self: ToyEncoder, source: Any) -> Any:
        seen.add((self.training, self.map(self.table(source.values)).dtype))
        return forward(self, source)

    monkeypatch.setattr(ToyEncoder, "forward", noting)
    monkeypatch.setattr(build, "probe", lambda encoder, spec: None)  # a look at the contract, in 32 bits
    changes = {"trainer.precision": precision, "budget.steps": 2, "budget.eval_every": 1}
    assert run(toy_config(tmp_path, changes)).record.status == "finished"
    assert seen == {(True, dtype), (False, dtype)}
