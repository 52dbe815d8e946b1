"""Distillation: which distribution teaches which step, what the loss is, and that the teacher stays what it is."""
# B rows, T positions, V vocabulary

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Decoder, Sequences, States
from seqbench.library import load_encoder, load_task
from tasks.distillation import Distillation, kl
from tasks.sequence_to_sequence import SequenceToSequence

SIZES = {"pairs": 3, "symbols": 12, "train": 30, "valid": 8, "test": 8}
SMALL = {"dim": 24, "hidden": 16, "dropout": 0.0, "layer": {"attention": {"head_dim": 4, "dropout": 0.0}}}


class LastToken(Decoder):
    """States are one-hot of the token read last: with a matrix as a head, a table look-up."""

    causal = True

    def __init__(self, size: int) -> None:
        super().__init__()
        self.dim = size

    def forward(self, source: Sequences) -> States:
        return States(values=F.one_hot(source.values, self.dim).float(), mask=source.mask)

    def prefill(self, source: Sequences) -> States:
        return self(source)

    def decode(self, target: Sequences, before: States) -> States:
        return self(target)


def pupil(name: str = "return_of_encoder", **changes: Any) -> tuple[Distillation, Decoder]:
    task = load_task("needle_list_taught", data=SIZES, max_length=16, **{"alpha": 0.9, **changes})
    assert isinstance(task, Distillation)
    task.setup()
    torch.manual_seed(1)
    encoder = load_encoder(name, task.spec, **SMALL)
    assert isinstance(encoder, Decoder)
    task.attach(encoder)
    return task, encoder


def teacher(task: Distillation, encoder: Decoder | None = None) -> tuple[Decoder, SequenceToSequence]:
    """A random one, or a given encoder; its task with its head."""
    theirs = load_task("needle_list", data=SIZES, max_length=16, tie=encoder is None)
    assert isinstance(theirs, SequenceToSequence)
    theirs.setup()
    torch.manual_seed(2)
    made = encoder or load_encoder("return_of_encoder_causal", task.spec, **SMALL)
    assert isinstance(made, Decoder)
    theirs.attach(made)
    return made, theirs


def batch_of(task: Distillation) -> Any:
    return task.collate("train", np.arange(6))


def test_each_step_is_taught_by_what_the_teacher_says_after_the_same_tokens() -> None:
    """A table of the last token: the row of BOS at first, then that of each token that was drawn."""
    task, encoder = pupil()
    size = task.tokenizer.vocab_size
    made, theirs = teacher(task, LastToken(size))
    task.learn_from(made, theirs)
    batch = batch_of(task)
    read = task.drawn(encoder, batch.source)
    assert read.values[:, 0].tolist() == [task.tokenizer.specials.bos] * 6
    found_MV = task.taught(batch.source, read)
    table_VV = theirs.head(torch.eye(size), made)
    assert torch.allclose(found_MV, table_VV[read.values[read.mask]])
    assert len(read.values[read.mask].unique()) > 3


@pytest.mark.parametrize("samples", ["own", "targets"])
def test_the_loss_is_that_of_the_equation(samples: str) -> None:
    task, encoder = pupil(alpha=0.7, samples=samples)
    made, theirs = teacher(task)
    task.learn_from(made, theirs)
    batch = batch_of(task)
    task.train()
    torch.manual_seed(5)
    loss = task(encoder, batch).loss
    torch.manual_seed(5)
    read = task.drawn(encoder, batch.source) if samples == "own" else batch.target
    total, tokens = 0.0, 0
    for row in range(6):  # one by one, without padding
        ids = read.values[row][read.mask[row]].unsqueeze(0)
        one = Sequences(values=ids, mask=torch.ones_like(ids, dtype=torch.bool))
        real = batch.source.mask[row].sum()
        source = Sequences(
            values=batch.source.values[row : row + 1, :real], mask=batch.source.mask[row : row + 1, :real]
        )
        p, q = (
            head(model.decode(one, model.prefill(source)).values[0], model).double().softmax(1)
            for model, head in ((made, theirs.head), (encoder, task.head))
        )
        total += float((p * (p / q).log()).sum().detach())
        tokens += len(p)
    gold = super(Distillation, task).forward(encoder, batch).loss
    assert float(loss.detach()) == pytest.approx(0.7 * total / tokens + 0.3 * float(gold.detach()), rel=1e-4)
    assert total > 0.01


