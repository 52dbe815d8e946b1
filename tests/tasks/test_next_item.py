"""Next item: what is trained, what is ranked, and the leave-one-out split."""
# B batch, L positions, I items

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encoders.base import Encoder, Sequences, States
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from tasks.data.amazon_video_games import AmazonVideoGames
from tasks.data.amazon_video_games import read_histories as read_games
from tasks.data.base import SPLITS, DataError, DataSet, Example, FileFact
from tasks.data.leave_one_out import leave_one_out
from tasks.data.ml_100k import ML100K, read_histories
from tasks.data.pinned import card
from tasks.metrics.ranking import HR10, MRR, NDCG10, HR10Uniform, NDCG10Popularity
from tasks.negatives import NONE, draw_unseen, negatives_of
from tasks.next_item import FIRST, NO_LABEL, NextItem
from tasks.padding import Ragged
from tasks.readout import resolve
from tasks.tokenizers import MASK, PAD, SPECIAL

ITEMS = 20
HISTORIES = [[3, 1, 4, 1, 5, 9, 2, 6, 5], [7, 8], [10, 20, 11], [12, 13, 14, 15, 16, 17, 18, 19]]


class Histories(DataSet):
    """Histories, the same in each split but for their ends."""

    modality = "items"

    def __init__(self, histories: Sequence[Sequence[int]] = HISTORIES, targets: Sequence[int] | None = None) -> None:
        self.histories, self.targets = histories, targets

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None:
        return None

    def read(self, split: str) -> Sequence[Example]:
        targets = self.targets if self.targets and split == "test" else [items[-1] for items in self.histories]
        return [
            Example(source=np.array(items[:-1], dtype=np.int64), target=target)
            for items, target in zip(self.histories, targets, strict=True)
        ]


class Table(Encoder):
    """Ids looked up."""

    def __init__(self, *, causal: bool, dim: int = 6) -> None:
        super().__init__()
        self.table, self.dim, self.causal = torch.nn.Embedding(FIRST + ITEMS, dim), dim, causal

    def forward(self, source: Sequences) -> States:
        return States(values=self.table(source.values), mask=source.mask)

    @property
    def token_embedding(self) -> torch.Tensor:
        return self.table.weight


def next_item(data: DataSet | None = None, *, causal: bool = True, **changes: Any) -> tuple[NextItem, Table]:
    arguments = {"num_items": ITEMS, "max_length": 3, "exclude_seen": False, "tie": False}
    arguments |= {"objective": "auto" if causal else "prefix", "mask_share": 0.5, "last_share": 0.0, "mask_most": None}
    arguments |= {"window_step": 1.0, "loss": "full", "negatives": 1, "candidates": 0, **changes}
    task = NextItem(data=data or Histories(), metrics=[NDCG10(), HR10(), MRR()], **arguments)
    task.setup()
    torch.manual_seed(0)
    encoder = Table(causal=causal)
    task.attach(encoder)
    return task, encoder


def everything(task: NextItem, split: str) -> Any:
    return task.collate(split, np.arange(len(task.lengths(split))))


def labels(task: NextItem) -> list[tuple[list[int], int]]:
    """(items read up to the label, label), for each label of the training split."""
    found = []
    batch = everything(task, "train")
    for values, mask, row in zip(batch.source.values, batch.source.mask, batch.label, strict=True):
        items = (values[mask] - FIRST + 1).tolist()
        found += [(items[: i + 1], int(label) + 1) for i, label in enumerate(row) if label != NO_LABEL]
    return found


