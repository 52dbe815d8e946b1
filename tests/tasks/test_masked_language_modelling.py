"""Masked language modelling: BERT's shares, the same questions for every encoder, sums by hand, no leak of answers."""
# B batch, L positions, V vocabulary

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.base import Encoder, InputSpec, Sequences, States
from tasks.base import Task
from tasks.data.base import DataSet, Example, FileFact
from tasks.masked_language_modelling import MaskedLanguageModelling, Texts
from tasks.metrics.likelihood import Perplexity
from tasks.tokenizers import MASK, PAD, SPECIAL, Words

WORDS = [f"w{i}" for i in range(40)]


class Corpus(DataSet):
    """Random words; a document of 100 and one of 7."""

    modality = "text"

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None: ...

    def read(self, split: str) -> list[Example]:
        generator = np.random.default_rng(len(split))
        return [Example(source=" ".join(generator.choice(WORDS, size=n)), target=None) for n in (4000, 7)]


class Seen(Encoder):
    """Keeps what it was given; its states say nothing."""

    causal = False

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.dim, self.spec = 4, spec
        self.given: Tensor | None = None

    def forward(self, source: Sequences) -> States:
        self.given = source.values
        return States(values=torch.zeros(*source.values.shape, 4), mask=source.mask)


def make(share: float = 0.15) -> tuple[MaskedLanguageModelling, Seen]:
    task = MaskedLanguageModelling(
        data=Corpus(),
        tokenizer=Words(min_count=1, max_size=None),
        max_length=50,
        share=share,
        tie=False,
        metrics=[Perplexity()],
    )
    task.setup()
    encoder = Seen(task.spec)
    task.attach(encoder)
    for weight in task.head.parameters():
        torch.nn.init.zeros_(weight)
    return task, encoder


def given_to(task: Task, encoder: Seen, batch: Texts) -> Tensor:
    task(encoder, batch)
    assert encoder.given is not None
    return encoder.given


def test_rows_hold_every_token_once() -> None:
    task, _ = make()
    for split in ("train", "valid"):
        rows = task.rows[split]
        assert rows.lengths.tolist() == [50] * 80 + [7]
        words = " ".join(task.tokenizer.decode(rows[row].tolist()) for row in range(81)).split()
        assert words == " ".join(example.source for example in Corpus().read(split)).split()


def test_shares_are_berts() -> None:
    task, encoder = make()
    batch = task.collate("train", np.arange(80))
    torch.manual_seed(0)
    task.train()
    counts = np.zeros(3)
    asked = 0
    for _ in range(20):
        given = given_to(task, encoder, batch)
        masked = given == MASK
        other = ~masked & (given != batch.source.values)
        asked += task(encoder, batch).items
        counts += [int(masked.sum()), int(other.sum()), given.numel()]
    total = 20 * 80 * 50
    assert asked / total == pytest.approx(0.15, abs=0.005)
    assert counts[0] / total == pytest.approx(0.15 * 0.8, abs=0.005)
    assert counts[1] / total == pytest.approx(0.15 * 0.1 * 39 / 41, abs=0.002)  # another of 41 ids, UNK among them


def test_evaluation_asks_every_encoder_the_same_alone_or_in_a_batch() -> None:
    task, encoder = make()
    task.eval()
    whole = given_to(task, encoder, task.collate("test", np.arange(81)))
    again = given_to(task, encoder, task.collate("test", np.arange(81)))
    assert torch.equal(whole, again)
    for row in (3, 80):
        alone = given_to(task, encoder, task.collate("test", np.array([row])))
        assert torch.equal(alone[0], whole[row, : alone.shape[1]])
    assert not torch.equal(whole[:80], given_to(task, encoder, task.collate("valid", np.arange(80))))
    assert bool((whole[80, 7:] == PAD).all())
    drawn = {split: task.collate(split, np.array([3, 4])).draws for split in ("valid", "test")}
    assert not torch.equal(drawn["valid"], drawn["test"]), "each split has draws of its own"
    assert not torch.equal(drawn["test"][0], drawn["test"][1]), "and each row"


def test_losses_and_sums_are_of_the_chosen_alone() -> None:
    task, encoder = make()
    task.eval()
    batch = task.collate("test", np.arange(81))
    with torch.no_grad():
        output = task(encoder, batch)
    nats = math.log(task.tokenizer.vocab_size)  # of logits that are all 0
    assert float(output.loss) == pytest.approx(nats, rel=1e-6)
    assert [p[0] for p in output.predictions] == pytest.approx([nats * p[1] for p in output.predictions])
    assert sum(p[1] for p in output.predictions) == output.items
    assert [(0.0, *p[1:]) for p in output.predictions] == task.references("test")
    scores = task.score("test", dict(enumerate(output.predictions)))
    assert scores["perplexity"].value == pytest.approx(task.tokenizer.vocab_size, rel=1e-5)
    assert all(p[1] >= 1 for p in output.predictions), "a row of few words is asked for one"


class Two(Seen):
    """Two vectors of each token's own, whose log-probabilities are weighed."""

    outputs = 2

    def __init__(self, spec: InputSpec) -> None:
        super().__init__(spec)
        self.table = torch.nn.Embedding(spec.vocab_size or 0, 4)

    def forward(self, source: Sequences) -> States:
        super().forward(source)
        return States(values=self.table(source.values), mask=source.mask)

    def fuse(self, logits: Tensor, states: Tensor) -> Tensor:
        return 0.7 * logits[0].log_softmax(-1) + 0.3 * logits[1].log_softmax(-1)


def test_what_an_encoder_fuses_is_trained_as_it_is() -> None:
    """Not renormalised: the two cross-entropies, weighed."""
    task, _ = make()
    encoder = Two(task.spec)
    task.attach(encoder)
    batch = task.train().collate("train", np.arange(81))
    torch.manual_seed(0)
    loss = task(encoder, batch).loss
    torch.manual_seed(0)
    draws_BL3 = torch.rand(batch.draws.shape)
    chosen_BL = task.masking.choose(batch.source.values, draws_BL3[..., 0], batch.source.mask)
    assert encoder.given is not None
    states_MD, label_M = encoder.table(encoder.given)[chosen_BL], batch.source.values[chosen_BL]
    one, other = (F.cross_entropy(task.head.linear(part), label_M) for part in states_MD.chunk(2, dim=1))
    torch.testing.assert_close(loss, 0.7 * one + 0.3 * other)


def test_no_special_id_is_chosen_or_put_in_place_but_the_mask() -> None:
    task, encoder = make(share=0.9)
    torch.manual_seed(1)
    batch = task.collate("train", np.arange(81))
    given = given_to(task.train(), encoder, batch)
    real = batch.source.mask
    specials = set(range(len(SPECIAL))) - {1, MASK}
    assert not specials & set(given[real].tolist())
    assert bool((given[~real] == PAD).all())


def test_rules() -> None:
    task, _ = make()
    uniform = task.score("test", task.trivial("random", "test", 0))["perplexity"].value
    assert uniform == pytest.approx(len(WORDS) + 1, rel=1e-9)  # UNK, too
    assert task.score("test", task.trivial("majority", "test", 0))["perplexity"].value < uniform + 0.5
