"""Candidate ranking: scores of the four readings by hand, what they share, negatives of the batch, what is fed."""
# B batch, L positions, A candidates, D width, M codes

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.base import Encoder, Sequences, States
from tasks.candidate_ranking import CandidateBatch, CandidateRanking
from tasks.data.base import DataSet, Example, FileFact
from tasks.metrics.ranking import MRR, R1
from tasks.tokenizers import MASK, SEP, SPECIAL, UNK, Words
from tests.encoders.transformers_models import preset

Reading = Literal["packed", "cross", "bi", "poly"]
READINGS: tuple[Reading, ...] = ("packed", "cross", "bi", "poly")
ROWS: list[tuple[list[str], list[str], str]] = [
    (["a b", "c"], ["yes", "no", "a c d"], "yes"),
    (["a b", "c"], ["a", "no", "a c"], "a"),  # the same context, another fitting response
    (["d"], ["b b", "yes", "c"], "b b"),
    (["d", "a", "b"], ["c", "no", "c"], "c"),  # a copy of the fitting response
    (["e", "a d"], ["no", "e", "yes"], "yes"),
]
SMALL: dict[str, Any] = {"dim": 16, "depth": 2, "heads": 2, "hidden": 32, "dropout": 0.0}


class Rows(DataSet):
    """The same rows in each split."""

    modality = "text"

    def __init__(self, rows: Sequence[Any] = ROWS) -> None:
        self.rows = rows

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None:
        return None

    def read(self, split: str) -> Sequence[Example]:
        return [Example(source=(turns, candidates), target=target) for turns, candidates, target in self.rows]


def ranking(reading: Reading, data: DataSet | None = None, **changes: Any) -> CandidateRanking:
    arguments: dict[str, Any] = {
        "max_length": 9,
        "max_response_length": 5,
        "speakers": False,
        "parts": True,
        "codes": 3,
        "in_batch": 0,
        "masked_weight": 0.0,
        "masked_share": 0.3,
        "tie": False,
        **changes,
    }
    tokenizer = Words(min_count=1, max_size=None)
    task = CandidateRanking(
        data=data or Rows(), tokenizer=tokenizer, reading=reading, metrics=[R1(), MRR()], **arguments
    )
    task.setup()
    return task


def served(task: CandidateRanking, **changes: Any) -> Encoder:
    """Weights are the same for all readings, the head's too; in evaluation mode."""
    torch.manual_seed(0)
    encoder = preset("uni_encoder", task.spec, **{**SMALL, "layer": {"attention": {"dropout": 0.0}}, **changes})
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # so that scores differ
    task.attach(encoder)
    for weight in task.parameters():
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(1))
    task.eval()
    return encoder.eval()


def everything(task: CandidateRanking, split: str = "test") -> CandidateBatch:
    return task.collate(split, np.arange(len(task.choices[split])))


@torch.no_grad()
def scores(task: CandidateRanking, encoder: Encoder, rows: Sequence[int] | None = None) -> list[dict[str, float]]:
    """Of each candidate's text, row by row."""
    rows = range(len(ROWS)) if rows is None else rows
    batch = task.collate("test", np.array(rows))
    reads = [batch.source] if batch.candidates is None else [batch.source, batch.candidates]
    found = task._scores([encoder(read) for read in reads], batch)
    texts = [task.examples["test"][row].source[1] for row in rows]
    return [
        {text[place]: float(score) for place, score in zip(place_A, score_A, strict=True)}
        for text, place_A, score_A in zip(texts, batch.place.tolist(), found.tolist(), strict=True)
    ]


