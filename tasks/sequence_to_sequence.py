"""Sequence to sequence: from a source the whole target, taught token by token, made by search."""
# B batch, L source positions, T target positions, D encoder.dim, V vocabulary, N examples of a split, M target tokens

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from encoders.base import Decoder, Encoder, InputSpec, Sequences
from tasks import likelihoods
from tasks.base import Accounting, Batch, DataError, Output, Task
from tasks.data.base import SPLITS, DataSet, Example
from tasks.heads import VocabularyHead
from tasks.metrics.base import Metric
from tasks.metrics.likelihood import Perplexity
from tasks.padding import Ragged
from tasks.search import Hypothesis, Search
from tasks.specials import Frame
from tasks.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceToSequenceBatch(Batch):
    """Sources and targets, both right-padded."""

    source: Sequences  # (B, L) ids, the last one of each row EOS
    target: Sequences  # (B, T) ids: BOS, then the target
    label: Tensor  # (B, T) int64: the target, then EOS; what is to follow each id of `target`


class Arguments(TypedDict):
    """What SequenceToSequence takes beside `search`; a kind of it takes them as `**rest: Unpack[Arguments]`."""

    data: DataSet
    metrics: list[Metric]
    tokenizer: Tokenizer
    max_length: Annotated[int, Field(gt=1)]
    max_target_length: Annotated[int, Field(gt=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    tie: bool


class SequenceToSequence(Task):
    """Source and target share one tokeniser and one vocabulary, fitted on both sides of the training split.

    Training is teacher forcing: the decoder reads BOS, y1, ..., yn and is to tell y1, ..., yn, EOS (Sutskever et al.
    2014, arXiv 1409.3215); the loss is the mean cross-entropy of these tokens, smoothed while training by
    `label_smoothing` (Szegedy et al. 2016, arXiv 1512.00567). Outside training the loss is unsmoothed and predictions
    come from `search`, in the form that targets have: text, or a list of words. A source is text, words, or a pair of
    them, joined by SEP.

    A source beyond `max_length` ids (its EOS counted) and a target beyond `max_target_length` are cut and counted; a
    cut target isn't taught to end, and a search ends at that length, too. References are never cut. `tie`: the output
    weights are the input table.

    Without a `search` no output is made: a prediction is (nats, tokens, 0), of the target's -log p, whose metric is
    Perplexity alone, over the tokens that are fed.
    """

    needs = Decoder
    rules = frozenset({"majority", "random"})

    def __init__(
        self,
        *,
        data: DataSet,
        metrics: list[Metric],
        tokenizer: Tokenizer,
        search: Search | None,
        max_length: Annotated[int, Field(gt=1)],
        max_target_length: Annotated[int, Field(gt=0)],
        label_smoothing: Annotated[float, Field(ge=0, lt=1)],
        tie: bool,
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        if any(isinstance(metric, Perplexity) != (search is None) for metric in metrics):
            right = "Perplexity is the one metric without" if search is None else "Perplexity is of search: null"
            raise ValueError(f"metrics: {', '.join(metric.name for metric in metrics)}; {right}")
        self.tokenizer, self.search = tokenizer, search
        self.max_length, self.max_target_length = max_length, max_target_length
        self.label_smoothing, self.tie = label_smoothing, tie
        self.sources: dict[str, Ragged] = {}  # split -> rows of (L,) ids, EOS included
        self.targets: dict[str, Ragged] = {}  # split -> rows of (T + 1,) ids: BOS, y, EOS; EOS only if not cut
        self.truncated: dict[str, int] = {}

    def outline(self) -> InputSpec:
        """The spec with a stand-in vocabulary."""
        return InputSpec(max_length=self.max_length, vocab_size=1000, target_length=self.max_target_length + 1)

    # -- data ----------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Fit the tokeniser on sources and targets of the training split, encode all."""
        for split in SPLITS:
            _check(split, self.examples[split])
        train = self.examples["train"]
        self.words = isinstance(train[0].target, list)  # predictions have the form of targets
        self.tokenizer.fit([text for e in train for text in (*_parts(e.source), e.target)])
        for split in SPLITS:
            self._encode(split)
        self.spec = replace(self.outline(), vocab_size=self.tokenizer.vocab_size, vocabulary=self.tokenizer.vocabulary)

    def _encode(self, split: str) -> None:
        examples = self.examples[split]
        parts = [_parts(e.source) for e in examples]
        pieces = iter(self.tokenizer.encode([text for row in parts for text in row]))
        one, several, target = self.tokenizer.frame(1), self.tokenizer.frame(2), target_frame(self.tokenizer)
        one = one.ended(self.tokenizer.specials.eos)
        sources = [several.join([next(pieces).ids for _ in row]) for row in parts]
        targets = [e.ids for e in self.tokenizer.encode([e.target for e in examples])]
        room, longest = one.room(self.max_length), target.room(self.max_target_length + 2, "max_target_length")
        self.truncated[split] = sum(len(x) > room or len(y) > longest for x, y in zip(sources, targets, strict=True))
        self.sources[split] = Ragged((one.around(x[:room]) for x in sources), np.int64)
        whole = (target.around(y)[: self.max_target_length + 2] for y in targets)
        self.targets[split] = Ragged(whole, np.int64)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of source and target together."""
        return self.sources[split].lengths + self.targets[split].lengths - 1

    def accounting(self, split: str) -> Accounting:
        """Counts; positions are those of sources and of targets as they are fed."""
        positions = int(self.lengths(split).sum())
        number = len(self.sources[split])
        return Accounting(examples=number, positions=positions, truncated=self.truncated[split], dropped=0)

    def collate(self, split: str, rows: NDArray[np.int64]) -> SequenceToSequenceBatch:
        """Rows by number."""
        return taught(rows, self.sources[split].sequences(rows), self.targets[split].sequences(rows))

    # -- with an encoder -----------------------------------------------------------------------------------------
    def attach(self, encoder: Encoder) -> None:
        """A linear map from states to the vocabulary, or the encoder's own table."""
        self.head = VocabularyHead(encoder=encoder, vocab_size=self.tokenizer.vocab_size, tie=self.tie)

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Cross-entropy over the target tokens, in nats; outside training also the output that search finds."""
        assert isinstance(batch, SequenceToSequenceBatch)
        assert isinstance(encoder, Decoder)
        before = encoder.prefill(batch.source)
        states = encoder.decode(batch.target, before)
        real_BT = batch.target.mask
        logits_MV = self.head(states.values[real_BT], encoder)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = self.head.loss(logits_MV.float(), batch.label[real_BT], encoder, smoothing=smoothing)
        loss = sum((*before.losses.values(), *states.losses.values()), loss)
        predictions: list[Any] = []
        if not self.training and self.search is None:
            predictions = likelihoods.of_rows(logits_MV, batch.label[real_BT], real_BT)
        elif not self.training:
            predictions = self.predict(encoder, batch)
        return Output(loss=loss, items=len(logits_MV), predictions=predictions)

    def predict(self, encoder: Decoder, batch: SequenceToSequenceBatch) -> list[Any]:
        """The predictions of a batch, which know nothing of its targets."""
        return self.generate(encoder, batch.source)

    def generate(self, encoder: Decoder, source: Sequences) -> list[Any]:
        """The output for each row of `source`, in the form of the data set's targets."""
        return self.said(self.found(encoder, source))

    def said(self, found: list[Hypothesis]) -> list[Any]:
        """Outputs in the form of the data set's targets: str, or list of words."""
        texts = [self.tokenizer.decode(h.ids) for h in found]
        return [text.split() for text in texts] if self.words else texts

    def found(self, encoder: Decoder, source: Sequences) -> list[Hypothesis]:
        """What `search` finds for each row of `source`."""
        assert self.search is not None

        def logits(states_BD: Tensor) -> Tensor:
            logits_BV: Tensor = self.head(states_BD, encoder)
            index = torch.tensor(forbidden, dtype=torch.int64, device=logits_BV.device)
            return logits_BV.index_fill(1, index, -torch.inf)

        specials, forbidden = self.tokenizer.specials, sorted(forbidden_ids(self.tokenizer))
        return self.search(encoder, logits, source, bos=specials.bos, eos=specials.eos, max_new=self.spec.target_length)

    # -- without one ---------------------------------------------------------------------------------------------
    def references(self, split: str) -> list[Any]:
        """The targets; without a search the tokens that they have."""
        if self.search is None:
            return [(0.0, length - 1, 0) for length in self.targets[split].lengths.tolist()]
        return super().references(split)

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: the most frequent training target (of equals the first); `random`: a training target each.

        Without a search the likelihood by frequencies of ids in training, and by ids that are all alike.
        """
        if self.search is None and rule in self.rules:
            never = forbidden_ids(self.tokenizer) - {self.tokenizer.specials.unk}
            train, rows = self.targets["train"], self.targets[split]
            return likelihoods.of_unigrams(rule, train, rows, self.tokenizer.vocab_size, never)
        targets = [example.target for example in self.examples["train"]]
        number = len(self.examples[split])
        if rule == "majority":
            keys = [tuple(t) if self.words else t for t in targets]
            best = targets[keys.index(Counter(keys).most_common(1)[0][0])]
            return dict.fromkeys(range(number), best)
        if rule == "random":
            picks = np.random.default_rng([seed, SPLITS.index(split)]).integers(len(targets), size=number)
            return {row: targets[pick] for row, pick in enumerate(picks)}
        return super().trivial(rule, split, seed)


def target_frame(tokenizer: Tokenizer) -> Frame:
    """What stands around a target: what the decoder starts with, and the end."""
    bos, eos = tokenizer.specials.bos, tokenizer.specials.eos
    frame = tokenizer.frame(1).ended(eos)
    begin = frame.before if frame.before[:1] == (bos,) else (bos, *frame.before)
    return Frame(before=begin, after=frame.after)


def forbidden_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that are never an output."""
    frame = target_frame(tokenizer)
    return tokenizer.special_ids - {*frame.before[1:], *frame.after}


def taught(rows: NDArray[np.int64], source: Sequences, whole: Sequences) -> SequenceToSequenceBatch:
    """A batch of sources and of targets in their frame: what is fed lacks the last id, what is asked for the first."""
    return SequenceToSequenceBatch(
        index=torch.from_numpy(np.asarray(rows, dtype=np.int64)),
        source=source,
        target=Sequences(values=whole.values[:, :-1] * whole.mask[:, 1:], mask=whole.mask[:, 1:]),
        label=whole.values[:, 1:],
    )


def _parts(source: Any) -> tuple[Any, ...]:
    return source if isinstance(source, tuple) else (source,)


def _check(split: str, examples: Any) -> None:
    """Sources and targets must be text or words, targets all of one of them."""
    first = type(examples[0].target)
    for row, example in enumerate(examples):
        _check_row(split, row, example, first)


def _check_row(split: str, row: int, example: Example, first: type) -> None:
    for part in _parts(example.source):
        if not isinstance(part, (str, list)):
            raise DataError(f"{split}, row {row}: a source is text or words here, not {type(part).__name__}")
    if not isinstance(example.target, (str, list)) or not isinstance(example.target, first):
        raise DataError(
            f"{split}, row {row}: a target is text or words here, the same in every row, not {example.target!r:.40}"
        )
