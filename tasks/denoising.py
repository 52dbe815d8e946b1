"""Denoising: from a text with noise the text as it was, token by token (BART's pretraining)."""
# B batch, L source positions, T target positions, M target tokens

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from encoders.base import Decoder, Encoder, InputSpec
from tasks import likelihoods, sources
from tasks.base import Accounting, Batch, Output, Task
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.heads import VocabularyHead
from tasks.metrics.base import Metric
from tasks.noise import Noise, Tokens, Vocabulary
from tasks.padding import Ragged, pad
from tasks.sequence_to_sequence import SequenceToSequenceBatch, forbidden_ids, target_frame, taught
from tasks.tokenizers import Tokenizer


class Denoising(Task):
    """Mean cross-entropy of all tokens of the text (Lewis et al. 2020, BART, arXiv 1910.13461, section 2.2).

    Texts (of a pair each) are cut into rows. The source is a row with `noise`, the target the row itself, both framed
    as SequenceToSequence frames them, which may go on with the weights: with BART's own tokeniser the source is
    `<s> .. </s>`, the decoder reads `</s> <s> w1 .. wn` and is to tell `<s> w1 .. wn </s>`; with one that frames
    nothing the source ends in EOS, and the decoder reads BOS w1 .. wn and is to tell w1 .. wn EOS. Rows have so many
    tokens that neither side has more than `max_length` positions; what spans of no words add beyond that is cut.

    Noise is drawn anew each time in training, by the loader's seeds; evaluation has one fixed draw a row, so that every
    encoder is asked the same. `examples` holds rows after setup, with `target` (0.0, tokens, 0), and a prediction is
    (nats, tokens, 0); perplexities of different noises don't compare. Rows with an unknown piece count as truncated.
    Raises DataError for sentences that are to be permuted where no id is a full stop.
    """

    needs = Decoder
    rules = frozenset({"majority", "random"})

    def __init__(
        self,
        *,
        data: DataSet,
        tokenizer: Tokenizer,
        noise: Noise,
        max_length: Annotated[int, Field(gt=2)],
        tie: bool,
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        self.tokenizer, self.noise, self.max_length, self.tie = tokenizer, noise, max_length, tie
        self.texts: dict[str, Ragged] = {}  # split -> rows of tokens, without specials
        self.sources: dict[str, Ragged] = {}  # the same with one draw of noise, framed: (L,)
        self.targets: dict[str, Ragged] = {}  # framed: (T + 1,)

    def outline(self) -> InputSpec:
        """Lengths as configured; the vocabulary is a stand-in."""
        return InputSpec(max_length=self.max_length, vocab_size=sources.STAND_IN, target_length=self.max_length)

    # -- data ----------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Vocabulary from the training split; rows of all three."""
        self.tokenizer.fit([text for example in self.examples["train"] for text in sources.texts(example.source)])
        self.vocabulary = Vocabulary.of(self.tokenizer)
        if "permute" in self.noise.kinds and not self.vocabulary.stops.any():
            raise DataError("task.noise.kind: permute needs sentences, and no id of the tokeniser is a full stop")
        for split in SPLITS:
            self.examples[split] = self._cut(split)
        self.spec = InputSpec(
            max_length=self.max_length,
            vocab_size=self.tokenizer.vocab_size,
            target_length=self.max_length,
            vocabulary=self.tokenizer.vocabulary,
        )

    def _cut(self, split: str) -> list[Example]:
        target = target_frame(self.tokenizer)
        self.room = self.tokenizer.frame(1).ended(self.tokenizer.specials.eos).room(self.max_length)
        room = min(self.room, target.room(self.max_length + 1))
        while room > 1 and self.noise.longest(room) > self.room:
            room -= 1
        texts = [text for example in self.examples[split] for text in sources.texts(example.source)]
        pieces = [
            one.ids[start : start + room]
            for one in self.tokenizer.encode(texts)
            for start in range(0, len(one.ids), room)
        ]
        if not pieces:
            raise DataError(f"{split}: the texts are empty")
        self.texts[split] = Ragged(pieces, np.int64)
        self.targets[split] = Ragged((target.around(piece) for piece in pieces), np.int64)
        number = SPLITS.index(split)
        fixed = (self._noisy(x, np.random.default_rng([number, row])) for row, x in enumerate(pieces))
        self.sources[split] = Ragged(fixed, np.int64)
        lengths = (self.targets[split].lengths - 1).tolist()
        return [Example(source=ids, target=(0.0, n, 0)) for ids, n in zip(pieces, lengths, strict=True)]

    def _noisy(self, tokens_L: Tokens, generator: np.random.Generator) -> Tokens:
        frame = self.tokenizer.frame(1).ended(self.tokenizer.specials.eos)
        return frame.around(self.noise(tokens_L, self.vocabulary, generator)[: self.room])

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of source and target together, with the noise of evaluation."""
        return self.sources[split].lengths + self.targets[split].lengths - 1

    def accounting(self, split: str) -> Accounting:
        """Counts of rows, positions (of evaluation's noise), and rows with an unknown piece."""
        texts = self.texts[split]
        unknown = np.add.reduceat(texts.values == self.tokenizer.specials.unk, texts.offsets[:-1], dtype=np.int64)
        positions = int(self.lengths(split).sum())
        return Accounting(examples=len(texts), positions=positions, truncated=int((unknown > 0).sum()), dropped=0)

    def collate(self, split: str, rows: NDArray[np.int64]) -> SequenceToSequenceBatch:
        """Rows by number; noise of training by torch's random state, which the loader sets for each batch."""
        source = self.sources[split].sequences(rows)
        if split == "train":
            generator = np.random.default_rng(int(torch.randint(2**62, ())))
            source = pad([self._noisy(self.texts[split][row], generator) for row in rows])
        return taught(rows, source, self.targets[split].sequences(rows))

    # -- with an encoder -----------------------------------------------------------------------------------------
    def attach(self, encoder: Encoder) -> None:
        """A linear map from states to the vocabulary, or the encoder's own table."""
        self.head = VocabularyHead(encoder=encoder, vocab_size=self.tokenizer.vocab_size, tie=self.tie)

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean -log p over target tokens; per row its sum, in nats."""
        assert isinstance(batch, SequenceToSequenceBatch)
        assert isinstance(encoder, Decoder)
        before = encoder.prefill(batch.source)
        states = encoder.decode(batch.target, before)
        real_BT = batch.target.mask
        logits_MV, label_M = self.head(states.values[real_BT], encoder).float(), batch.label[real_BT]
        loss = self.head.loss(logits_MV, label_M, encoder, smoothing=0.0)
        loss = sum((*before.losses.values(), *states.losses.values()), loss)
        predictions = [] if self.training else likelihoods.of_rows(logits_MV, label_M, real_BT)
        return Output(loss=loss, items=len(label_M), predictions=predictions)

    # -- without one ---------------------------------------------------------------------------------------------
    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: frequencies of ids in training, one added to each. `random`: all ids alike, whatever the seed."""
        if rule not in self.rules:
            return super().trivial(rule, split, seed)
        never = forbidden_ids(self.tokenizer) - {self.tokenizer.specials.unk}
        train, rows = self.targets["train"], self.targets[split]
        return likelihoods.of_unigrams(rule, train, rows, self.tokenizer.vocab_size, never)
