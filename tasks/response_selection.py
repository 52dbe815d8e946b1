"""Response selection: which of several responses fits a dialogue, by the inner product of two encodings."""
# B batch, L positions, A candidates of a row, D width

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences
from tasks.base import Batch, Output
from tasks.candidates import CandidateTask, ranked
from tasks.data.base import DataSet
from tasks.metrics.base import Metric
from tasks.readout import auxiliary, pool, resolve
from tasks.sources import STAND_IN
from tasks.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseBatch(Batch):
    """Contexts and the candidates of each."""

    source: Sequences  # (B, L) ids of contexts
    candidates: Sequences  # (B * A, L) ids of responses, the A of a row after one another
    true: Tensor  # (B,) int64, place of the fitting one among the row's own
    context: Tensor  # (B,) int64, equal for equal contexts
    response: Tensor  # (B, A) int64, equal for equal responses


class ResponseSelection(CandidateTask):
    """A bi-encoder: one encoder reads contexts and responses, each side is pooled and mapped linearly, and their inner
    product over sqrt(D) is the score (Humeau et al. 2020, arXiv 1905.01969, section 4.2; two maps here, for the sides
    are unlike).

    A context is its turns joined by SEP, of which the last `max_length` ids are read; of a response the first
    `max_response_length`. The loss is the cross-entropy of the fitting candidate: among the row's own, and in training
    with `in_batch` among those of all rows of the batch. What would punish a right answer is left out: other rows'
    candidates where they have the same context, and (in ranking too) copies of the fitting response.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        tokenizer: Tokenizer,
        max_length: Annotated[int, Field(gt=0)],
        max_response_length: Annotated[int, Field(gt=0)],
        readout: Literal["auto", "mean", "max", "first", "last"],
        in_batch: bool,
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, tokenizer=tokenizer, metrics=metrics)
        self.readout, self.in_batch = readout, in_batch
        self.max_length, self.max_response_length = max_length, max_response_length

    def outline(self) -> InputSpec:
        """The spec with a stand-in vocabulary."""
        return InputSpec(max_length=max(self.max_length, self.max_response_length), vocab_size=STAND_IN)

    # -- data ----------------------------------------------------------------------------------------------------
    def frame_context(self, turns: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], bool]:
        """The last ids of the turns, joined by SEP; an unknown one where there are none."""
        one, ids = self.tokenizer.frame(1), self.tokenizer.frame(2).join(turns)
        room = one.room(self.max_length)
        return one.around(ids[-room:] if len(ids) else self._unknown), len(ids) > room

    def frame_response(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
        """The first ids; an unknown one where there are none."""
        one = self.tokenizer.frame(1)
        room = one.room(self.max_response_length, "max_response_length")
        return one.around(ids[:room] if len(ids) else self._unknown), len(ids) > room

    @property
    def _unknown(self) -> NDArray[np.int64]:
        return np.array([self.tokenizer.specials.unk])

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each context and its candidates together, (N,)."""
        lengths: NDArray[np.int64] = self.responses[split].lengths[self.choices[split]].sum(1)
        return lengths + self.contexts[split].lengths

    def collate(self, split: str, rows: NDArray[np.int64]) -> ResponseBatch:
        """Contexts and candidates padded, each side for itself."""
        choices_BA = self.choices[split][rows]
        return ResponseBatch(
            index=torch.from_numpy(rows),
            source=self.contexts[split].sequences(rows),
            candidates=self.responses[split].sequences(choices_BA.reshape(-1)),
            true=torch.from_numpy(self.true[split][rows]),
            context=torch.from_numpy(self.context_numbers[split][rows]),
            response=torch.from_numpy(choices_BA),
        )

    # -- with an encoder -----------------------------------------------------------------------------------------
    def attach(self, encoder: Encoder) -> None:
        """A linear map (D -> D) for each side."""
        self.pooling = resolve(self.readout, encoder)
        self.context_map = nn.Linear(encoder.dim, encoder.dim)
        self.response_map = nn.Linear(encoder.dim, encoder.dim)

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean cross-entropy over rows; outside training among the row's own candidates alone, and their ranking."""
        assert isinstance(batch, ResponseBatch)
        contexts, responses = encoder(batch.source), encoder(batch.candidates)
        x_BD = self.context_map(pool(contexts, self.pooling)).float()
        y_BAD = self.response_map(pool(responses, self.pooling)).float().unflatten(0, (len(batch.index), -1))
        y_BAD = y_BAD / math.sqrt(x_BD.shape[1])
        own_BA = torch.einsum("bd,bad->ba", x_BD, y_BAD).masked_fill(_copies(batch), -torch.inf)
        if self.training and self.in_batch:
            scores_BBA = torch.einsum("bd,cad->bca", x_BD, y_BAD).masked_fill(_also_right(batch), -torch.inf)
            scores_BBA = scores_BBA.diagonal_scatter(own_BA.T, dim1=0, dim2=1)
            true_B = batch.true + torch.arange(len(x_BD), device=x_BD.device) * y_BAD.shape[1]
            loss = F.cross_entropy(scores_BBA.flatten(1), true_B)
        else:
            loss = F.cross_entropy(own_BA, batch.true)
        loss = auxiliary(auxiliary(loss, contexts), responses)
        predictions = [] if self.training else ranked(own_BA.cpu().numpy(), batch.true.cpu().numpy())
        return Output(loss=loss, items=len(x_BD), predictions=predictions)


def _copies(batch: ResponseBatch) -> Tensor:
    """(B, A) bool: the row's own candidates that say the same as the fitting one, itself excepted."""
    same_BA = batch.response == batch.response.gather(1, batch.true[:, None])
    return same_BA.scatter(1, batch.true[:, None], False)


def _also_right(batch: ResponseBatch) -> Tensor:
    """(B, B, A) bool: candidates of other rows that are not to count as wrong for a row."""
    true_B = batch.response.gather(1, batch.true[:, None]).squeeze(1)
    return (batch.context[:, None] == batch.context)[:, :, None] | (batch.response == true_B[:, None, None])