@pytest.mark.parametrize("causal", [True, False])
def test_every_item_but_the_first_is_a_label_once(causal: bool) -> None:
    task, _ = next_item(causal=causal)
    expected = Counter(item for items in HISTORIES for item in items[1:])
    assert Counter(label for _, label in labels(task)) == expected
    assert len(task.references("train")) == len(task.lengths("train"))
    windows = sum(-(-(len(items) - 1) // 3) for items in HISTORIES)
    assert len(task.lengths("train")) == (windows if causal else sum(expected.values()))


@pytest.mark.parametrize("causal", [True, False])
def test_labels_follow_what_is_read(causal: bool) -> None:
    task, _ = next_item(causal=causal)
    texts = [" ".join(map(str, items)) + " " for items in HISTORIES]
    for read, label in labels(task):
        assert len(read) <= 3
        assert any(" ".join(map(str, [*read, label])) + " " in text for text in texts)
    if not causal:  # a prefix's whole last three
        assert sorted(labels(task)) == sorted(
            (items[max(0, end - 3) : end], items[end]) for items in HISTORIES for end in range(1, len(items))
        )


def test_evaluation_reads_the_last_items_and_holds_one_label() -> None:
    for causal in (True, False):
        task, _ = next_item(causal=causal)
        batch = everything(task, "test")
        for row, items in enumerate(HISTORIES):
            read = batch.source.values[row][batch.source.mask[row]] - FIRST + 1
            assert read.tolist() == items[-4:-1]
            assert (batch.label[row] != NO_LABEL).sum() == 1
            assert batch.label[row, len(read) - 1] == items[-1] - 1
        assert task.references("test") == [items[-1] for items in HISTORIES]
        accounting = task.accounting("test")
        assert (accounting.examples, accounting.truncated, accounting.dropped) == (4, 2, 0)


@pytest.mark.parametrize("causal", [True, False])
def test_auto_is_next_for_a_causal_encoder_and_cloze_for_another(causal: bool) -> None:
    task, _ = next_item(causal=causal, objective="auto")
    assert task.trained == ("next" if causal else "cloze")
    assert next_item(causal=True, objective="cloze")[0].trained == "cloze"
    assert next_item(causal=True, objective="prefix")[0].trained == "prefix"
    with pytest.raises(ValueError, match=r"task\.objective: next needs a causal encoder, Table would see"):
        next_item(causal=False, objective="next")


class Seen(Table):
    """Keeps what it was fed last."""

    def forward(self, source: Sequences) -> States:
        self.source = source
        return super().forward(source)


def cloze(data: DataSet | None = None, **changes: Any) -> tuple[NextItem, Seen]:
    task, _ = next_item(data, causal=False, objective="cloze", **changes)
    encoder = Seen(causal=False)
    task.attach(encoder)
    return task, encoder


def test_cloze_windows_hold_every_item_once_and_of_their_length() -> None:
    task, _ = cloze()
    batch = everything(task, "train")
    windows = [(v[m] - FIRST + 1).tolist() for v, m in zip(batch.source.values, batch.source.mask, strict=True)]
    assert windows == [[2, 6, 5], [1, 5, 9], [3, 1, 4], [7, 8], [10, 20, 11], [17, 18, 19], [14, 15, 16], [12, 13]]
    told = [(row[row != NO_LABEL] + 1).tolist() for row in batch.label]
    assert told == windows  # which of them are asked for, forward draws
    assert task.accounting("train").positions == sum(map(len, windows)) == int(task.lengths("train").sum())


@pytest.mark.parametrize(("length", "share", "number"), [(50, 0.6, 30), (8, 0.6, 5), (1, 0.6, 1), (20, 0.2, 4)])
def test_a_share_of_a_window_is_hidden_anew_each_time_and_alone_asked_for(
    length: int, share: float, number: int
) -> None:
    data = Histories([[1 + (i * 3) % ITEMS for i in range(max(length, 2))]] * 4)
    task, encoder = cloze(data, max_length=length, mask_share=share)
    batch, rows = everything(task, "train"), []
    for _ in range(2):
        output = task(encoder, batch)
        hidden = encoder.source.values == MASK
        assert hidden.sum(1).tolist() == [number] * len(batch.index)
        assert output.items == int(hidden.sum())
        assert torch.equal(encoder.source.values[~hidden], batch.source.values[~hidden])
        logits = task.head(encoder.table(torch.tensor(MASK)), encoder)[FIRST:]  # of a state that saw MASK alone
        expected = F.cross_entropy(logits.expand(output.items, -1), batch.label[hidden])
        assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
        if 1 < number < length and number > 4:
            assert len({tuple(row) for row in hidden.int().tolist()}) > 1  # each row draws its own places
        rows += hidden.int().tolist()
    if length > 1:
        assert len({tuple(row) for row in rows}) > 1
    assert (batch.source.values != MASK).all()


def test_each_window_has_a_share_of_its_own_items_hidden_any_of_them() -> None:
    lengths = [2, 5, 9, 20]
    data = Histories([[1 + (i * 3) % ITEMS for i in range(length)] for length in lengths])
    task, encoder = cloze(data, max_length=20, mask_share=0.6)
    batch = everything(task, "train")
    often = torch.zeros(4, 20)
    for _ in range(200):
        task(encoder, batch)
        hidden = encoder.source.values == MASK
        assert hidden.sum(1).tolist() == [1, 3, 5, 12]  # of 1.2, 3, 5.4 and 12
        often += hidden
    assert (often[~batch.source.mask] == 0).all()
    for row, (number, length) in enumerate(zip([1, 3, 5, 12], lengths, strict=True)):
        share = number / length  # of each position, binomial
        assert (often[row, :length] / 200 - share).abs().max() < 4.5 * (share * (1 - share) / 200) ** 0.5


def test_a_share_of_the_windows_has_its_last_item_hidden_alone() -> None:
    data = Histories([[1, 2, 3, 4, 5]] * 2000)
    task, encoder = cloze(data, max_length=5, mask_share=0.8, last_share=0.3)
    task(encoder, everything(task, "train"))
    hidden = encoder.source.values == MASK
    assert hidden[:, -1].sum() > 0
    alone = hidden.sum(1) == 1
    assert torch.equal(alone, hidden.sum(1) != 4)
    assert hidden[alone][:, -1].all()
    assert float(alone.float().mean()) == pytest.approx(0.3, abs=0.04)


def test_in_testing_mask_stands_for_the_item_that_follows() -> None:
    task, encoder = cloze(exclude_seen=True)
    task.eval()
    batch = everything(task, "test")
    with torch.no_grad():
        predictions = task(encoder, batch).predictions
    for row, items in enumerate(HISTORIES):
        fed = encoder.source.values[row][encoder.source.mask[row]].tolist()
        assert fed == [*(FIRST + i - 1 for i in items[-3:-1]), MASK]  # MASK takes a position
        assert batch.label[row][batch.label[row] != NO_LABEL].tolist() == [items[-1] - 1]
        assert not set(items[:-1]) & set(predictions[row]["top"])
    assert torch.equal(encoder.source.values, batch.source.values)  # the answer is not in the batch
    assert task.references("test") == [items[-1] for items in HISTORIES]
    assert (task.accounting("test").truncated, task.accounting("test").positions) == (2, 11)
    state = encoder.table.weight[MASK]
    scores = (task.head.linear.weight[FIRST:] @ state + task.head.linear.bias[FIRST:]).tolist()
    order = sorted((i for i in range(1, ITEMS + 1) if i not in HISTORIES[0][:-1]), key=lambda i: -scores[i - 1])
    assert predictions[0]["rank"] == (order.index(5) + 1 if 5 in order else ITEMS)
    assert [p["rank"] for p in task.trivial("majority", "test", 0).values()] == [
        p["rank"] for p in next_item(exclude_seen=True)[0].trivial("majority", "test", 0).values()
    ]


def test_both_ways_see_right_of_the_gap() -> None:
    """Items in pairs (a, a + 10): what is hidden is told by its neighbour, on whichever side."""
    rng = np.random.default_rng(0)
    firsts = rng.integers(1, 11, size=(200, 3))
    data = Histories(np.stack([firsts, firsts + 10], 2).reshape(200, 6).tolist())
    task, _ = cloze(data, max_length=6, mask_share=0.2, last_share=0.0)
    torch.manual_seed(0)
    encoder = Neighbours(dim=24)
    task.attach(encoder)
    optimizer = torch.optim.Adam([*encoder.parameters(), *task.parameters()], lr=0.03)
    batch = everything(task, "train")
    for _ in range(90):
        loss = task(encoder, batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3  # log 20 is 3.0; blind to the right it would not fall below 1.1
    task.eval()
    with torch.no_grad():
        ranks = [p["rank"] for p in task(encoder, everything(task, "test")).predictions]
    assert np.mean(np.array(ranks) == 1) > 0.95


class Neighbours(Table):
    """A position's own vector with those of both neighbours, mixed."""

    def __init__(self, *, dim: int) -> None:
        super().__init__(causal=False, dim=dim)
        self.mix = torch.nn.Conv1d(dim, dim, 3, padding=1)

    def forward(self, source: Sequences) -> States:
        x = self.table(source.values) * source.mask.unsqueeze(-1)
        return States(values=torch.relu(self.mix(x.mT).mT), mask=source.mask)


@pytest.mark.parametrize("tie", [True, False])
def test_loss_is_the_full_softmax_of_a_slow_loop(tie: bool) -> None:
    task, encoder = next_item(tie=tie)
    task.train()
    output = task(encoder, everything(task, "train"))
    weight = encoder.table.weight if tie else task.head.linear.weight
    bias = task.head.bias if tie else task.head.linear.bias
    losses = []
    for read, label in labels(task):  # this encoder's state is that of the last item alone
        logits = weight[FIRST:] @ encoder.table.weight[FIRST + read[-1] - 1] + bias[FIRST:]
        losses.append(F.cross_entropy(logits, torch.tensor(label - 1)))
    assert output.items == len(losses)
    assert output.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    output.loss.backward()
    assert encoder.table.weight.grad is not None


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_ranks_and_top_are_of_all_items(exclude_seen: bool) -> None:
    task, encoder = next_item(exclude_seen=exclude_seen)
    task.eval()
    with torch.no_grad():
        predictions = task(encoder, everything(task, "test")).predictions
    for items, prediction in zip(HISTORIES, predictions, strict=True):
        state = encoder.table.weight[FIRST + items[-2] - 1]
        scores = (task.head.linear.weight[FIRST:] @ state + task.head.linear.bias[FIRST:]).tolist()
        left = [i for i in range(1, ITEMS + 1) if not (exclude_seen and i in items[:-1])]
        order = sorted(left, key=lambda i: -scores[i - 1])
        assert prediction["top"] == order[:10]
        assert prediction["rank"] == (order.index(items[-1]) + 1 if items[-1] in order else ITEMS)


def test_the_whole_history_is_excluded_not_only_what_is_read() -> None:
    task, _ = next_item(exclude_seen=True)
    batch = everything(task, "test")
    assert sorted(set(batch.seen[3].tolist()) - {PAD}) == [FIRST + i - 1 for i in range(12, 19)]
    assert batch.source.mask[3].sum() == 3


def test_the_target_changes_the_rank_alone() -> None:
    task, encoder = next_item()
    other, _ = next_item(Histories(targets=[1, 2, 3, 4]))
    other.load_state_dict(task.state_dict())
    with torch.no_grad():
        a, b = (t.eval()(encoder, everything(t, "test")).predictions for t in (task, other))
    assert [p["top"] for p in a] == [p["top"] for p in b]
    assert [p["rank"] for p in a] != [p["rank"] for p in b]


def test_popularity_is_of_training_and_chance_is_chance() -> None:
    task, _ = next_item()
    counts = Counter(item for items in HISTORIES for item in items)
    majority = task.trivial("majority", "test", 0)
    assert majority[0]["top"][:2] == [1, 5]
    for row, items in enumerate(HISTORIES):
        above = sum(counts[i] > counts[items[-1]] for i in range(1, ITEMS + 1))
        equal = sum(counts[i] == counts[items[-1]] for i in range(1, ITEMS + 1))
        assert majority[row]["rank"] == 1 + above + (equal - 1) / 2
    many, _ = next_item(Histories([[1 + i % ITEMS, 1 + (7 * i) % ITEMS] for i in range(800)]))
    ranks = [p["rank"] for p in many.trivial("random", "test", 1).values()]
    assert np.mean(ranks) == pytest.approx((ITEMS + 1) / 2, rel=0.1)
    assert many.trivial("random", "test", 1) == many.trivial("random", "test", 1) != many.trivial("random", "test", 2)


# -- overlapping windows, few masks --------------------------------------------------------------------------------
@pytest.mark.parametrize(("length", "step"), [(20, 0.5), (23, 0.5), (23, 0.7), (9, 0.1), (8, 0.5), (5, 0.5)])
def test_overlapping_windows_are_those_of_the_official_code(length: int, step: float) -> None:
    """`range(len - N, 0, -int(step * N))` and 0, each N items; a history of at most N items is one window."""
    long = [1 + i % ITEMS for i in range(length)]
    task, _ = cloze(Histories([long]), max_length=8, window_step=step)
    batch = everything(task, "train")
    windows = [(v[m] - FIRST + 1).tolist() for v, m in zip(batch.source.values, batch.source.mask, strict=True)]
    begins = [0] if length <= 8 else [*range(length - 8, 0, -max(1, int(step * 8))), 0]
    assert windows == [long[begin : begin + 8] for begin in begins]
    assert [(row[row != NO_LABEL] + 1).tolist() for row in batch.label] == windows
    causal, _ = next_item(Histories([long]), objective="next", max_length=8, window_step=step)
    pairs = [(read, label) for read, label in labels(causal)]
    assert {label for _, label in pairs} == set(long[1:])
    assert all(long[len(long) - 1 - long[::-1].index(label) - 1] == read[-1] for read, label in pairs[-1:])
    assert max(len(read) for read, _ in pairs) == min(8, length - 1)


@pytest.mark.parametrize(
    ("length", "share", "most", "number"), [(50, 0.6, 30, 30), (50, 0.6, 20, 20), (8, 0.6, 1, 1), (200, 0.2, 40, 40)]
)
def test_no_more_are_hidden_than_the_most(length: int, share: float, most: int, number: int) -> None:
    data = Histories([[1 + (i * 3) % ITEMS for i in range(length)]] * 3)
    task, encoder = cloze(data, max_length=length, mask_share=share, mask_most=most)
    task(encoder, everything(task, "train"))
    assert (encoder.source.values == MASK).sum(1).tolist() == [number] * 3


# -- sampled loss --------------------------------------------------------------------------------------------------
def test_negatives_are_drawn_evenly_from_what_is_not_in_the_history() -> None:
    history = torch.tensor([[0, 1, 5, 19], [3, 20, 20, 20], [20, 20, 20, 20]])
    drawn = draw_unseen(history, 5, 2000, ITEMS)
    assert drawn.shape == (3, 5, 2000)
    for row, own in zip(drawn, ({0, 1, 5, 19}, {3}, set()), strict=True):
        counts = torch.bincount(row.flatten(), minlength=ITEMS)
        assert len(counts) == ITEMS
        assert {i for i in range(ITEMS) if counts[i] == 0} == own
        expected = 10_000 / (ITEMS - len(own))
        assert all(abs(float(c) - expected) < 5 * expected**0.5 for i, c in enumerate(counts) if i not in own)
    all_but_one = torch.tensor([[i for i in range(ITEMS) if i != 7]])
    assert set(draw_unseen(all_but_one, 3, 50, ITEMS).flatten().tolist()) == {7}


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("negatives", [1, 3])
def test_sampled_loss_is_binary_cross_entropy_of_a_slow_loop(
    tie: bool, negatives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}

    def fixed(history: torch.Tensor, positions: int, number: int, num_items: int) -> torch.Tensor:
        drawn["places"] = draw_unseen(history, positions, number, num_items)
        return drawn["places"]

    monkeypatch.setattr("tasks.next_item.draw_unseen", fixed)
    task, encoder = next_item(tie=tie, loss="sampled", negatives=negatives)
    task.train()
    batch = everything(task, "train")
    output = task(encoder, batch)
    weight = encoder.table.weight if tie else task.head.linear.weight
    bias = task.head.bias if tie else task.head.linear.bias
    windows = [HISTORIES[row] for row in task.rows["train"][:, 0].tolist()]
    losses = []
    for row, items in enumerate(windows):
        for position in range(batch.label.shape[1]):
            label = int(batch.label[row, position])
            if label == NO_LABEL:
                continue
            state = encoder.table.weight[batch.source.values[row, position]]
            logits = weight[FIRST:] @ state + bias[FIRST:]
            loss = -torch.log(torch.sigmoid(logits[label]))
            for place in drawn["places"][row, position].tolist():
                assert place + 1 not in items
                loss = loss - torch.log(1 - torch.sigmoid(logits[place]))
            losses.append(loss)
    assert output.items == len(losses) == sum(len(items) - 1 for items in HISTORIES)
    assert output.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    output.loss.backward()
    assert encoder.table.weight.grad is not None
    full, other = next_item(tie=tie)
    full.load_state_dict(task.state_dict())
    with torch.no_grad():  # outside training it is the softmax's, and the same each time
        a, b = (t.eval()(other, everything(t, "valid")).loss.item() for t in (task, full))
    assert a == b


def test_cloze_and_both_directions_go_with_both_losses() -> None:
    for loss in ("full", "sampled"):
        for causal, objective in ((True, "next"), (True, "cloze"), (False, "cloze")):
            task, encoder = next_item(causal=causal, objective=objective, loss=loss)
            output = task(encoder, everything(task, "train"))
            assert torch.isfinite(output.loss)
            assert output.items > 0


def test_a_history_of_all_items_has_no_negative() -> None:
    data = Histories([[1, 2], [*range(1, ITEMS + 1)]])
    with pytest.raises(DataError, match="train row 1: has all 20 items"):
        next_item(data, loss="sampled")
    next_item(data)


# -- sampled rankings ----------------------------------------------------------------------------------------------
def test_candidates_are_no_items_of_the_row_none_twice_and_by_weight() -> None:
    items = Ragged([np.array([1, 2, 3])] * 4000 + [np.arange(1, 16)], np.int64)
    weights = np.arange(ITEMS, dtype=np.float64)  # item 1 never
    found = negatives_of(items, weights=weights, number=4, seed=[0])
    assert found.shape == (4001, 4)
    for row in found:
        assert len(set(row.tolist())) == 4
    assert found.min() >= 3
    first = np.bincount(found[:4000, 0], minlength=ITEMS)[3:] / 4000
    expected = weights[3:] / weights[3:].sum()
    assert np.abs(first - expected).max() < 4 * np.sqrt(0.11 * 0.89 / 4000)
    pairs = np.bincount(found[:4000, 1], minlength=ITEMS)[3:] / 4000  # second draw without replacement
    without = [sum(expected[j] * p / (1 - expected[j]) for j in range(17) if j != i) for i, p in enumerate(expected)]
    assert np.abs(pairs - without).max() < 4 * np.sqrt(0.11 * 0.89 / 4000)
    assert set(found[4000].tolist()) <= set(range(15, 20))
    assert np.array_equal(found, negatives_of(items, weights=weights, number=4, seed=[0]))
    assert not np.array_equal(found, negatives_of(items, weights=weights, number=4, seed=[1]))
    few = negatives_of(Ragged([np.arange(1, 18)], np.int64), weights=weights, number=6, seed=[0])
    assert sorted(few[0].tolist()) == [NONE, NONE, NONE, 17, 18, 19]


def test_sampled_ranks_are_of_the_drawn_ones_in_any_batch() -> None:
    metrics = [NDCG10(), HR10Uniform(), NDCG10Popularity()]
    task, encoder = next_item(candidates=5, max_length=8)
    task.metrics = metrics
    task.eval()
    with torch.no_grad():
        together = task(encoder, everything(task, "test")).predictions
        alone = [task(encoder, task.collate("test", np.array([row]))).predictions[0] for row in range(4)]
    assert together == alone
    batch = everything(task, "test")
    counts = Counter(item for items in HISTORIES for item in items)
    for row, items in enumerate(HISTORIES):
        state = encoder.table.weight[FIRST + items[-2] - 1]
        scores = task.head.linear.weight[FIRST:] @ state + task.head.linear.bias[FIRST:]
        for i, name in enumerate(("uniform", "popularity")):
            drawn = [place for place in batch.negatives[row, i].tolist() if place != NONE]
            assert not {place + 1 for place in drawn} & set(items)
            assert len(drawn) == len(set(drawn)) == 5
            if name == "popularity":
                assert all(counts[place + 1] > 0 for place in drawn)
            better = sum(bool(scores[place] > scores[items[-1] - 1]) for place in drawn)
            assert together[row][f"rank_{name}"] == 1 + better
    scores = task.score("test", dict(enumerate(together)))
    assert scores["hr@10_uniform"].value == 1.0  # of six
    assert list(scores) == ["ndcg@10", "hr@10_uniform", "ndcg@10_popularity"]


def test_each_sampler_draws_as_it_is_called() -> None:
    """Item 1 in nearly all histories, 2 to 10 in few, the others in one that ends before them: never by popularity."""
    data = Histories([[1, 2 + i % 9, 2 + (i + 1) % 9] for i in range(300)] + [[3, 4], [5, 6]] * 150)
    task, _ = next_item(data, candidates=1)
    drawn = everything(task, "test").negatives[300:, :, 0]  # of rows that have not had item 1
    even, popular = (torch.bincount(drawn[:, i], minlength=ITEMS) / len(drawn) for i in range(2))
    assert even[0] == pytest.approx(1 / 18, abs=0.05)
    assert popular[0] > 0.2
    assert (even[10:] > 0).all()
    assert (popular[10:] == 0).all()


def test_fewer_candidates_than_asked_for_do_not_beat_the_target() -> None:
    data = Histories([[*range(1, ITEMS - 1)], [3, 4]])
    task, encoder = next_item(data, candidates=9)
    task.eval()
    batch = task.collate("test", np.array([0]))
    left = [place for place in batch.negatives[0, 0].tolist() if place != NONE]
    assert sorted(left) == [ITEMS - 2, ITEMS - 1]
    assert batch.negatives.shape == (1, 2, 9)
    with torch.no_grad():
        prediction = task(encoder, batch).predictions[0]
        logits = task.head(encoder.table(batch.source.values[0, -1]), encoder)[FIRST:]
    true = ITEMS - 3  # place of the target
    assert prediction["rank_uniform"] == 1 + sum(bool(logits[place] > logits[true]) for place in left)
    assert prediction["rank_popularity"] == 1  # nobody has had what is left


def test_an_item_had_twice_is_one_of_the_history() -> None:
    task, _ = next_item(Histories([[5, 5, 2, 5], [7, 8]]), loss="sampled")
    assert everything(task, "train").history.tolist() == [[1, 4], [6, 7]]


def test_one_score_for_all_is_no_first_place_in_any_ranking() -> None:
    task, encoder = next_item(candidates=5)
    for parameter in task.head.parameters():
        torch.nn.init.zeros_(parameter)
    task.eval()
    with torch.no_grad():
        predictions = task(encoder, everything(task, "test")).predictions
    assert [(p["rank"], p["rank_uniform"], p["rank_popularity"]) for p in predictions] == [(10.5, 3.5, 3.5)] * 4
    assert predictions[0]["top"] == list(range(1, 11))


def test_metrics_of_sampled_rankings_need_candidates() -> None:
    with pytest.raises(ValueError, match="candidates: 0, but hr@10_uniform"):
        NextItem(
            data=Histories(),
            num_items=ITEMS,
            max_length=3,
            objective="next",
            mask_share=0.5,
            mask_most=None,
            last_share=0.0,
            window_step=1.0,
            loss="full",
            negatives=1,
            candidates=0,
            exclude_seen=False,
            tie=False,
            metrics=[NDCG10(), HR10Uniform()],
        )


@pytest.mark.parametrize("wrong", [0, 21, -3])
def test_items_out_of_range_are_refused(wrong: int) -> None:
    with pytest.raises(DataError, match=rf"row 1: item {wrong}; task\.num_items says 1 to 20"):
        next_item(Histories([[1, 2], [3, wrong]]))


def test_a_target_without_history_is_refused() -> None:
    with pytest.raises(DataError, match="row 0: no item before the target"):
        next_item(Histories([[1]]))


def test_ids_are_those_of_the_other_tasks() -> None:
    assert len(SPECIAL) == FIRST
    assert next_item()[0].spec.vocab_size == FIRST + ITEMS
    assert resolve("auto", Table(causal=True)) == "last"


def test_histories_are_in_order_of_time_then_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.inter"
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    path.write_text(head + "10\t5\t3\t20\n2\t1\t1\t9\n10\t6\t3\t10\n10\t4\t3\t20\n2\t3\t5\t8\n")
    assert {user: items.tolist() for user, items in read_histories(path).items()} == {2: [3, 1], 10: [6, 5, 4]}
    path.write_text(head + "10\tfive\t3\t20\n")
    with pytest.raises(DataError, match=r"x\.inter"):
        read_histories(path)
    path.write_text("user\titem\n1\t2\n")
    with pytest.raises(DataError, match="expected"):
        read_histories(path)


@pytest.mark.data
def test_ml_100k_leaves_one_out(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    histories = read_histories(data_cache / "ml-100k" / "ml-100k.inter")
    lengths = [len(items) for items in histories.values()]
    assert (len(lengths), sum(lengths), min(lengths), max(lengths)) == (943, 100_000, 20, 737)
    assert set(np.concatenate(list(histories.values())).tolist()) == set(range(1, 1683))
    assert all(len(set(items.tolist())) == len(items) for items in histories.values())
    train, valid, test = (ML100K().read(split) for split in ("train", "valid", "test"))
    assert card("ml-100k").splits == {"train": len(train), "valid": len(valid), "test": len(test)}
    for a, b, c, items in zip(train, valid, test, histories.values(), strict=True):
        assert [*c.source, c.target] == items.tolist()
        assert [*b.source, b.target] == items[:-1].tolist()
        assert [*a.source, a.target] == items[:-2].tolist()


def test_who_has_too_few_items_is_in_fewer_splits() -> None:
    histories = [np.arange(1, 1 + length) for length in (1, 2, 3, 4)]
    found = {
        split: [(e.source.tolist(), e.target) for e in leave_one_out(histories, split)]
        for split in ("train", "valid", "test")
    }
    assert found == {
        "train": [([1], 2), ([1], 2)],
        "valid": [([1], 2), ([1, 2], 3)],
        "test": [([1, 2], 3), ([1, 2, 3], 4)],
    }


def test_video_games_are_in_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "Video.txt"
    path.write_text("1 3\n1 1\n2 9\n2 3\n1 9\n")
    assert [items.tolist() for items in read_games(path, core=1)] == [[3, 1, 9], [9, 3]]
    assert [items.tolist() for items in read_games(path, core=2)] == [[1, 2], [2, 1]]
    path.write_text("1 3\n1 x\n")
    with pytest.raises(DataError, match=r"Video\.txt line 2 is not `user item`"):
        read_games(path, core=1)


@pytest.mark.slow
@pytest.mark.data
def test_video_games_leave_one_out(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    histories = read_games(data_cache / "amazon-video-games" / "Video.txt", core=1)
    lengths = np.array([len(items) for items in histories])
    assert (len(lengths), lengths.sum(), (lengths < 3).sum(), lengths.max()) == (31013, 287107, 112, 860)
    splits = {split: AmazonVideoGames(core=1).read(split) for split in SPLITS}
    assert {split: len(rows) for split, rows in splits.items()} == card("amazon-video-games").splits
    # popularity, of equal items the mean rank: the figures of a published system's sheet, counted by other code
    trained = np.concatenate([np.append(example.source, example.target) for example in splits["train"]])
    counts = np.bincount(trained, minlength=23716)[1:]
    own = counts[[example.target - 1 for example in splits["test"]]]
    ordered = np.sort(counts)
    above, equal = len(counts) - np.searchsorted(ordered, own, side="right"), np.bincount(counts)[own]
    ranks = 1 + above + (equal - 1) / 2
    assert np.mean(ranks <= 10) == pytest.approx(0.0189, abs=5e-5)
    assert np.sum(1 / np.log2(1 + ranks[ranks <= 10])) / len(ranks) == pytest.approx(0.0097, abs=5e-5)


@pytest.mark.slow
@pytest.mark.data
def test_one_ranking_by_three_measures(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Popularity alone, of the first users: what is hit depends on what the target is ranked among, twentyfold."""
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    task = build(compose_node("task", "amazon_video_games"), "task", ["tasks"])
    task.data = Histories([[*e.source, e.target] for e in task.data.read("test")[:1500]])
    task.setup()
    scores = task.score("test", task.trivial("majority", "test", 0))
    full, popular, even = (scores[name].value for name in ("hr@10", "hr@10_popularity", "hr@10_uniform"))
    assert full < popular / 2 < even / 4
