"""Sequence to sequence that looks into the network: how much of its source a target's state uses, place by place."""
# B batch, L source positions, T target positions, D width of the table, or encoder.dim

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Protocol, Unpack, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from encoders.base import Decoder, Encoder, Sequences
from tasks.metrics.along import PARTS, part_of
from tasks.search import Hypothesis, Search
from tasks.sequence_to_sequence import Arguments, SequenceToSequence, SequenceToSequenceBatch


@runtime_checkable
class TellsSourceShare(Protocol):
    """An encoder that can say how much of its attention falls on the source."""

    def source_share(self, source: Sequences, target: Sequences) -> Tensor:
        """Of each target position, (B, T) in [0, 1]; `target` follows `source` as for decode()."""


class SourceUse(SequenceToSequence):
    """SequenceToSequence; a prediction is a mapping: `words`, its output there, and of each tenth of this output

    - `share`: of attention, what falls on the source, a mean over positions, where the encoder tells it;
    - `sensitivity`: the root mean square, over positions, of the Frobenius norm of d state / d source embeddings,
      at the ids of the output. ||J||_F^2 is the mean of ||J u||^2 over standard normal u (Hutchinson 1989), of which
      `probes` are drawn for each row, from its number alone; J u of all positions is one pass of forward
      differentiation.

    Both for the first `looked_into` rows of a split, [] for others. Training is that of SequenceToSequence. Raises
    ValueError for an encoder without a table of ids (`token_embedding`), whose derivative there is none of.
    """

    def __init__(
        self,
        *,
        search: Search,
        looked_into: Annotated[int, Field(ge=0)],
        probes: Annotated[int, Field(gt=0)],
        **rest: Unpack[Arguments],
    ) -> None:
        super().__init__(search=search, **rest)
        self.looked_into, self.probes = looked_into, probes

    def attach(self, encoder: Encoder) -> None:
        """As SequenceToSequence, once it is clear that the encoder has a table."""
        table_of(encoder)
        super().attach(encoder)

    def predict(self, encoder: Decoder, batch: SequenceToSequenceBatch) -> list[Any]:
        """Outputs, and what was seen while they were made."""
        found = self.found(encoder, batch.source)
        predictions = [{"words": words, "share": [], "sensitivity": []} for words in self.said(found)]
        rows = (batch.index < self.looked_into).nonzero().squeeze(1)
        if not len(rows):
            return predictions
        source = Sequences(values=batch.source.values[rows], mask=batch.source.mask[rows])
        target = self._fed([found[row] for row in rows.tolist()], source.values.device)
        share_RT = encoder.source_share(source, target).tolist() if isinstance(encoder, TellsSourceShare) else None
        square_RT = self._squares(encoder, source, target, batch.index[rows].tolist()).tolist()
        for i, (row, length) in enumerate(zip(rows.tolist(), target.mask.sum(1).tolist(), strict=True)):
            if share_RT is not None:
                predictions[row]["share"] = _by_part(share_RT[i][:length])
            predictions[row]["sensitivity"] = [part**0.5 for part in _by_part(square_RT[i][:length])]
        return predictions

    def _fed(self, found: list[Hypothesis], device: torch.device) -> Sequences:
        """What the decoder has read to make these outputs: BOS, then their ids."""
        ids = [[self.tokenizer.specials.bos, *one.ids][: self.spec.target_length] for one in found]
        mask_BT = torch.arange(max(map(len, ids))) < torch.tensor([len(one) for one in ids]).unsqueeze(1)
        values_BT = torch.zeros(mask_BT.shape, dtype=torch.int64)
        values_BT[mask_BT] = torch.tensor([i for one in ids for i in one])
        return Sequences(values=values_BT.to(device), mask=mask_BT.to(device))

    def _squares(self, encoder: Decoder, source: Sequences, target: Sequences, numbers: list[int]) -> Tensor:
        """||J u||^2 of each target state, (B, T), mean over the probes u of the rows of these numbers."""
        dim = table_of(encoder).embedding_dim  # an encoder of several outputs is wider
        total_BT = torch.zeros(target.mask.shape, device=target.mask.device)
        for probe in range(self.probes):
            u_BLD = torch.zeros(*source.mask.shape, dim)
            for row, (number, length) in enumerate(zip(numbers, source.mask.sum(1).tolist(), strict=True)):
                generator = torch.Generator().manual_seed(number * self.probes + probe)
                u_BLD[row, :length] = torch.randn(length, dim, generator=generator)
            total_BT += along_source(encoder, source, target, u_BLD.to(total_BT.device)).square().sum(-1)
        return total_BT / self.probes


def along_source(encoder: Decoder, source: Sequences, target: Sequences, u_BLD: Tensor) -> Tensor:
    """J u: how the target's states change as the source's embeddings go along u, (B, T, D) float32."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")  # torch's own, at the first time
        return _along_source(encoder, source, target, u_BLD)


def _along_source(encoder: Decoder, source: Sequences, target: Sequences, u_BLD: Tensor) -> Tensor:
    # gradients on: a cache is then made of new tensors, which a derivative can follow; the plain kernel has one
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        with _moved(table_of(encoder), u_BLD):
            before = encoder.prefill(source)
        states_BTD = encoder.decode(target, before).values
        tangent_BTD: Tensor | None = forward_ad.unpack_dual(states_BTD).tangent  # type: ignore[no-untyped-call]
    return torch.zeros_like(states_BTD).float() if tangent_BTD is None else tangent_BTD.detach().float()


def table_of(encoder: Encoder) -> nn.Embedding:
    """The module of its table of ids. Raises ValueError where there is none."""
    for module in encoder.modules():
        if isinstance(module, nn.Embedding) and module.weight is encoder.token_embedding:
            return module
    raise ValueError(
        f"task: {type(encoder).__name__} has no table of ids, so no derivative by its source; "
        "take one with `token_embedding`, or SequenceToSequence"
    )


@contextmanager
def _moved(table: nn.Embedding, u_BLD: Tensor) -> Iterator[None]:
    """What the table gives goes along u."""

    def dual(module: nn.Module, ids: Any, found_BLD: Tensor) -> Tensor:
        moving: Tensor = forward_ad.make_dual(found_BLD, u_BLD.to(found_BLD.dtype))  # type: ignore[no-untyped-call]
        return moving

    handle = table.register_forward_hook(dual)
    try:
        yield
    finally:
        handle.remove()


def _by_part(values: list[float]) -> list[float]:
    """Mean of each tenth of a sequence; [] of one that is shorter than ten."""
    if len(values) < PARTS:
        return []
    part = part_of(len(values))
    return [float(x) for x in np.bincount(part, values, PARTS) / np.bincount(part, minlength=PARTS)]
