"""Next item: from a user's history of items the one that follows, ranked among all items."""
# B batch, L positions, N rows of a split, M labels of a batch, S items of a history, I items, K negatives,
# V ids (special ones and items)

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from encoders.base import Encoder, InputSpec, Sequences
from tasks.base import Accounting, Batch, Output, Task
from tasks.data.base import SPLITS, DataError, DataSet
from tasks.heads import VocabularyHead
from tasks.metrics.base import Metric
from tasks.metrics.ranking import Ranking, ranks_of
from tasks.negatives import NONE, draw_unseen, negatives_of
from tasks.padding import Ragged
from tasks.readout import auxiliary
from tasks.tokenizers import MASK, SPECIAL

FIRST = len(SPECIAL)  # id of item 1
TOP = 10  # items that a prediction names
NO_LABEL = -1
SAMPLERS = ("uniform", "popularity")  # of negatives that a target is ranked among, beside the ranking of all items


@dataclass(frozen=True, kw_only=True, slots=True)
class NextItemBatch(Batch):
    """Histories, what is to be told at which of their positions, and what is not to be ranked."""

    source: Sequences  # (B, L) ids
    label: Tensor  # (B, L) int64, place of the item to tell (item - 1), or NO_LABEL; always set at the last one
    seen: Tensor  # (B, S) int64, ids left out of the ranking, PAD to the right; S = 0 where nothing is
    history: Tensor  # (B, S) int64, different places of items that are no negatives, sorted, num_items to the right;
    # S = 0 where no negatives are drawn
    negatives: Tensor  # (B, 2, K) int64, places of items by SAMPLERS, NONE to the right; K = 0 where nothing is sampled


