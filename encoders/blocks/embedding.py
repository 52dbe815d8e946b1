"""The first layer of every encoder: ids by a table, channels by a linear map, patches by a linear map of several."""
# B batch, L positions, P patches, D width, C channels

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import InputSpec, Sequences, check_length


class InputEmbedding(nn.Module):
    """What the task feeds -> vectors, the one reader of an InputSpec.

    ids (B, L) -> table (V, D); channels (B, L, C) -> Linear(C * patch, D) over non-overlapping patches of `patch`
    positions (Dosovitskiy et al. 2021, arXiv 2010.11929, for images; Nie et al. 2023, arXiv 2211.14730, for series;
    the last patch is filled up with zeros). Streams of ids in the spec are embedded by tables of their own and added,
    position by position, as BERT adds its token types; streams of channels by linear maps. What a stream has beyond the
    source (a calendar goes on) is left aside.

    Raises ValueError for patches of ids, for patches beside a stream, and for a source beyond `spec.max_length`.
    """

    def __init__(self, *, dim: int, patch: int, spec: InputSpec) -> None:
        super().__init__()
        self.spec, self.patch = spec, patch
        self.table: nn.Embedding | None = None
        self.linear: nn.Linear | None = None
        if spec.vocab_size is not None:
            if patch != 1:
                raise ValueError(f"patch: {patch} positions can be merged of channels only; this task feeds ids, use 1")
            self.table = nn.Embedding(spec.vocab_size, dim)
        else:
            assert spec.channels is not None
            self.linear = nn.Linear(spec.channels * patch, dim)
        self.streams = nn.ModuleDict()
        for name, stream in spec.streams.items():
            if patch != 1:
                raise ValueError(f"patch: {patch} positions are merged, so the stream {name} can't be added; use 1")
            if stream.vocab_size is not None:
                self.streams[_key(name)] = nn.Embedding(stream.vocab_size, dim)
            else:
                self.streams[_key(name)] = nn.Linear(stream.channels or 0, dim, bias=False)

    def num_states(self, length: int) -> int:
        """Number of vectors for `length` positions."""
        return -(-length // self.patch)

    def forward(self, source: Sequences) -> tuple[Tensor, Tensor]:
        """Vectors (B, P, D) and their mask (B, P), for a source that is at most `spec.max_length` long."""
        check_length(source, self.spec)
        return self.embed(source)

    def embed(self, source: Sequences) -> tuple[Tensor, Tensor]:
        """As forward, without the check of the length: for targets, whose length is judged with their prefix."""
        mask_BP = source.mask
        if self.table is not None:
            x_BPD = self.table(source.values)
        else:
            assert self.linear is not None
            values_BLC = source.values * source.mask.unsqueeze(-1)
            if self.patch > 1:
                fill = -values_BLC.shape[1] % self.patch
                values_BLC = F.pad(values_BLC, (0, 0, 0, fill)).reshape(
                    len(mask_BP), -1, self.patch * values_BLC.shape[2]
                )
                mask_BP = F.pad(mask_BP, (0, fill)).view(len(mask_BP), -1, self.patch).any(2)
            x_BPD = self.linear(values_BLC)
        for name, stream in source.streams.items():
            if _key(name) in self.streams:
                x_BPD = x_BPD + self.streams[_key(name)](stream.values[:, : x_BPD.shape[1]])
        return x_BPD, mask_BP

    def continues(self, target: Sequences, past_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, T, D) of a target, and the mask (B, past + T) of all that was decoded and this.

        Raises ValueError beyond `spec.target_length`, and for patches: a step would end within one.
        """
        if self.patch != 1:
            raise ValueError(f"patch: {self.patch} positions are merged, so a target can't be continued; use 1")
        mask_BS = torch.cat((past_mask, target.mask), dim=1)
        if mask_BS.shape[1] > self.spec.target_length:
            raise ValueError(
                f"a target of {mask_BS.shape[1]} positions; this encoder was made for at most {self.spec.target_length}"
            )
        return self.embed(target)[0], mask_BS


def _key(name: str) -> str:
    """Name of a stream's table: "type" alone would hide a method of nn.Module."""
    return f"stream_{name}"
