"""An encoder that reads two streams beside its source."""
# B batch, L positions, D width

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States


class TwoStreams(Encoder):
    """A position's id, its `pos` and its `gap`, each as a vector, added; no position sees another."""

    causal = True
    reads: ClassVar[frozenset[str]] = frozenset({"pos", "gap"})

    def __init__(self, *, dim: int, spec: InputSpec) -> None:
        super().__init__()
        self.dim, self.spec = dim, spec
        self.embed = _reader(spec, dim)
        self.further = nn.ModuleDict({name: _reader(part, dim) for name, part in spec.streams.items()})

    def forward(self, source: Sequences) -> States:
        if not 0 < source.values.shape[1] <= self.spec.max_length:
            raise ValueError(f"a source of {source.values.shape[1]} positions")
        x_BLD: Tensor = self.embed(source.values)
        for name, reader in self.further.items():
            stream = source.streams[name]
            assert stream.mask.equal(source.mask)
            x_BLD = x_BLD + reader(stream.values)
        return States(values=x_BLD, mask=source.mask)


def _reader(spec: InputSpec, dim: int) -> nn.Module:
    return nn.Embedding(spec.vocab_size, dim) if spec.vocab_size is not None else nn.Linear(spec.channels or 0, dim)
