"""What contract checks work with: an encoder by its config on one kind of input, and right-padded rows to feed it."""
# B batch, L positions, T target positions

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.testing import assert_close

from encoders.base import Decoder, Encoder, Graph, Grid, InputSpec, Sequences
from seqbench.build import build, locate

VOCAB, CHANNELS, LONGEST, TARGET = 17, 3, 12, 6
Kind = Literal["ids", "channels", "image", "graph"]
GRID = Grid(rows=3, columns=4, patch=16)  # an image of LONGEST squares; as a source of channels, of fewer as well
GRAPH = Graph(nodes=4, width=CHANNELS, edges=((0, 1), (2, 3)), parts=((0,), (1,)))  # two that are alike


@dataclass(frozen=True)
class Case:
    """One encoder on one kind of input."""

    node: dict[str, Any]  # its config
    kind: Kind
    allowed: tuple[str, ...] = ("encoders",)  # packages that it may come from

    @cached_property
    def target(self) -> type[Encoder]:
        return locate(self.node["_target_"], "encoder", self.allowed)  # type: ignore[no-any-return]

    def spec(self, *, streams: frozenset[str] = frozenset()) -> InputSpec:
        """Sources up to 12 positions, targets up to 6; the streams named and those that it can't do without."""
        names = sorted(streams | self.target.requires)
        return InputSpec(
            max_length=LONGEST,
            vocab_size=VOCAB if self.kind == "ids" else None,
            channels={
                "channels": CHANNELS,
                "image": CHANNELS * GRID.patch**2,
                "graph": CHANNELS * GRAPH.nodes,
            }.get(self.kind),
            grid=GRID if self.kind == "image" else None,
            graph=GRAPH if self.kind == "graph" else None,
            target_length=TARGET,
            streams={name: InputSpec(max_length=LONGEST, vocab_size=2) for name in names},
        )

    @property
    def taken(self) -> bool:
        """Whether the encoder takes the kind; ValueError is how it refuses."""
        try:
            self.encoder  # noqa: B018 -- built here, once for all checks
        except ValueError:
            return False
        return True

    def make(self, *, seed: int = 0, spec: InputSpec | None = None) -> Encoder:
        """A new one in evaluation mode, its weights drawn from a seed. Raises ValueError where it refuses the kind."""
        torch.manual_seed(seed)
        encoder = build(self.node, "encoder", self.allowed, spec=spec or self.spec())
        assert isinstance(encoder, Encoder)
        return encoder.eval()

    @cached_property
    def encoder(self) -> Encoder:
        """One for checks that leave it as it is."""
        return self.make()

    @property
    def decoder(self) -> Decoder:
        """The same, which must be a Decoder."""
        assert isinstance(self.encoder, Decoder)
        return self.encoder

    def draw(self, lengths: list[int], *, seed: int = 1, spec: InputSpec | None = None) -> Sequences:
        """Right-padded random rows; what stands at padding is as random as the rest, and larger."""
        generator = torch.Generator().manual_seed(seed)
        spec, longest = spec or self.spec(), max(lengths)
        mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)

        def one(part: InputSpec) -> Tensor:
            if part.vocab_size is not None:
                return torch.randint(part.vocab_size, mask.shape, generator=generator)
            values = torch.randn((*mask.shape, part.channels or 0), generator=generator)
            return torch.where(mask.unsqueeze(-1), values, 50 * values)

        streams = {name: Sequences(values=one(part), mask=mask) for name, part in spec.streams.items()}
        return Sequences(values=one(spec), mask=mask, streams=streams)


def cases_of(node: dict[str, Any], allowed: tuple[str, ...] = ("encoders",)) -> list[Case]:
    """An encoder on ids and on channels, whichever it takes; on an image or a graph where it takes neither."""
    ids, channels, *laid_out = (Case(node, kind, allowed) for kind in get_args(Kind))
    return [case for case in (ids, channels) if case.taken] or [case for case in laid_out if case.taken]


def cut(sequences: Sequences, row: int, start: int, end: int) -> Sequences:
    """Positions start to end of one row, as a batch of one."""
    streams = {name: cut(stream, row, start, end) for name, stream in sequences.streams.items()}
    part = slice(row, row + 1), slice(start, end)
    return Sequences(values=sequences.values[part], mask=sequences.mask[part], streams=streams)


def real(sequences: Sequences, row: int) -> Sequences:
    """The real positions of one row."""
    return cut(sequences, row, 0, int(sequences.mask[row].sum()))


def joined(*parts: Sequences) -> Sequences:
    """One after the other."""
    streams = {name: joined(*(part.streams[name] for part in parts)) for name in parts[0].streams}
    values, mask = torch.cat([p.values for p in parts], 1), torch.cat([p.mask for p in parts], 1)
    return Sequences(values=values, mask=mask, streams=streams)


def same(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, atol=1e-5, rtol=1e-5)


Check = Callable[[Case], None]
