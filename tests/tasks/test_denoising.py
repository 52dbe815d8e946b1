"""Denoising: rows and noise of every split, what the decoder reads and tells, sums by hand, a copy that is learnt."""
# B batch, T positions, V vocabulary

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encoders.base import Decoder, Encoder
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.denoising import Denoising
from tasks.loading import Batching
from tasks.metrics.likelihood import Perplexity
from tasks.metrics.translation import Bleu
from tasks.noise import Noise
from tasks.search import Greedy
from tasks.sequence_to_sequence import SequenceToSequence
from tasks.specials import Frame, Specials
from tasks.tokenizers import BOS, EOS, MASK, Words

WORDS = [f"w{i}" for i in range(30)]


@pytest.fixture(autouse=True)
def _vocabularies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


class Corpus(DataSet):
    """Random words with a full stop after each fifth: a text of 200 words, a pair of 30, one of 4."""

    modality = "text"

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None: ...

    def read(self, split: str) -> list[Example]:
        generator = np.random.default_rng(len(split))

        def text(n: int) -> str:
            return " ".join("." if i % 5 == 4 else str(generator.choice(WORDS)) for i in range(n))

        return [Example(source=source, target=None) for source in (text(200), (text(30), text(30)), text(4))]


class Framed(Words):
    """With the frame of BART's own tokeniser, and its start of a decoder."""

    specials = Specials(pad=0, unk=1, bos=3, eos=3, sep=3, mask=5)  # </s> of BART begins what is told, and ends it

    def frame(self, parts: int) -> Frame:
        return Frame(before=(2,), after=(3,))


def make(kind: str = "infill", max_length: int = 21, tokenizer: Words | None = None, **changes: Any) -> Denoising:
    settings = {"share": 0.3, "mean": 3.0, "random": 0.0, "sentences": 1.0, "whole_words": True}
    task = Denoising(
        data=Corpus(),
        tokenizer=tokenizer or Words(min_count=1, max_size=None),
        noise=Noise(kind=kind, **(settings | changes)),
        max_length=max_length,
        tie=True,
        metrics=[Perplexity()],
    )
    task.setup()
    return task


def encoder_for(task: Any, dim: int = 32) -> Encoder:
    torch.manual_seed(0)
    changes: dict[str, Any] = {"dim": dim, "depth": 1, "heads": 2, "hidden": 2 * dim, "dropout": 0.0}
    changes["layer"] = {"attention": {"dropout": 0.0}, "feed_forward": {"dropout": 0.0}}
    encoder = build(compose_node("encoder", "bart", changes=changes), "encoder", ("encoders",), spec=task.spec)
    assert isinstance(encoder, Encoder)
    task.attach(encoder)
    return encoder


def test_rows_hold_every_token_once_and_the_decoder_tells_them_all() -> None:
    task = make()
    for split in ("train", "valid"):
        lengths = [20] * 10 + [20, 10, 20, 10, 4]
        assert task.texts[split].lengths.tolist() == lengths
        batch = task.collate(split, np.arange(15))
        for row, length in enumerate(lengths):
            text = task.texts[split][row].tolist()
            assert batch.target.values[row, : length + 1].tolist() == [BOS, *text]
            assert batch.label[row, : length + 1].tolist() == [*text, EOS]
            source = batch.source.values[row][batch.source.mask[row]].tolist()
            assert source[-1] == EOS
            assert MASK in source[:-1]
            rest = iter(text)
            assert all(token in rest for token in source[:-1] if token != MASK)
    assert task.spec.target_length == task.spec.max_length == 21


def test_words_of_the_test_split_alone_are_unknown() -> None:
    class Other(Corpus):
        def read(self, split: str) -> list[Example]:
            return [Example(source="w1 w2 ." if split == "train" else "w1 new .", target=None)]

    task = make("none")
    task.data = Other()
    task.setup()
    assert task.tokenizer.specials.unk in task.texts["test"][0].tolist()
    assert task.accounting("test").truncated == 1
    assert task.accounting("train").truncated == 0


