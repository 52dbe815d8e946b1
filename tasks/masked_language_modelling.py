"""Masked language modelling: some tokens of a text are hidden and told from both sides."""
# B batch, L positions, M tokens that are asked for, V vocabulary

from __future__ import annotations

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
from tasks.heads import VocabularyHead
from tasks.masking import Masking
from tasks.metrics.base import Metric
from tasks.padding import Ragged
from tasks.readout import auxiliary
from tasks.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts(Batch):
    """Pieces of text, and fixed draws for their evaluation."""

    source: Sequences  # ids, as they are
    draws: Tensor  # (B, L, 3) float32 in [0, 1): which are chosen, what becomes of them, which other token


class MaskedLanguageModelling(Task):
    """Mean cross-entropy of the chosen tokens (Devlin et al. 2019, BERT, arXiv 1810.04805, section 3.1).

    Documents are cut into rows of `max_length` tokens, specials of the tokeniser among them. A token is chosen with
    probability `share`; of the chosen 80 % are replaced by MASK, 10 % by a random token, 10 % left. In training that
    is drawn anew each time; evaluation has one fixed draw a row, so that every encoder is asked the same. `examples`
    holds rows after setup, with `target` (0.0, tokens, 0), and a prediction is (nats, tokens, 0): perplexity is of the
    chosen tokens and not comparable with a causal model's. A row of which none is chosen has its first token chosen.
    """

    needs_all_positions = True
    rules = frozenset({"majority", "random"})

    def __init__(
        self,
        *,
        data: DataSet,
        tokenizer: Tokenizer,
        max_length: Annotated[int, Field(gt=1)],
        share: Annotated[float, Field(gt=0, lt=1)],
        tie: bool,
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        self.tokenizer, self.max_length, self.share, self.tie = tokenizer, max_length, share, tie
        self.rows: dict[str, Ragged] = {}

    def outline(self) -> InputSpec:
        """Length as configured; the vocabulary is a stand-in."""
        return sources.outline(self.tokenizer, self.max_length)

    def prepare(self) -> None:
        """Vocabulary from the training split; rows of all three."""
        self.tokenizer.fit([example.source for example in self.examples["train"]])
        special = self.tokenizer.special_ids - {self.tokenizer.specials.unk}
        size, mask = self.tokenizer.vocab_size, self.tokenizer.specials.mask
        self.masking = Masking(special=special, vocab_size=size, mask=mask, share=self.share)
        for split in SPLITS:
            self.examples[split] = self._cut(split)
        self.spec = InputSpec(
            max_length=self.max_length, vocab_size=self.tokenizer.vocab_size, vocabulary=self.tokenizer.vocabulary
        )

    def _cut(self, split: str) -> list[Example]:
        frame = self.tokenizer.frame(1)
        room = frame.room(self.max_length)
        pieces = [
            frame.around(one.ids[start : start + room])
            for one in self.tokenizer.encode([example.source for example in self.examples[split]])
            for start in range(0, len(one.ids), room)
        ]
        if not pieces:
            raise DataError(f"{split}: the documents are empty")
        self.rows[split] = Ragged(pieces, np.int64)
        asked = [int(self.masking.choose(*self._row(split, row)).sum()) for row in range(len(self.rows[split]))]
        return [Example(source=ids, target=(0.0, n, 0)) for ids, n in zip(pieces, asked, strict=True)]

    def _row(self, split: str, row: int) -> tuple[Tensor, Tensor]:
        """Ids (1, L) and which of them may be chosen's draws (1, L): as evaluation has them."""
        ids = torch.from_numpy(np.ascontiguousarray(self.rows[split][row])).unsqueeze(0)
        return ids, self._draws(split, row, ids.shape[1])[None, :, 0]

    @staticmethod
    def _draws(split: str, row: int, length: int) -> Tensor:
        generator = np.random.default_rng([SPLITS.index(split), row])
        return torch.from_numpy(generator.random((length, 3), dtype=np.float32))

    def attach(self, encoder: Encoder) -> None:
        """A linear map to the vocabulary, or the encoder's table."""
        self.head = VocabularyHead(encoder=encoder, vocab_size=self.tokenizer.vocab_size, tie=self.tie)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each row, (N,)."""
        return self.rows[split].lengths

    def collate(self, split: str, rows: NDArray[np.int64]) -> Texts:
        """Rows, padded, with their fixed draws."""
        source = self.rows[split].sequences(rows)
        draws = torch.ones(*source.values.shape, 3)
        for i, row in enumerate(rows.tolist() if split != "train" else ()):
            length = int(self.rows[split].lengths[row])
            draws[i, :length] = self._draws(split, row, length)
        return Texts(index=torch.from_numpy(rows), source=source, draws=draws)

    def accounting(self, split: str) -> Accounting:
        """Counts of rows, positions, and rows with an unknown piece."""
        rows = self.rows[split]
        unknown = np.add.reduceat(rows.values == self.tokenizer.specials.unk, rows.offsets[:-1], dtype=np.int64)
        return Accounting(examples=len(rows), positions=len(rows.values), truncated=int((unknown > 0).sum()), dropped=0)

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean -log p over chosen tokens; per row its sum, in nats."""
        assert isinstance(batch, Texts)
        ids_BL, mask_BL = batch.source.values, batch.source.mask
        draws_BL3 = torch.rand(batch.draws.shape, device=ids_BL.device) if self.training else batch.draws
        chosen_BL = self.masking.choose(ids_BL, draws_BL3[..., 0], mask_BL)
        hidden_BL = self.masking.hide(ids_BL, chosen_BL, draws_BL3[..., 1], draws_BL3[..., 2])
        states = encoder(replace(batch.source, values=hidden_BL))
        logits_MV = self.head(states.values[chosen_BL], encoder).float()
        target_M = ids_BL[chosen_BL]
        items = len(target_M)
        if self.training:
            loss = self.head.loss(logits_MV, target_M, encoder, smoothing=0.0)
            return Output(loss=auxiliary(loss, states), items=items)
        nats_BL = torch.zeros(chosen_BL.shape, dtype=torch.float64, device=ids_BL.device)
        nats_BL[chosen_BL] = F.cross_entropy(logits_MV, target_M, reduction="none").double()
        nats, tokens = nats_BL.sum(1), chosen_BL.sum(1)
        predictions = [(nat, n, 0) for nat, n in zip(nats.tolist(), tokens.tolist(), strict=True)]
        return Output(loss=auxiliary(nats.sum() / items, states).float(), items=items, predictions=predictions)

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: frequencies of ids in training, one added to each. `random`: all ids alike, whatever the seed."""
        if rule not in self.rules:
            return super().trivial(rule, split, seed)
        counts = np.bincount(self.rows["train"].values, minlength=self.tokenizer.vocab_size).astype(np.float64)
        weights = counts + 1 if rule == "majority" else np.ones_like(counts)
        weights[self.masking.special.numpy()] = 0
        with np.errstate(divide="ignore"):
            nats_V = -np.log(weights / weights.sum())
        found: dict[int, Any] = {}
        for row in range(len(self.rows[split])):
            ids, draws = self._row(split, row)
            chosen = self.masking.choose(ids, draws)
            found[row] = (float(nats_V[ids[chosen].numpy()].sum()), int(chosen.sum()), 0)
        return found