class NextItem(Task):
    """Trained on all items or on sampled ones, ranked among all items, and beside that among sampled ones.

    `source` is a user's earlier items in order of time, (L,) whole numbers from 1 to `num_items`, `target` the item
    after them. The state at the last position predicts. What is trained is the `objective`:

    - `next`: at every position the item that follows (Kang and McAuley 2018, arXiv 1808.09781, section III-E). A long
      history is cut into windows that have each of its items but the first as a label once. For causal encoders alone:
      any other would see the answer;
    - `cloze`: items are hidden behind MASK and told from both sides (Sun et al. 2019, arXiv 1904.06690, section 3.5);
      for the item that follows, MASK stands at the end. A training window of `max_length` items, each item in one
      window, has round(`mask_share` of them) hidden, at least one, at most `mask_most`, anew each time; a share
      `last_share` of the windows only its last, as in testing (the official code adds such a copy to every ten fixed
      draws). A causal encoder may have it, too;
    - `prefix`: the item that follows a prefix, every prefix of every history being a row of one label, for any encoder;
    - `auto`: what the field does for the encoder, `next` for a causal one, `cloze` for any other.

    With `window_step` below 1 the windows of a long history overlap: they are whole, and begin that share of
    `max_length`, rounded down, apart from its end backwards, the last of them at its first item (official code of
    BERT4Rec).

    The `loss` is the mean over labels of the cross-entropy by a softmax over all items (`full`; BERT4Rec's code has its
    special ids among them), or of binary ones of the label and of `negatives` items that are not in the user's training
    history, drawn evenly anew each time (`sampled`; SASRec, section III-E, has one). Outside training it is the
    softmax's for both: nothing is drawn there.

    A step of equally many rows so has unlike numbers of labels: all positions, a share of them, one. The record counts
    them (`cost.train_items`). The encoder reads at most `max_length` positions, MASK included. `exclude_seen`: items of
    the whole history are left out of the ranking (a target among them is then ranked last); false is what RecBole does
    for sequential models (`FullSortEvalDataLoader`). `tie`: the output weights are the input table, as in SASRec.

    A prediction is {"rank": of the true item, ties by mean; "top": the ten best items, best first}. With `candidates`
    it has also "rank_uniform" and "rank_popularity", among so many items that are not in the history, drawn once for
    all runs, evenly or by their number in training (BERT4Rec, section 4.1). These depend on the sampler and need not
    order models as the full ranking does (Krichene and Rendle 2020): they are there to be compared with published ones.
    Raises DataError for an item out of range, for a training history of fewer than two items with its target, and for
    one of all items where negatives are to be drawn.
    """

    rules = frozenset({"majority", "random"})

    def __init__(
        self,
        *,
        data: DataSet,
        num_items: Annotated[int, Field(gt=1)],
        max_length: Annotated[int, Field(gt=0)],
        objective: Literal["auto", "next", "cloze", "prefix"],
        mask_share: Annotated[float, Field(gt=0, le=1)],
        mask_most: Annotated[int, Field(gt=0)] | None,
        last_share: Annotated[float, Field(ge=0, le=1)],
        window_step: Annotated[float, Field(gt=0, le=1)],
        loss: Literal["full", "sampled"],
        negatives: Annotated[int, Field(gt=0)],
        candidates: Annotated[int, Field(ge=0)],
        exclude_seen: bool,
        tie: bool,
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        sampled = [metric.name for metric in metrics if isinstance(metric, Ranking) and metric.of != "rank"]
        if sampled and not candidates:
            raise ValueError(f"candidates: 0, but {sampled[0]} ranks among sampled items; set it to 100, as published")
        self.num_items, self.max_length = num_items, max_length
        self.objective, self.mask_share, self.mask_most = objective, mask_share, mask_most
        self.last_share, self.window_step = last_share, window_step
        self.loss, self.negatives, self.candidates = loss, negatives, candidates
        self.exclude_seen, self.tie = exclude_seen, tie
        self.items: dict[str, Ragged] = {}  # split -> each history with its target at the end
        self.rows: dict[str, NDArray[np.int64]] = {}  # split -> (N, 4): history, first item read, item told at the last
        # position, item told first
        self.drawn: dict[str, NDArray[np.int64]] = {}  # split -> (N, 2, K), once they are asked for
        self.trained: Literal["next", "cloze", "prefix"] = "next"  # what `auto` stands for, once an encoder is attached

    def outline(self) -> InputSpec:
        """All is known."""
        return InputSpec(max_length=self.max_length, vocab_size=FIRST + self.num_items)

    # -- data ----------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Check the items, list the rows."""
        for split in SPLITS:
            self.items[split] = self._items(split)
        self._list_rows()
        self.spec = self.outline()

    def _list_rows(self) -> None:
        """Rows of all splits, which depend on what is trained: MASK takes a position."""
        for split in SPLITS[1:]:
            ends = self.items[split].lengths - 1
            begins = np.maximum(0, ends - self.max_length + (self.trained == "cloze"))
            self.rows[split] = np.stack([np.arange(len(ends)), begins, ends, ends], axis=1)
        self.rows["train"] = self._training_rows()

    def _items(self, split: str) -> Ragged:
        whole = []
        for row, example in enumerate(self.examples[split]):
            items = np.append(np.asarray(example.source, dtype=np.int64), np.int64(example.target))
            if items.min() < 1 or items.max() > self.num_items:
                wrong = items.min() if items.min() < 1 else items.max()
                raise DataError(f"{split} row {row}: item {wrong}; task.num_items says 1 to {self.num_items}")
            if len(items) < 2:
                raise DataError(f"{split} row {row}: no item before the target")
            if split == "train" and self.loss == "sampled" and len(set(items.tolist())) == self.num_items:
                raise DataError(f"{split} row {row}: has all {self.num_items} items, so that none is a negative")
            whole.append(items)
        return Ragged(whole, np.int64)

    def _training_rows(self) -> NDArray[np.int64]:
        """Windows whose every position has a label (any may be hidden), or prefixes whose last one has."""
        rows = []
        cloze = self.trained == "cloze"
        whole, step = self.max_length + (not cloze), max(1, int(self.window_step * self.max_length))
        overlap = self.window_step < 1 and self.trained != "prefix"
        for history, length in enumerate(self.items["train"].lengths.tolist()):
            if overlap and length > whole:
                begins = [*range(length - whole, 0, -step), 0]
                rows += [(history, begin, begin + whole - 1, begin + (not cloze)) for begin in begins]
                continue
            end = length - 1
            while end > 0:  # a first item that is left over alone tells nothing
                begin = max(0, end - self.max_length + cloze)
                first = {"next": begin + 1, "cloze": begin, "prefix": end}[self.trained]
                rows.append((history, begin, end, first))
                end = first - 1
        return np.array(rows, dtype=np.int64)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions that a row feeds, (N,)."""
        lengths: NDArray[np.int64] = self.rows[split][:, 2] - self.rows[split][:, 1] + (self.trained == "cloze")
        return lengths

    def accounting(self, split: str) -> Accounting:
        """Rows as they are fed; `truncated` are those before whose first item there were more."""
        rows = self.rows[split]
        cut = int((rows[:, 1] > 0).sum())
        return Accounting(examples=len(rows), positions=int(self.lengths(split).sum()), truncated=cut, dropped=0)

    def collate(self, split: str, rows: NDArray[np.int64]) -> NextItemBatch:
        """Histories padded, labels beside them. In cloze training they stand bare: `forward` hides what it asks for."""
        items, sources, labels, seen, known = self.items[split], [], [], [], []
        cloze = self.trained == "cloze"
        for history, begin, end, first in self.rows[split][rows].tolist():
            whole = items[history]
            source = whole[begin : end + cloze] + (FIRST - 1)
            if cloze and split != "train":
                source[-1] = MASK
            sources.append(source)
            told = begin + 1 - cloze  # number of the item that is told at the first position
            label = whole[told : end + 1] - 1
            label[: first - told] = NO_LABEL
            labels.append(label)
            seen.append(whole[:end] + (FIRST - 1) if self.exclude_seen else whole[:0])
            known.append(np.unique(whole) - 1 if self.loss == "sampled" and split == "train" else whole[:0])
        every = np.arange(len(rows))
        negatives = np.zeros((len(rows), len(SAMPLERS), 0), dtype=np.int64)
        if self.candidates and split != "train":
            negatives = self._negatives(split)[rows]
        return NextItemBatch(
            index=torch.from_numpy(rows),
            source=Ragged(sources, np.int64).sequences(every),
            label=Ragged(labels, np.int64).tensor(every, fill=NO_LABEL),
            seen=Ragged(seen, np.int64).tensor(every),
            history=Ragged(known, np.int64).tensor(every, fill=self.num_items),
            negatives=torch.from_numpy(negatives),
        )

    def _negatives(self, split: str) -> NDArray[np.int64]:
        """Places of items (N, 2, K) that each row's target is ranked among, by SAMPLERS; drawn at the first call."""
        if split not in self.drawn:
            counts = np.bincount(self.items["train"].values, minlength=self.num_items + 1)[1:].astype(np.float64)
            drawn = [
                negatives_of(
                    self.items[split],
                    weights=np.ones_like(counts) if sampler == "uniform" else counts,
                    number=self.candidates,
                    seed=[SPLITS.index(split), i],
                )
                for i, sampler in enumerate(SAMPLERS)
            ]
            self.drawn[split] = np.stack(drawn, axis=1)
        return self.drawn[split]

    # -- with an encoder -----------------------------------------------------------------------------------------
    def check_encoder(self, encoder: Encoder) -> None:
        """A causal one, to be trained on every next item."""
        if self.objective == "next" and not encoder.causal:
            raise ValueError(
                f"task.objective: next needs a causal encoder, {type(encoder).__name__} would see the answer;"
                " use cloze, prefix or auto"
            )

    def attach(self, encoder: Encoder) -> None:
        """A linear map to all items, or the encoder's table; and, for its causality, what a row is."""
        self.check_encoder(encoder)
        self.head = VocabularyHead(encoder=encoder, vocab_size=FIRST + self.num_items, tie=self.tie)
        auto: Literal["next", "cloze"] = "next" if encoder.causal else "cloze"
        self.trained = auto if self.objective == "auto" else self.objective
        self._list_rows()

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean loss over labels; outside training also the rankings by the last position's state."""
        assert isinstance(batch, NextItemBatch)
        source, counted_BL = batch.source, batch.label != NO_LABEL
        if self.trained == "cloze":
            counted_BL = self._hidden(counted_BL)
            source = replace(source, values=source.values.masked_fill(counted_BL, MASK))
        states = encoder(source)
        states_MD, label_M = states.values[counted_BL], batch.label[counted_BL]
        if self.training and self.loss == "sampled":
            drawn_BLK = draw_unseen(batch.history, counted_BL.shape[1], self.negatives, self.num_items)
            asked_MK = torch.cat((label_M.unsqueeze(1), drawn_BLK[counted_BL]), dim=1)
            logits_MK = self.head.some(states_MD, asked_MK + FIRST, encoder).float()
            loss = F.softplus(-logits_MK[:, 0]).mean() + F.softplus(logits_MK[:, 1:]).sum(1).mean()
            return Output(loss=auxiliary(loss, states), items=len(label_M))
        logits_MI = self.head(states_MD, encoder)[:, FIRST:].float()
        loss = auxiliary(F.cross_entropy(logits_MI, label_M), states)
        if self.training:
            return Output(loss=loss, items=len(label_M))
        last_B = counted_BL.sum(1).cumsum(0) - 1  # a row's last label stands at its last position
        predictions = self._predictions(logits_MI[last_B], label_M[last_B], batch)
        return Output(loss=loss, items=len(label_M), predictions=predictions)

    def _hidden(self, may_BL: Tensor) -> Tensor:
        """Which positions are hidden and asked for: in training a share, drawn anew; else, and sometimes, the last."""
        places_L = torch.arange(may_BL.shape[1], device=may_BL.device)
        last_BL = places_L == (may_BL * places_L).amax(1, keepdim=True)
        if not self.training:
            return last_BL
        number_B1 = (self.mask_share * may_BL.sum(1, keepdim=True) + 0.5).floor().clamp(1, self.mask_most)
        drawn_BL = torch.rand(may_BL.shape, device=may_BL.device).masked_fill(~may_BL, 2.0)
        some_BL = (drawn_BL.argsort(1).argsort(1) < number_B1) & may_BL
        alone_B1 = torch.rand(len(may_BL), 1, device=may_BL.device) < self.last_share
        return torch.where(alone_B1, last_BL, some_BL)

    def _predictions(self, scores_BI: Tensor, true_B: Tensor, batch: NextItemBatch) -> list[dict[str, Any]]:
        scores_BV = F.pad(scores_BI, (FIRST, 0)).scatter(1, batch.seen, -torch.inf)
        scores = scores_BV[:, FIRST:].cpu().numpy()
        true, best = true_B.cpu().numpy(), _best(scores)
        columns: dict[str, list[Any]] = {
            "rank": ranks_of(scores, true).tolist(),
            "top": [[place + 1 for place in top] for top in best],
        }
        for i, sampler in enumerate(SAMPLERS if batch.negatives.shape[2] else ()):
            among = np.concatenate((true[:, None], batch.negatives[:, i].cpu().numpy()), axis=1)
            asked = np.where(among == NONE, -np.inf, np.take_along_axis(scores, among, axis=1))
            columns[f"rank_{sampler}"] = ranks_of(asked, np.zeros_like(true)).tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    # -- scores --------------------------------------------------------------------------------------------------
    def references(self, split: str) -> list[Any]:
        """The item that follows each row."""
        items = self.items[split]
        return [int(items[history][end]) for history, _, end, _ in self.rows[split].tolist()]

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: by number of training interactions, for all users alike; `random`: an order of items for each."""
        if rule not in self.rules:
            return super().trivial(rule, split, seed)
        counts = np.bincount(self.items["train"].values, minlength=self.num_items + 1)[1:].astype(np.float32)
        generator = np.random.default_rng([seed, SPLITS.index(split)])
        predictions: dict[int, Any] = {}
        for start in range(0, len(self.rows[split]), 256):
            batch = self.collate(split, np.arange(start, min(start + 256, len(self.rows[split]))))
            shape = (len(batch.index), self.num_items)
            scores = np.broadcast_to(counts, shape) if rule == "majority" else generator.random(shape, dtype=np.float32)
            ends = batch.source.mask.sum(1) - 1
            true_B = batch.label[torch.arange(shape[0]), ends]
            ranked = self._predictions(torch.from_numpy(scores.copy()), true_B, batch)
            predictions.update(zip(batch.index.tolist(), ranked, strict=True))
        return predictions


def _best(scores: NDArray[np.float32]) -> list[list[int]]:
    """Places of the TOP best of each row, best first, of equal ones the first, from (B, I)."""
    number = min(TOP, scores.shape[1])
    least = torch.from_numpy(scores).topk(number, dim=1).values[:, -1].numpy()  # of a tie it takes any
    found = []
    for row, enough in zip(scores, least, strict=True):
        near = np.flatnonzero(row >= enough)
        found.append(near[np.argsort(-row[near], kind="stable")[:number]].tolist())
    return found