def test_with_barts_frame_rows_are_barts() -> None:
    task = make("none", tokenizer=Framed(min_count=1, max_size=None))
    batch = task.collate("valid", np.array([0]))
    text = task.texts["valid"][0].tolist()
    assert len(text) == 19
    assert batch.source.values[0].tolist() == [2, *text, 3]
    assert batch.target.values[0].tolist() == [3, 2, *text]
    assert batch.label[0].tolist() == [2, *text, 3]


def test_rows_are_so_short_that_insertions_fit() -> None:
    task = make("insert")
    assert task.texts["train"].lengths.max() == 15
    assert task.collate("train", np.arange(3)).source.values.shape[1] == 21
    wild = make("infill", mean=0.2, share=1.0)
    assert wild.sources["train"].lengths.max() == 21  # many spans of none: cut


def test_training_draws_anew_and_evaluation_never() -> None:
    task = make()
    rows = np.arange(15)

    def sources(split: str, epoch: int) -> list[list[int]]:
        loader = task.loader(split, batching=Batching(rows=4), seed=0, shuffle=False)
        loader.load_state_dict({"epoch": epoch, "position": 0})
        found = {}
        for batch in loader:
            for row, ids, mask in zip(batch.index.tolist(), batch.source.values, batch.source.mask, strict=True):
                found[row] = ids[mask].tolist()
        return [found[row] for row in rows]

    assert sources("train", 0) == sources("train", 0)
    assert sum(a != b for a, b in zip(sources("train", 0), sources("train", 1), strict=True)) > 8
    assert sources("test", 0) == sources("test", 1)
    alone = task.collate("test", np.array([14])).source.values
    assert torch.equal(task.collate("test", rows).source.values[14, : alone.shape[1]], alone[0])
    task.examples = {split: [*Corpus().read("train")] for split in ("train", "valid", "test")}
    task.prepare()
    drawn = {split: sources(split, 0) for split in ("valid", "test")}
    assert drawn["valid"] != drawn["test"], "each split has draws of its own"
    equal = make(tokenizer=None)
    equal.examples = {split: [Example(source="w1 w2 w3 w4", target=None)] * 30 for split in ("train", "valid", "test")}
    equal.prepare()
    assert len({tuple(x) for x in (equal.sources["test"][row].tolist() for row in range(30))}) > 5, "and each row"


def test_loss_and_sums_are_of_each_token_given_those_before() -> None:
    task = make()
    encoder = encoder_for(task).eval()
    assert isinstance(encoder, Decoder)
    task.eval()
    batch = task.collate("valid", np.array([0, 11, 14]))
    with torch.no_grad():
        output = task(encoder, batch)
        for i, row in enumerate((0, 11, 14)):
            single = task.collate("valid", np.array([row]))
            states = encoder.decode(single.target, encoder.prefill(single.source)).values[0]
            assert encoder.token_embedding is not None
            terms = F.cross_entropy(states @ encoder.token_embedding.T, single.label[0], reduction="none")
            assert output.predictions[i] == (pytest.approx(float(terms.sum()), rel=1e-4), len(terms), 0)
    total = sum(p[0] for p in output.predictions)
    assert output.items == sum(p[1] for p in output.predictions) == 21 + 11 + 5
    assert float(output.loss) == pytest.approx(total / output.items, rel=1e-5)
    assert [(0.0, *p[1:]) for p in output.predictions] == [task.references("valid")[row] for row in (0, 11, 14)]


def test_what_an_encoder_fuses_is_trained_as_it_is() -> None:
    """Surface fusion's objective is of both softmaxes, not of their fusion renormalised (Liu et al. 2021)."""
    task = make()
    changes = {"dim": 16, "depth": 1, "heads": 2, "hidden": 16, "dropout": 0.0}
    torch.manual_seed(0)
    encoder = build(
        compose_node("encoder", "surface_fusion", changes=changes), "encoder", ("encoders",), spec=task.spec
    )
    assert isinstance(encoder, Decoder)
    task.attach(encoder)
    batch = task.collate("valid", np.array([0, 11, 14]))
    real_BT = batch.target.mask
    both = encoder.decode(batch.target, encoder.prefill(batch.source)).values[real_BT].chunk(2, dim=1)
    assert encoder.token_embedding is not None
    t, s = (F.cross_entropy(part @ encoder.token_embedding.T, batch.label[real_BT]) for part in both)
    trained, tested = task(encoder, batch).loss.detach(), task.eval()(encoder, batch).loss.detach()
    torch.testing.assert_close(trained, (0.8 * t + 0.2 * s).detach())
    assert tested < trained - 1e-3  # by what hard fusion leaves of the probability


