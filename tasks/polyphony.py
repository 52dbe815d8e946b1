"""Polyphony: the next frame of a piece, a set of keys that sound, from the frames before it."""
# B batch, L frames that are read, C keys, N pieces

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from encoders.base import Encoder, InputSpec, Sequences
from tasks.base import Accounting, Batch, Output, Task
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.metrics.base import Metric
from tasks.padding import Ragged
from tasks.readout import auxiliary, linear

KEYS = 88  # stand-in until the data is read


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces(Batch):
    """Frames, and the frames that follow each."""

    source: Sequences  # (B, L, C) 0 or 1, all frames but the last
    target: Tensor  # (B, L, C) float32, the frame after each; zeros at padding


class Polyphony(Task):
    """Each key is on or off in the next frame, independently given the frames so far: a logistic unit a key.

    The loss is the mean over frames of the binary cross-entropies' sum over keys (Boulanger-Lewandowski et al. 2012,
    arXiv 1206.6392; Bai et al. 2018, arXiv 1803.01271, section 4.2). For causal encoders; a piece x_1 .. x_n gives
    n - 1 frames to predict, x_1 is not. Sources are (n, C) of 0 and 1, n >= 2. A prediction is (nats, frames), summed
    over the piece. Pieces longer than `max_length` + 1 frames are cut and counted.
    """

    needs_causal = True
    needs_all_positions = True
    rules = frozenset({"majority", "random", "repeat_last"})

    def __init__(
        self,
        *,
        data: DataSet,
        max_length: Annotated[int, Field(gt=0)],
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        self.max_length = max_length
        self.frames: dict[str, Ragged] = {}
        self.truncated: dict[str, int] = {}

    def outline(self) -> InputSpec:
        """Length as configured; the keys of a piano stand in."""
        return InputSpec(max_length=self.max_length, channels=KEYS)

    def prepare(self) -> None:
        """Pieces as arrays; the number of keys is that of the first training piece."""
        self.keys = np.asarray(self.examples["train"][0].source).shape[-1]
        for split in SPLITS:
            pieces = [_piece(example, self.keys, split, row) for row, example in enumerate(self.examples[split])]
            self.truncated[split] = sum(len(piece) > self.max_length + 1 for piece in pieces)
            self.frames[split] = Ragged([piece[: self.max_length + 1] for piece in pieces], np.float32)
        self.spec = InputSpec(max_length=self.max_length, channels=self.keys)

    def references(self, split: str) -> list[Any]:
        """No nats over each piece's frames."""
        return [(0.0, int(length)) for length in self.lengths(split)]

    def attach(self, encoder: Encoder) -> None:
        """A linear layer (D -> C) over each state."""
        self.head = linear(encoder.dim, self.keys)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Frames that are read of each piece, (N,)."""
        return self.frames[split].lengths - 1

    def collate(self, split: str, rows: NDArray[np.int64]) -> Pieces:
        """Pieces, padded; the source without the last frame, the target without the first."""
        whole = self.frames[split].sequences(rows)
        mask_BL = whole.mask[:, 1:]
        return Pieces(
            index=torch.from_numpy(rows),
            source=Sequences(values=whole.values[:, :-1] * mask_BL.unsqueeze(-1), mask=mask_BL),
            target=whole.values[:, 1:],
        )

    def accounting(self, split: str) -> Accounting:
        """Counts of frames read, and of pieces that were cut."""
        lengths = self.lengths(split)
        return Accounting(
            examples=len(lengths), positions=int(lengths.sum()), truncated=self.truncated[split], dropped=0
        )

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean -log p over frames; per piece its sum, in nats."""
        assert isinstance(batch, Pieces)
        states = encoder(batch.source)
        nats_BL = self._nats(self.head(states.values).float(), batch.target) * batch.source.mask
        items = int(batch.source.mask.sum())
        loss = auxiliary(nats_BL.sum() / items, states)
        if self.training:
            return Output(loss=loss, items=items)
        sums, frames = nats_BL.double().sum(1), batch.source.mask.sum(1)
        return Output(loss=loss, items=items, predictions=list(zip(sums.tolist(), frames.tolist(), strict=True)))

    @staticmethod
    def _nats(logits_BLC: Tensor, target_BLC: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits_BLC, target_BLC, reduction="none").sum(-1)

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: how often each key sounds in training, one frame with and one without added. `random`: all even.

        `repeat_last`: a key goes on (or rests) with the frequency that keys have in training. None depends on the seed.
        """
        if rule not in self.rules:
            return super().trivial(rule, split, seed)
        train = self.frames["train"]
        if rule == "repeat_last":
            return self._repeat_last(split)
        counts_C = train.values.sum(0, dtype=np.float64)
        p_C = (counts_C + 1) / (len(train.values) + 2) if rule == "majority" else np.full(self.keys, 0.5)
        on_C, off_C = -np.log(p_C), -np.log1p(-p_C)
        sums = [
            float((piece[1:] * on_C + (1 - piece[1:]) * off_C).sum())
            for piece in (self.frames[split][row] for row in range(len(self.frames[split])))
        ]
        return dict(enumerate(zip(sums, self.lengths(split).tolist(), strict=True)))

    def _repeat_last(self, split: str) -> dict[int, Any]:
        before_now = np.ones((2, 2))  # keys by (was on, is on), one added
        for row in range(len(self.frames["train"])):
            piece = self.frames["train"][row].astype(np.int64)
            np.add.at(before_now, (piece[:-1].ravel(), piece[1:].ravel()), 1)
        nats = -np.log(before_now / before_now.sum(1, keepdims=True))
        found = {}
        for row in range(len(self.frames[split])):
            piece = self.frames[split][row].astype(np.int64)
            found[row] = (float(nats[piece[:-1], piece[1:]].sum()), len(piece) - 1)
        return found


def _piece(example: Example, keys: int, split: str, row: int) -> NDArray[np.float32]:
    piece = np.asarray(example.source, dtype=np.float32)
    if piece.ndim != 2 or len(piece) < 2 or piece.shape[1] != keys:
        raise DataError(f"{split} row {row}: frames of {piece.shape}; polyphony needs (2 or more, {keys})")
    if not np.isin(piece, (0, 1)).all():
        raise DataError(f"{split} row {row}: frames hold other values than 0 and 1")
    if example.streams:
        raise DataError(f"{split} row {row}: has streams {sorted(example.streams)}; polyphony feeds none")
    return piece