def close(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    return all(a == pytest.approx(b, abs=2e-6) for a, b in zip(one, other, strict=True))


def ids(task: CandidateRanking, text: str) -> list[int]:
    found: list[int] = task.tokenizer.encode([text])[0].ids.tolist()
    return found


def framed(task: CandidateRanking, body: list[int]) -> list[int]:
    return [task.tokenizer.specials.bos, *body, task.tokenizer.specials.sep]


def context_of(task: CandidateRanking, turns: list[str]) -> list[int]:
    return framed(task, [i for turn in turns for i in [*ids(task, turn), SEP]][:-1])


@torch.no_grad()
def slow_states(encoder: Encoder, pieces: list[list[int]], first: int = 0) -> list[Tensor]:
    """States (L, D) of each piece, read in one row by itself, parts counted from `first`."""
    whole = torch.tensor([[i for piece in pieces for i in piece]])
    part = torch.tensor([[n for n, piece in enumerate(pieces, first) for _ in piece]])
    mask = torch.ones_like(whole, dtype=torch.bool)
    read = Sequences(values=whole, mask=mask, streams={"part": Sequences(values=part, mask=mask)})
    return list(encoder(read).values[0].split([len(piece) for piece in pieces]))


def slow_scores(task: CandidateRanking, encoder: Encoder) -> list[dict[str, float]]:
    """The formulas of the class, one candidate after another."""
    found = []
    for turns, texts, _ in ROWS:
        context = context_of(task, turns)
        responses = [framed(task, ids(task, text)) for text in texts]
        if task.reading == "packed":
            states = slow_states(encoder, [context, *responses])[1:]
        elif task.reading == "cross":
            states = [slow_states(encoder, [context, response])[1] for response in responses]
        else:
            states = [slow_states(encoder, [response], first=1)[0] for response in responses]
        h_AD = torch.stack([state.mean(0) for state in states])
        if task.reading in ("packed", "cross"):
            score_A = [float(h @ task.head.weight[0] + task.head.bias[0]) for h in h_AD]
        else:
            c_LD = slow_states(encoder, [context])[0]
            score_A = []
            for h in h_AD:
                x = c_LD.mean(0)
                if task.reading == "poly":
                    y = [torch.softmax(c_LD @ code, 0) @ c_LD for code in task.code_table]
                    weight = torch.softmax(torch.stack([one @ h for one in y]), 0)
                    x = sum((w * one for w, one in zip(weight, y, strict=True)), torch.zeros(()))
                score_A.append(float(x @ h) / math.sqrt(len(h)))
        found.append(dict(zip(texts, score_A, strict=True)))
    return found


@pytest.mark.parametrize("reading", READINGS)
@torch.no_grad()
def test_scores_ranks_and_loss_by_hand(reading: Reading) -> None:
    task = ranking(reading)
    encoder = served(task)
    expected = slow_scores(task, encoder)
    assert close(scores(task, encoder), expected)
    spread = [max(row.values()) - min(row.values()) for row in expected]
    assert max(spread) > 1e-2, "or a wrong order would pass"
    output = task(encoder, everything(task))
    losses = []
    for (_, texts, target), row, prediction in zip(ROWS, expected, output.predictions, strict=True):
        assert prediction["rank"] == 1 + sum(score > row[target] for score in row.values())  # a copy is one key
        assert [texts[place] for place in prediction["top"]][: len(row)] == sorted(row, key=row.__getitem__)[::-1]
        losses.append(math.log(sum(math.exp(score) for score in row.values())) - row[target])
    assert float(output.loss) == pytest.approx(np.mean(losses), rel=1e-4)
    assert output.items == len(ROWS)


def test_readings_share_weights() -> None:
    """Equal numbers of parameters of the scored ones; poly has its codes beside, bi nothing."""
    numbers = {}
    for reading in READINGS:
        task = ranking(reading)
        encoder = served(task)
        numbers[reading] = sum(p.numel() for one in (encoder, task) for p in one.parameters())
    assert numbers["packed"] == numbers["cross"] == numbers["bi"] + 17 == numbers["poly"] - 3 * 16 + 17


def test_one_pass_is_pairs_where_the_context_brings_nothing_back() -> None:
    """In one layer of arrow a candidate sees the context as it was read; in two what others left in it."""
    for depth, attention, equal in [(1, "arrow", True), (2, "arrow", False), (1, "square", False), (2, "diag", True)]:
        packed, cross = ranking("packed"), ranking("cross")
        together, alone = (scores(task, served(task, depth=depth, attention=attention)) for task in (packed, cross))
        assert close(together, alone) == equal, (depth, attention)


@pytest.mark.parametrize("reading", READINGS)
def test_order_of_candidates_and_rows_beside_change_no_score(reading: Reading) -> None:
    task = ranking(reading)
    expected = scores(task, served(task))
    turned = ranking(reading, Rows([(turns, texts[::-1], target) for turns, texts, target in ROWS]))
    assert close(scores(turned, served(turned)), expected)
    assert close([scores(task, served(task), [row])[0] for row in range(len(ROWS))], expected)
    if reading == "packed":  # running positions need a longer table
        tasks = [ranking(reading, one.data, max_length=30) for one in (task, turned)]
        running = [scores(one, served(one, same_positions=False)) for one in tasks]
        assert not close(*running)


def test_places_of_the_fitting_one_say_nothing() -> None:
    task = ranking("cross", Rows([([f"a{n}"], ["x", "y", "z", "w"], "x") for n in range(400)]))
    for split in ("train", "valid", "test"):
        batch = everything(task, split)
        counts = torch.bincount(batch.true, minlength=4)
        assert counts.min() > 70
        assert torch.equal(batch.place.gather(1, batch.true[:, None]), torch.zeros(400, 1, dtype=torch.int64))


@pytest.mark.parametrize("reading", READINGS)
def test_negatives_of_the_batch_are_the_other_fitting_responses(reading: Reading) -> None:
    task = ranking(reading, in_batch=2)
    encoder = served(task)
    task.train()
    batch = everything(task, "train")
    gold = [framed(task, ids(task, target)) for _, _, target in ROWS]
    groups = [[0, 1, 2], [0, 1, 2], [0, 1, 2], [2, 3, 4], [2, 3, 4]]  # the last is filled from the one before
    assert batch.true.tolist() == [0, 1, 2, 1, 2]
    wrong = [[True, False, True], [False, True, True], [True] * 3, [True] * 3, [True] * 3]  # 0, 1: the same context
    assert batch.counted.tolist() == wrong
    if reading in ("packed", "cross"):
        values_BL = batch.source.values.view(len(ROWS), -1)
        part_BL = (batch.part * batch.source.mask).view(len(ROWS), -1)
        if reading == "packed":
            for row, group in enumerate(groups):
                fed = [values_BL[row][part_BL[row] == n].tolist() for n in (1, 2, 3)]
                assert fed == [gold[one] for one in group]
        else:
            fed = [values[part == 1].tolist() for values, part in zip(batch.source.values, batch.part, strict=True)]
            assert fed == [gold[one] for group in groups for one in group]
    else:
        assert batch.candidates is not None
        assert [v[m].tolist() for v, m in zip(batch.candidates.values, batch.candidates.mask, strict=True)] == gold
        assert batch.at.tolist() == groups
    output = task(encoder, batch)
    assert output.predictions == []
    assert torch.isfinite(output.loss)
    assert task.collate("train", np.array([3])).at.shape == (1, 1)  # a batch of fewer
    assert everything(task).at.shape == (5, 3)  # the given ones, in evaluation
    assert not everything(task).counted.all()  # the copy


def test_equal_fitting_responses_are_not_wrong_for_each_other() -> None:
    rows = [(["a"], ["yes", "no"], "yes"), (["b"], ["yes", "c"], "yes"), (["c"], ["no", "c"], "no")]
    batch = everything(ranking("packed", Rows(rows), in_batch=2), "train")
    assert batch.counted.tolist() == [[True, False, True], [False, True, True], [True] * 3]


def test_whole_turns_are_left_out_and_speakers_alternate() -> None:
    rows = [(turns, ["v w x y z", "v"], "v") for turns in (["p q", "r", "s t u"], ["r", "s"], ["a b c d e f"])]
    task = ranking("packed", Rows(rows), speakers=True, max_length=8)
    one, two = task.tokenizer.vocab_size, task.tokenizer.vocab_size + 1
    assert task.spec.vocab_size == two + 1
    bodies = [
        [one, *ids(task, "r"), two, *ids(task, "s t u")],
        [one, *ids(task, "r"), two, *ids(task, "s")],
        ids(task, "a b c d e f"),
    ]
    assert [task.contexts["test"][row].tolist() for row in range(3)] == [framed(task, body) for body in bodies]
    responses = {tuple(task.responses["test"][row].tolist()) for row in range(2)}
    assert responses == {tuple(framed(task, ids(task, text))) for text in ("x y z", "v")}
    assert task.accounting("test").truncated == 3
    plain = ranking("packed", Rows(rows), max_length=8)
    assert plain.contexts["test"][0].tolist() == context_of(plain, ["r", "s t u"])
    empty, _ = plain.frame_context([np.array([], dtype=np.int64)])
    assert empty.tolist() == framed(plain, [UNK])


@pytest.mark.parametrize("reading", READINGS)
def test_lengths_are_what_is_fed(reading: Reading) -> None:
    task = ranking(reading)
    for split in ("train", "test"):
        for row, length in enumerate(task.lengths(split).tolist()):
            batch = task.collate(split, np.array([row]))
            fed = int(batch.source.mask.sum()) + (0 if batch.candidates is None else int(batch.candidates.mask.sum()))
            assert fed == length
    together, pairs = (ranking(one).accounting("test").positions for one in ("packed", "cross"))
    contexts = int(task.contexts["test"].lengths.sum())
    assert pairs == together + 2 * contexts  # C + N R and N (C + R) for N = 3


class Still(Encoder):
    """Keeps what it was given; its states are zero."""

    causal = False

    def __init__(self, dim: int = 4) -> None:
        super().__init__()
        self.dim = dim
        self.given: list[Sequences] = []

    def forward(self, source: Sequences) -> States:
        self.given.append(source)
        return States(values=torch.zeros(*source.values.shape, self.dim), mask=source.mask)


@pytest.mark.parametrize("reading", READINGS)
@torch.no_grad()
def test_training_hides_tokens_and_asks_for_them(reading: Reading) -> None:
    """From zero states ranking costs log A, and with a bias of zero a token log V."""
    words = [" ".join(f"w{(7 * n + k) % 30}" for k in range(20)) for n in range(40)]
    rows = [([text], [words[n - 1], text], text) for n, text in enumerate(words)]
    task = ranking(reading, Rows(rows), masked_weight=0.5, max_length=30, max_response_length=30, speakers=True)
    encoder = Still()
    task.attach(encoder)
    for weight in task.vocabulary_head.parameters():
        weight.zero_()
    batch = everything(task, "train")
    output = task.train()(encoder, batch)
    assert float(output.loss) == pytest.approx(math.log(2) + 0.5 * math.log(task.spec.vocab_size or 0), rel=1e-5)
    for given, read in zip(encoder.given, [batch.source, batch.candidates], strict=False):
        assert read is not None
        ordinary = (read.values >= len(SPECIAL)) & (read.values < task.tokenizer.vocab_size) & read.mask
        changed = given.values != read.values
        assert not changed[~ordinary].any()
        assert float(changed.sum() / ordinary.sum()) == pytest.approx(0.9 * 0.3, abs=0.04)
        assert float((given.values == MASK).sum() / ordinary.sum()) == pytest.approx(0.8 * 0.3, abs=0.04)
    encoder.given.clear()
    output = task.eval()(encoder, everything(task))
    assert float(output.loss) == pytest.approx(math.log(2), rel=1e-5)
    assert torch.equal(encoder.given[0].values, everything(task).source.values)


@pytest.mark.parametrize("reading", READINGS)
@torch.no_grad()
def test_what_is_asked_for_is_what_stood_there(reading: Reading) -> None:
    """And the ranking reads what was hidden, in the same pass; a mean over tokens for each of the sides."""
    task = ranking(reading, masked_weight=0.5)
    encoder = served(task)
    task.train()
    batch = everything(task, "train")
    reads = [batch.source] if batch.candidates is None else [batch.source, batch.candidates]
    torch.manual_seed(3)
    found = float(task(encoder, batch).loss)
    torch.manual_seed(3)
    hidden = [task._hide(read) for read in reads]
    states = [encoder(read) for read, _ in hidden]
    asked = []
    for one, read, (_, chosen) in zip(states, reads, hidden, strict=True):
        logp_BLV = task.vocabulary_head(one.values, encoder).log_softmax(2)
        places = chosen.nonzero().tolist()
        asked.append(-sum(float(logp_BLV[b, t, read.values[b, t]]) for b, t in places) / len(places))
    scores_BA = task._scores(states, batch).masked_fill(~batch.counted, -torch.inf)
    rank = -float(scores_BA.log_softmax(1).gather(1, batch.true[:, None]).mean())
    assert found == pytest.approx(rank + 0.5 * sum(asked) / len(asked), rel=1e-4)
    assert sum(asked) > len(asked) * 1.1 * math.log(task.spec.vocab_size or 0)  # far from even, so that ids matter


@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_learns_a_few_rows(reading: Reading) -> None:
    task = ranking(reading, Rows(ROWS[:3]))
    torch.manual_seed(0)
    encoder = preset("uni_encoder", task.spec, **SMALL)
    task.attach(encoder)
    weights = [*encoder.parameters(), *task.parameters()]
    optimizer = torch.optim.Adam(weights, lr=3e-3)
    for _ in range(60):
        loss = task(encoder, everything(task, "train")).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None for p in task.parameters())
    with torch.no_grad():
        found = task.eval()(encoder.eval(), everything(task)).predictions
    assert [prediction["rank"] for prediction in found] == [1.0] * 3


def test_what_does_not_go_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="parts: false, but reading packed"):
        ranking("packed", parts=False)
    monkeypatch.setattr(Words, "vocabulary", "sha256 of a checkpoint's")
    with pytest.raises(ValueError, match=r"task.speakers: true, but a checkpoint"):
        ranking("bi", speakers=True)
