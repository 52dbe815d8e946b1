"""Language modelling: the next token of running text, every token of a document predicted once."""
# B batch, L positions, M predicted tokens of a batch, V vocabulary, D width, N windows

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences
from tasks import sources
from tasks.base import Accounting, Batch, Output, Task
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.metrics.base import Metric
from tasks.padding import Ragged
from tasks.readout import auxiliary, linear
from tasks.tokenizers import Tokenizer

IGNORE = -100


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows(Batch):
    """Pieces of text and what comes next."""

    source: Sequences  # ids before each predicted one; BOS at the start of a document
    target: Tensor  # (B, L) int64 ids, IGNORE at padding
    characters: Tensor  # (B,) int64, characters of the predicted text
    ends: Tensor | None  # (B, 2) int64, how many of the last tokens are scored by themselves, too, and their characters


class LanguageModelling(Task):
    """Mean cross-entropy of the next token, for causal encoders.

    A document BOS x_1 .. x_n is cut into windows of `max_length` + 1 ids that overlap in one, so that each x_t is
    predicted once, from what stands before it in its window; the last window may be shorter. Windows are the rows of
    a split: `examples` holds them after setup, with `target` (0.0, tokens, characters), and a prediction is
    (nats, tokens, characters) with the sum of -log p. Where every document has a number as target (tasks.data.blocks),
    so many of its last tokens are its end, and the three of the window's part of it follow. `tie` takes the encoder's
    input table for the output weights (Press & Wolf 2017, arXiv 1608.05859) and raises ValueError where it has none.
    Windows with an unknown piece (UNK, whose characters are not told apart) are counted as truncated. Raises DataError
    where a metric needs the whole text (bits per character) and the ids of a document of `valid` or `test` don't give
    it back, and where one is of ends and documents have none.
    """

    needs_causal = True
    needs_all_positions = True
    rules = frozenset({"majority", "random"})

    def __init__(
        self,
        *,
        data: DataSet,
        tokenizer: Tokenizer,
        max_length: Annotated[int, Field(gt=0)],
        tie: bool,
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        self.tokenizer, self.max_length, self.tie = tokenizer, max_length, tie
        self.inputs: dict[str, Ragged] = {}
        self.targets: dict[str, Ragged] = {}
        self.characters: dict[str, NDArray[np.int64]] = {}
        self.ends: dict[str, NDArray[np.int64] | None] = {}

    def outline(self) -> InputSpec:
        """Length as configured; the vocabulary is a stand-in."""
        return sources.outline(self.tokenizer, self.max_length)

    def prepare(self) -> None:
        """Vocabulary from the training split; windows of all three."""
        self.tokenizer.fit([example.source for example in self.examples["train"]])
        for split in SPLITS:
            self.examples[split] = self._cut(split)
        self.spec = InputSpec(
            max_length=self.max_length, vocab_size=self.tokenizer.vocab_size, vocabulary=self.tokenizer.vocabulary
        )

    def _cut(self, split: str) -> list[Example]:
        inputs, targets, characters, ends = [], [], [], []
        named = all(type(example.target) is int for example in self.examples[split])
        of_end = [metric.name for metric in self.metrics if getattr(metric, "of_end", False)]
        if of_end and not named:
            raise DataError(
                f"task.metrics: {of_end[0]} needs documents whose end is named; tasks.data.blocks.Blocks has"
            )
        whole = [metric.name for metric in self.metrics if metric.whole_text and split != "train"]
        for row, (document, one) in enumerate(
            zip(self.examples[split], self.tokenizer.encode([e.source for e in self.examples[split]]), strict=True)
        ):
            if document.streams:
                raise DataError(f"{split} row {row}: has streams {sorted(document.streams)}; this task feeds none")
            if whole:
                self._check_whole(document.source, one.ids, f"{split} row {row}", whole[0])
            before = np.concatenate([[self.tokenizer.specials.bos], one.ids[:-1]])
            for start in range(0, len(one.ids), self.max_length):
                window = slice(start, start + self.max_length)
                inputs.append(before[window])
                targets.append(one.ids[window])
                characters.append(int(one.characters[window].sum()))
                if named:
                    last = one.characters[window][max(0, len(one.ids) - document.target - start) :]
                    ends.append((len(last), int(last.sum())))
        if not inputs:
            raise DataError(f"{split}: the documents are empty")
        self.inputs[split], self.targets[split] = Ragged(inputs, np.int64), Ragged(targets, np.int64)
        self.characters[split] = np.array(characters, dtype=np.int64)
        self.ends[split] = np.array(ends, dtype=np.int64) if named else None
        more = [(0.0, *end) for end in ends] if named else [()] * len(targets)
        return [
            Example(source=ids, target=(0.0, len(ids), n, *end))
            for ids, n, end in zip(targets, characters, more, strict=True)
        ]

    def _check_whole(self, source: Any, ids: NDArray[np.int64], where: str, metric: str) -> None:
        """Raise DataError where the ids don't give the text back: unknown pieces, lower case, white space."""
        text = source if isinstance(source, str) else " ".join(map(str, source))
        back = self.tokenizer.decode(ids.tolist())
        if back == text:
            return
        at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
        raise DataError(
            f"task.tokenizer: {type(self.tokenizer).__name__} doesn't keep the text ({where}: {text[at : at + 20]!r}"
            f" comes back as {back[at : at + 20]!r}), so {metric} means nothing.\n"
            "Use tokenizer=bytes or tokenizer=subword, or take the metric out of task.metrics (perplexity is defined)"
        )

    def attach(self, encoder: Encoder) -> None:
        """Output weights: the encoder's input table, or a linear layer (D -> V) of their own."""
        if self.tie and encoder.token_embedding is None:
            raise ValueError(f"task.tie: {type(encoder).__name__} has no input table to tie; use false")
        size = self.tokenizer.vocab_size
        self.head = None if self.tie else linear(encoder.dim, size)
        self.bias = nn.Parameter(torch.zeros(size)) if self.tie else None

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each window, (N,)."""
        return self.inputs[split].lengths

    def collate(self, split: str, rows: NDArray[np.int64]) -> Windows:
        """Windows, padded."""
        ends = self.ends[split]
        return Windows(
            index=torch.from_numpy(rows),
            source=self.inputs[split].sequences(rows),
            target=self.targets[split].tensor(rows, IGNORE),
            characters=torch.from_numpy(self.characters[split][rows]),
            ends=None if ends is None else torch.from_numpy(ends[rows]),
        )

    def accounting(self, split: str) -> Accounting:
        """Counts of windows, positions, and windows with an unknown piece."""
        targets = self.targets[split]
        unknown = np.add.reduceat(targets.values == self.tokenizer.specials.unk, targets.offsets[:-1], dtype=np.int64)
        return Accounting(
            examples=len(targets), positions=len(targets.values), truncated=int((unknown > 0).sum()), dropped=0
        )

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean -log p over tokens; per window its sum, in nats."""
        assert isinstance(batch, Windows)
        states = encoder(batch.source)
        real_BL = batch.target != IGNORE
        logits_MV = self._logits(encoder, states.values[real_BL])  # none of padding: a vocabulary is wide
        target_M = batch.target[real_BL]
        items = len(target_M)
        if self.training:
            return Output(loss=auxiliary(F.cross_entropy(logits_MV, target_M), states), items=items)
        nats_BL = torch.zeros(real_BL.shape, dtype=torch.float64, device=real_BL.device)
        nats_BL[real_BL] = F.cross_entropy(logits_MV, target_M, reduction="none").double()
        nats, tokens = nats_BL.sum(1), real_BL.sum(1)
        columns = [nats, tokens, batch.characters]
        if batch.ends is not None:
            places_L = torch.arange(nats_BL.shape[1], device=nats_BL.device)
            end_BL = places_L >= (tokens - batch.ends[:, 0]).unsqueeze(1)  # at padding are no nats
            columns += [(nats_BL * end_BL).sum(1), batch.ends[:, 0], batch.ends[:, 1]]
        predictions = list(zip(*(column.tolist() for column in columns), strict=True))
        return Output(loss=auxiliary(nats.sum() / items, states).float(), items=items, predictions=predictions)

    def _logits(self, encoder: Encoder, states_MD: Tensor) -> Tensor:
        table_VD = encoder.token_embedding if self.head is None else self.head.weight
        bias_V = self.bias if self.head is None else self.head.bias
        assert table_VD is not None
        return F.linear(states_MD, table_VD, bias_V).float()

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: frequencies of ids in training, one added to each. `random`: all ids alike, whatever the seed.

        Neither gives anything to special ids, UNK apart.
        """
        if rule not in self.rules:
            return super().trivial(rule, split, seed)
        targets = self.targets[split]
        counts = np.bincount(self.targets["train"].values, minlength=self.tokenizer.vocab_size).astype(np.float64)
        weights = counts + 1 if rule == "majority" else np.ones_like(counts)
        weights[sorted(self.tokenizer.special_ids - {self.tokenizer.specials.unk})] = 0
        with np.errstate(divide="ignore"):
            nats_V = -np.log(weights / weights.sum())
        nats, ends = nats_V[targets.values], self.ends[split]
        whole = np.add.reduceat(nats, targets.offsets[:-1])
        columns: list[Any] = [whole.tolist(), targets.lengths.tolist(), self.characters[split].tolist()]
        if ends is not None:
            last = [nats[stop - n : stop].sum() for stop, n in zip(targets.offsets[1:], ends[:, 0], strict=True)]
            columns += [list(map(float, last)), *ends.T.tolist()]
        return dict(enumerate(zip(*columns, strict=True)))