def test_the_targets_part_is_as_untaught() -> None:
    """Smoothed; of an encoder that fuses two log-probabilities, not renormalised; and with the encoder's own losses."""
    task, _ = pupil(alpha=0.6, samples="targets", label_smoothing=0.1)
    torch.manual_seed(1)
    encoder = load_encoder("surface_fusion", task.spec, dim=24, hidden=16, dropout=0.0, decoder_depth=1, gate=0.3)
    assert isinstance(encoder, Decoder)
    task.attach(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(3)
    task.learn_from(*teacher(task))
    task.train()
    batch = batch_of(task)
    gold = super(Distillation, task).forward(encoder, batch).loss
    states = encoder.decode(batch.target, encoder.prefill(batch.source)).values[batch.target.mask]
    scores, label = task.head(states, encoder), batch.label[batch.target.mask]
    assert abs(float((gold - F.cross_entropy(scores, label, label_smoothing=0.1)).detach())) > 1e-3
    assert abs(float((gold - task.head.loss(scores, label, encoder, smoothing=0.0)).detach())) > 1e-3
    expected = 0.6 * kl(task.taught(batch.source, batch.target), scores) + 0.4 * gold
    assert float(task(encoder, batch).loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_encoders_own_losses_are_added_once() -> None:
    task, encoder = pupil(alpha=0.6, samples="own")
    task.learn_from(*teacher(task))
    task.train()
    batch = batch_of(task)

    def loss() -> float:
        torch.manual_seed(4)
        return float(task(encoder, batch).loss.detach())

    plain = loss()
    prefill, decode = encoder.prefill, encoder.decode
    with (
        mock.patch.object(encoder, "prefill", lambda x: replace(prefill(x), losses={"a": torch.tensor(2.0)})),
        mock.patch.object(encoder, "decode", lambda x, s: replace(decode(x, s), losses={"b": torch.tensor(0.5)})),
    ):
        assert loss() == pytest.approx(plain + 2.5, rel=1e-5)


def test_the_teacher_gets_no_gradient_and_is_no_part_of_the_task() -> None:
    task, encoder = pupil()
    made, theirs = teacher(task)
    task.learn_from(made, theirs)
    names = {name for name, _ in task.named_parameters()}
    task.train()
    encoder.train()
    task(encoder, batch_of(task)).loss.backward()
    assert all(p.grad is None for p in [*made.parameters(), *theirs.parameters()])
    assert not made.training
    assert names == {"head.bias"} == set(task.state_dict())
    assert all(module.training for module in encoder.modules())
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("samples", ["own", "targets"])
def test_what_the_teacher_says_is_learnt(samples: str) -> None:
    """With no part of the targets in the loss, its gradient is that of the divergence."""
    task, encoder = pupil(alpha=1.0, samples=samples)
    task.learn_from(*teacher(task))
    task.train()
    batch, table = batch_of(task), encoder.token_embedding
    assert table is not None
    torch.manual_seed(6)
    (found,) = torch.autograd.grad(task(encoder, batch).loss, [table])
    torch.manual_seed(6)
    read = task.drawn(encoder, batch.source) if samples == "own" else batch.target
    states = encoder.decode(read, encoder.prefill(batch.source)).values[read.mask]
    (expected,) = torch.autograd.grad(kl(task.taught(batch.source, read), task.head(states, encoder)), [table])
    assert torch.allclose(found, expected, atol=1e-7)
    assert float(expected.norm()) > 1e-3


def test_draws_are_answers_of_the_pupil_and_others_each_time() -> None:
    task, encoder = pupil()
    batch = batch_of(task)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    encoder.train()
    drawn = [task.drawn(encoder, batch.source) for _ in range(8)]
    assert len({tuple(one.values.flatten().tolist()) for one in drawn}) > 4
    torch.manual_seed(3)
    first = task.drawn(encoder, batch.source).values
    torch.manual_seed(3)
    assert torch.equal(first, task.drawn(encoder, batch.source).values)
    torch.manual_seed(3)
    assert torch.equal(first, task.drawn(encoder.eval(), batch.source).values)  # so it was without dropout
    longest = max(one.values.shape[1] for one in drawn)
    assert longest <= task.spec.target_length
    greedy, _ = pupil(top_k=1)
    best = greedy.drawn(encoder.eval(), batch.source)
    found = greedy.found(encoder, batch.source)
    assert [row[mask].tolist()[1:] for row, mask in zip(best.values, best.mask, strict=True)] == [
        h.ids if h.finished else h.ids[:-1] for h in found
    ]


def test_a_finished_draw_is_fed_whole_and_one_without_an_end_lacks_its_last() -> None:
    """So that what follows each token that is fed is one that was drawn, the end among them."""
    task, encoder = pupil(max_target_length=4)
    eos, wanted = task.tokenizer.specials.eos, task.search
    source = task.collate("train", np.arange(30)).source
    with torch.no_grad():
        task.head.bias[eos] += 1.0
    draws: list[Any] = []
    found = task.found
    with mock.patch.object(task, "found", lambda *given: draws.append(found(*given)) or draws[-1]):
        read = task.drawn(encoder, source)
    (drawn,) = draws
    assert {one.finished for one in drawn} == {True, False}
    assert len({len(one.ids) for one in drawn if one.finished}) > 1
    for values, mask, one in zip(read.values, read.mask, drawn, strict=True):
        said = [*one.ids, eos] if one.finished else one.ids
        assert values[mask].tolist() == [task.tokenizer.specials.bos, *said[:-1]]
    assert task.search is wanted  # which tests it


def test_a_low_temperature_draws_what_is_most_probable() -> None:
    cold, encoder = pupil(temperature=1e-4, top_k=None)
    greedy, _ = pupil(temperature=1e4, top_k=1)
    greedy.head.load_state_dict(cold.head.state_dict())
    source = batch_of(cold).source
    one, other = cold.drawn(encoder, source), greedy.drawn(encoder, source)
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.mask, other.mask)
    warm, _ = pupil(temperature=5.0, top_k=None)
    assert any(not torch.equal(warm.drawn(encoder, source).values, one.values) for _ in range(5))


def test_kl_is_forward_and_nothing_where_both_agree() -> None:
    teacher_MV, pupil_MV = torch.randn(2, 7, 11).unbind(0)
    p, q = teacher_MV.double().softmax(1), pupil_MV.double().softmax(1)
    assert float(kl(teacher_MV, pupil_MV)) == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-5)
    assert abs(float(kl(teacher_MV, teacher_MV + 3))) < 1e-6


def test_at_alpha_0_and_outside_training_it_is_sequence_to_sequence() -> None:
    plain, encoder = pupil(alpha=0.0)
    batch = batch_of(plain)
    task, _ = pupil()
    made, theirs = teacher(task)
    task.learn_from(made, theirs)
    expected: Tensor = plain.train()(encoder, batch).loss
    assert torch.equal(expected, super(Distillation, plain).forward(encoder, batch).loss)
    assert torch.equal(task.eval()(encoder, batch).loss, plain.eval()(encoder, batch).loss)
    with pytest.raises(ValueError, match=r"task\.alpha: above 0, without a teacher"):
        pupil()[0].train()(encoder, batch)


def test_another_vocabulary_is_refused() -> None:
    task, _ = pupil()
    other = load_task("needle_list", data={**SIZES, "symbols": 13}, max_length=16)
    other.setup()
    made, _ = teacher(task)
    with pytest.raises(ValueError, match="not the same as the pupil's"):
        task.learn_from(made, other)