@pytest.mark.slow
def test_a_text_without_noise_is_copied_soon() -> None:
    task = make("none", max_length=8)
    encoder = encoder_for(task)
    parameters = [*encoder.parameters(), *task.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    batch = task.collate("train", np.arange(12))
    for _ in range(80):
        loss = task(encoder, batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05


def test_rules() -> None:
    task = make()
    uniform = task.score("test", task.trivial("random", "test", 0))["perplexity"].value
    assert uniform == pytest.approx(31 + 2, rel=1e-9)  # words, full stop, UNK and EOS
    majority = task.trivial("majority", "test", 0)
    told = np.concatenate([[*task.texts["train"][row], EOS] for row in range(15)])
    counts = np.bincount(told, minlength=task.tokenizer.vocab_size) + 1
    total = counts.sum() - 4  # pad, bos, sep and mask have none
    expected = -sum(math.log(counts[i] / total) for i in [*task.texts["test"][14], EOS])
    assert majority[14] == (pytest.approx(expected, rel=1e-9), 5, 0)


def test_permutation_needs_full_stops() -> None:
    class Unpunctuated(Corpus):
        def read(self, split: str) -> list[Example]:
            return [Example(source="a b c", target=None)]

    task = make("permute")
    task.data = Unpunctuated()
    with pytest.raises(DataError, match="no id of the tokeniser is a full stop"):
        task.setup()


def test_what_is_learnt_goes_on_in_sequence_to_sequence() -> None:
    """One shape of weights, one frame, and likelihoods in place of outputs."""
    first = make()

    class Pairs(Corpus):
        def read(self, split: str) -> list[Example]:
            return [Example(source="w1 w2", target="w3 w4 w5"), Example(source="w2", target="w1")]

    settings: dict[str, Any] = {"max_length": 21, "max_target_length": 20, "label_smoothing": 0.1, "tie": True}
    settings |= {"data": Pairs(), "tokenizer": first.tokenizer}
    then = SequenceToSequence(search=None, metrics=[Perplexity()], **settings)
    then.examples = {split: Pairs().read(split) for split in ("train", "valid", "test")}
    fitted = first.tokenizer.fit
    first.tokenizer.fit = lambda texts: None  # type: ignore[method-assign]  # as FittedOn
    then.prepare()
    first.tokenizer.fit = fitted  # type: ignore[method-assign]
    ours, theirs = encoder_for(then), encoder_for(first)
    ours.load_state_dict(theirs.state_dict())
    then.eval()
    with torch.no_grad():
        output = then(ours, then.collate("test", np.arange(2)))
    assert [p[1:] for p in output.predictions] == [(4, 0), (2, 0)]
    assert sum(p[0] for p in output.predictions) / 6 == pytest.approx(float(output.loss), rel=1e-5)
    assert then.references("test") == [(0.0, 4, 0), (0.0, 2, 0)]
    scored = then.score("test", dict(enumerate(output.predictions)))["perplexity"].value
    assert scored == pytest.approx(math.exp(float(output.loss)), rel=1e-4)
    assert then.trivial("random", "test", 0)[1][0] == pytest.approx(2 * math.log(33))
    with pytest.raises(ValueError, match="Perplexity is the one metric without"):
        SequenceToSequence(search=None, metrics=[Bleu()], **settings)
    with pytest.raises(ValueError, match="Perplexity is of search: null"):
        SequenceToSequence(search=Greedy(), metrics=[Perplexity()], **settings)
