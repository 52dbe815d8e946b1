"""Labelling: one tag per word (read at its first piece) or per position, by a linear layer over each state."""
# B batch, L positions, W words, K tags

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from encoders.base import Encoder, InputSpec, Sequences
from tasks import sources
from tasks.base import Accounting, Batch, Output, Task
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.metrics.base import Metric
from tasks.padding import Ragged, Repeated
from tasks.readout import auxiliary, linear
from tasks.streams import Streams
from tasks.tokenizers import Tokenizer

IGNORE = -100  # no target: F.cross_entropy leaves it out
OUTSIDE = "O"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedSequences(Batch):
    """Sources with a label per position."""

    source: Sequences
    label: Tensor  # (B, L) int64, place of the tag in `tags` at the first piece of a word; IGNORE elsewhere
    first: Tensor  # (B, W) int64, position of each word's first piece; -1 of a word that was cut off
    words: Tensor  # (B,) int64, number of words


class Labelling(Task):
    """Cross-entropy over the tags of the training split, sorted by name. A prediction is a list of tags, one a word.

    `source` is a list of words, or an array of ids, each a word; `target` a tag for each, None or -100 where there is
    none. A word's tag is read at its first piece (Devlin et al. 2019, arXiv 1810.04805, section 5.3). Words beyond
    `max_length` positions are predicted as "O", or the most frequent tag where there is no "O", and their examples
    counted as truncated. A tag that training does not have can't be predicted: no loss, and wrong for the metric.
    """

    needs_all_positions = True
    feeds_streams = True
    rules = frozenset({"majority", "random"})

    def __init__(
        self,
        *,
        data: DataSet,
        tokenizer: Tokenizer,
        max_length: Annotated[int, Field(gt=0)],
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        self.tokenizer, self.max_length = tokenizer, max_length
        self.streams = Streams(data.streams, max_length)
        self.further: dict[str, dict[str, Ragged | Repeated]] = {}  # split -> values of each stream
        self.tags: list[Any] = []
        self.rows: dict[str, Ragged] = {}
        self.labels: dict[str, Ragged] = {}
        self.first: dict[str, Ragged] = {}
        self.truncated: dict[str, int] = {}

    def outline(self) -> InputSpec:
        """Length as configured; the vocabulary is a stand-in."""
        return sources.outline(self.tokenizer, self.max_length, self.streams)

    def prepare(self) -> None:
        """Vocabulary and tags from the training split; ids, labels and first pieces of all three."""
        for split in SPLITS:
            for row, example in enumerate(self.examples[split]):
                _check(example, split, row)
        self.tokenizer.fit([example.source for example in self.examples["train"]])
        self.streams.fit(self.examples["train"])
        counts = _counts(self.examples["train"])
        kinds = {type(tag) for tag in counts}
        if len(counts) < 2 or len(kinds) != 1:
            place = self.examples["train"][0].place("train", 0)
            raise DataError(
                f"{place} and all others: labelling needs two tags or more, all text or all numbers; found"
                f" {list(counts)[:5]}"
            )
        self.tags = sorted(counts)
        self.place = {tag: k for k, tag in enumerate(self.tags)}
        self.majority = max(reversed(self.tags), key=lambda tag: counts[tag])
        self.beyond = OUTSIDE if OUTSIDE in counts else self.majority
        for split in SPLITS:
            self._encode(split)
        self.spec = InputSpec(
            max_length=self.max_length,
            vocab_size=self.tokenizer.vocab_size,
            vocabulary=self.tokenizer.vocabulary,
            streams=self.streams.specs(),
        )

    def _encode(self, split: str) -> None:
        examples = self.examples[split]
        encoded = self.tokenizer.encode([example.source for example in examples])
        frame, unknown = self.tokenizer.frame(1), np.array([self.tokenizer.specials.unk])
        room = frame.room(self.max_length)
        ids, labels, firsts, words = [], [], [], []
        for example, one in zip(examples, encoded, strict=True):
            cut = frame.filled(-1).around(one.words[:room])
            word, at = np.unique(cut, return_index=True)  # the first piece of each word, and of -1
            first = np.full(len(example.target), -1)
            first[word[word >= 0]] = at[word >= 0]
            label = np.full(max(1, len(cut)), IGNORE)
            label[first[first >= 0]] = self._places(example.target)[first >= 0]
            ids.append(frame.around(one.ids[:room]) if len(cut) else unknown)
            labels.append(label)
            words.append(cut if len(cut) else sources.NO_WORDS)
            firsts.append(first)
        self.rows[split], self.labels[split] = Ragged(ids, np.int64), Ragged(labels, np.int64)
        self.first[split] = Ragged(firsts, np.int64)
        self.further[split] = self.streams.encode(examples, words, split)
        cut = np.array([len(one.ids) > room for one in encoded], dtype=np.bool_)
        self.truncated[split] = int((cut | self.streams.cut[split]).sum())

    def _places(self, target: Any) -> NDArray[np.int64]:
        if isinstance(target, np.ndarray):
            at = np.searchsorted(self.tags, target).clip(max=len(self.tags) - 1)
            return np.where(np.asarray(self.tags)[at] == target, at, IGNORE)
        return np.array([self.place.get(tag, IGNORE) for tag in target], dtype=np.int64)

    def attach(self, encoder: Encoder) -> None:
        """A linear layer (D -> K) over each state."""
        self.head = linear(encoder.dim, len(self.tags))

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each source, (N,)."""
        return self.rows[split].lengths

    def collate(self, split: str, rows: NDArray[np.int64]) -> TaggedSequences:
        """Sources, labels and first pieces, padded."""
        return TaggedSequences(
            index=torch.from_numpy(rows),
            source=replace(
                self.rows[split].sequences(rows),
                streams={name: stream.sequences(rows) for name, stream in self.further[split].items()},
            ),
            label=self.labels[split].tensor(rows, IGNORE),
            first=self.first[split].tensor(rows, -1),
            words=torch.from_numpy(self.first[split].lengths[rows]),
        )

    def accounting(self, split: str) -> Accounting:
        """Counts of positions and of sources cut to `max_length`."""
        lengths = self.rows[split].lengths
        return Accounting(
            examples=len(lengths), positions=int(lengths.sum()), truncated=self.truncated[split], dropped=0
        )

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean cross-entropy over tagged words; at each word's first piece the tag of the highest logit."""
        assert isinstance(batch, TaggedSequences)
        states = encoder(batch.source)
        if states.values.shape[1] != batch.label.shape[1]:
            raise ValueError(
                f"{batch.label.shape[1]} positions have {states.values.shape[1]} states; labelling needs all"
            )
        logits_BLK = self.head(states.values).float()
        items = int((batch.label != IGNORE).sum())
        total = F.cross_entropy(logits_BLK.flatten(0, 1), batch.label.flatten(), ignore_index=IGNORE, reduction="sum")
        predictions = [] if self.training else self._tags_of(logits_BLK, batch)
        return Output(loss=auxiliary(total / max(1, items), states), items=items, predictions=predictions)

    def _tags_of(self, logits_BLK: Tensor, batch: TaggedSequences) -> list[list[Any]]:
        best_BW = logits_BLK.argmax(2).gather(1, batch.first.clamp_min(0))
        best_BW = best_BW.masked_fill(batch.first < 0, len(self.tags))
        names = [*self.tags, self.beyond]
        lengths = batch.words.tolist()
        return [[names[k] for k in row[:n]] for row, n in zip(best_BW.tolist(), lengths, strict=True)]

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: the most frequent tag of training, for every word. `random`: uniform over tags, by seed."""
        counts = self.first[split].lengths.tolist()
        if rule == "majority":
            return {row: [self.majority] * n for row, n in enumerate(counts)}
        if rule == "random":
            generator = np.random.default_rng([seed, SPLITS.index(split)])
            return {
                row: [self.tags[k] for k in generator.integers(len(self.tags), size=n).tolist()]
                for row, n in enumerate(counts)
            }
        return super().trivial(rule, split, seed)


def _counts(examples: Sequence[Example]) -> Counter[Any]:
    """How often each tag stands in the targets, those that say "none" left out."""
    counts: Counter[Any] = Counter()
    for example in examples:
        if isinstance(example.target, np.ndarray):
            tags, times = np.unique(example.target, return_counts=True)
            counts.update(dict(zip(tags.tolist(), times.tolist(), strict=True)))
        else:
            counts.update(example.target)
    del counts[None], counts[IGNORE]
    return counts


def _check(example: Example, split: str, row: int) -> None:
    place = example.place(split, row)
    if isinstance(example.source, str):
        raise DataError(f"{place}: labelling needs words in a list, or ids; got the text {example.source[:20]!r}")
    if len(example.source) != len(example.target):
        raise DataError(f"{place}: {len(example.source)} words and {len(example.target)} tags")
    if not len(example.source):
        raise DataError(f"{place}: has no words")
