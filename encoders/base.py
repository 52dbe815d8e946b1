"""The contract of encoders: what one reads, what it returns, and the two types of encoder there are."""
# B batch, L positions, T target positions, D encoder.dim, C channels, V vocabulary

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequences:
    """A right-padded batch: what an encoder reads."""

    values: Tensor  # (B, L) int64 ids, or (B, L, C) float32 channels
    mask: Tensor  # (B, L) bool, True at a real position -- never the inverse, anywhere
    streams: dict[str, Sequences] = field(default_factory=dict)  # further named ones, which may be longer

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same batch on another device; float channels follow a dtype, ids and masks do not."""
        return replace(
            self,
            values=self.values.to(*args, **kwargs),
            mask=self.mask.to(*args, **kwargs),
            streams={name: stream.to(*args, **kwargs) for name, stream in self.streams.items()},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class States:
    """What an encoder returns: one vector per state. Pooling, logits and losses are the task's."""

    values: Tensor  # (B, L', D); L' = encoder.num_states(L)
    mask: Tensor  # (B, L') bool, True at a real state
    losses: dict[str, Tensor] = field(default_factory=dict)  # auxiliary terms of its own, each () and already weighted
    cache: Any = None  # private to the encoder, a pytree whose tensors all have B first; decode() hands it on

    def select(self, rows: Tensor, *, moves: Moves | None = None) -> Self:
        """The states of some rows, `rows` (B',) int64, cache included: what beam search needs to reorder.

        With `moves` the states are handed over, with those that they were made from: parts of the cache may be
        changed in place. B' is B then, and each row takes the place of one of the same source; `moves` are the
        positions of the target in which the two may differ.
        """

        def pick(leaf: Any) -> Any:
            if isinstance(leaf, CachePart):
                return leaf.select(rows, moves=moves)
            return leaf.index_select(0, rows) if isinstance(leaf, Tensor) else leaf

        return replace(
            self,
            values=self.values.index_select(0, rows),
            mask=self.mask.index_select(0, rows),
            cache=pytree.tree_map(pick, self.cache, is_leaf=lambda part: isinstance(part, CachePart)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Moves:
    """Positions that change where rows take each other's place: N of them, of any rows."""

    to: Tensor  # (N,) int64, row that gets a position
    of: Tensor  # (N,) int64, row that it comes from
    back: Tensor  # (N,) int64, which one: 1 is the last


class CachePart(ABC):
    """A part of a cache that selects its rows in its own way; a node of pytree, whose tensors have B first."""

    @abstractmethod
    def select(self, rows: Tensor, *, moves: Moves | None) -> Any:
        """As States.select."""


class OfSource(CachePart):
    """What is of the source alone, as no decode() changes it: not copied where rows of one source change places.

    Nor where each row is taken several times in a row, as beams are: `value` has it once then, and counts for the
    `copies` rows of states that follow one another.
    """

    def __init__(self, value: Any, copies: int = 1) -> None:
        self.value, self.copies = value, copies

    def each(self) -> Any:
        """The value with a row for every row of the states."""
        if self.copies == 1:
            return self.value
        return pytree.tree_map(lambda leaf: leaf.repeat_interleave(self.copies, dim=0), self.value)

    def select(self, rows: Tensor, *, moves: Moves | None) -> OfSource:
        """The rows of the value, those that are taken equally often once."""
        if moves is not None:
            return self
        places = rows // self.copies
        once, counts = torch.unique_consecutive(places, return_counts=True)
        copies = int(counts.max()) if len(counts) and bool((counts == counts[0]).all()) else 1
        kept = places if copies == 1 else once
        return OfSource(pytree.tree_map(lambda leaf: leaf.index_select(0, kept), self.value), copies)


pytree.register_pytree_node(
    OfSource, lambda part: ([part.value], part.copies), lambda values, copies: OfSource(next(iter(values)), copies)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How the positions of a source lie in an image: squares of `patch` x `patch` pixels, row by row.

    A square's channels are its pixels, row by row, each with its colours. Cells finer than squares (pixels, states)
    stand square by square, and row by row within one: (B, rows * columns * q * q, D).
    """

    rows: int  # of squares
    columns: int
    patch: int  # pixels, the side of a square

    def across(self, cells: int) -> int:
        """Of so many cells of an image those along a square's side, q; 0 where they don't divide all squares so."""
        each, left = divmod(cells, self.rows * self.columns)
        q = math.isqrt(each)
        return q if q * q == each and not left else 0

    def lay_out(self, cells: Tensor) -> Tensor:
        """Cells (B, rows * columns * q * q, D) as a map (B, D, rows * q, columns * q)."""
        q = self.across(cells.shape[1])
        squares = cells.view(len(cells), self.rows, self.columns, q, q, cells.shape[2])
        return squares.permute(0, 5, 1, 3, 2, 4).reshape(len(cells), -1, self.rows * q, self.columns * q)

    def line_up(self, image: Tensor) -> Tensor:
        """A map (B, D, rows * q, columns * q) as cells (B, rows * columns * q * q, D)."""
        rows, dim, height, _ = image.shape
        q = height // self.rows
        squares = image.reshape(rows, dim, self.rows, q, self.columns, q).permute(0, 2, 4, 3, 5, 1)
        return squares.reshape(rows, self.rows * self.columns * q * q, dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """Whose the channels of a position are: `width` of each node of a graph (a skeleton's joints), node by node."""

    nodes: int  # N
    width: int  # channels of a node: its coordinates
    edges: tuple[tuple[int, int], ...]  # each once, of two different nodes, in either order
    parts: tuple[tuple[int, ...], ...] = ()  # nodes that belong together: head, torso, an arm

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.width < 1:
            raise ValueError(f"Graph: {self.nodes} nodes of {self.width} channels")
        named = {node for group in (*self.edges, *self.parts) for node in group}
        wrong = sorted(node for node in named if not 0 <= node < self.nodes)
        loops = [edge for edge in self.edges if len(set(edge)) != 2]
        if wrong or loops or len({frozenset(edge) for edge in self.edges}) != len(self.edges):
            raise ValueError(f"Graph: {wrong or loops or self.edges}; edges are pairs of nodes 0 to N - 1, each once")

    def adjacency(self) -> Tensor:
        """(N, N) float32, 1 between neighbours: symmetric, its diagonal 0."""
        rows = [[0.0] * self.nodes for _ in range(self.nodes)]
        for a, b in self.edges:
            rows[a][b] = rows[b][a] = 1.0
        return torch.tensor(rows, device="cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """What a task feeds; read by encoders/blocks/embedding.py and for lengths. Exactly one of vocab_size, channels."""

    max_length: int  # positions of a source at most
    vocab_size: int | None = None  # V, for ids; sources and targets of decode() share it
    channels: int | None = None  # C, for float channels
    target_length: int = 0  # positions that decode() may add at most; of a forecast, those that are asked for
    vocabulary: str | None = None  # sha256 of the tokenizer.json that the ids are of; None: of no checkpoint
    grid: Grid | None = None  # how positions lie in an image; an encoder may read them as a sequence all the same
    graph: Graph | None = None  # whose the channels are; an encoder may read them as one vector all the same
    streams: dict[str, InputSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.vocab_size is None) == (self.channels is None):
            raise ValueError("InputSpec: set exactly one of vocab_size and channels")
        if self.max_length < 1 or self.target_length < 0:
            raise ValueError(f"InputSpec: max_length {self.max_length}, target_length {self.target_length}")
        if self.grid is not None:
            squares, pixels = self.grid.rows * self.grid.columns, self.grid.patch**2
            if self.max_length != squares or not self.channels or self.channels % pixels:
                raise ValueError(f"InputSpec: {self.max_length} positions of {self.channels} channels for {self.grid}")
        if self.graph is not None and self.channels != self.graph.nodes * self.graph.width:
            raise ValueError(f"InputSpec: {self.channels} channels for {self.graph.nodes} nodes of {self.graph.width}")


class LossPart(nn.Module):
    """A part of an encoder that has losses of its own. No encoder passes them on: `part_losses` finds them."""

    def losses(self) -> dict[str, Tensor]:
        """By name, of the last pass in training, each () and already weighted; given once."""
        return {}


def part_losses(encoder: nn.Module) -> list[Tensor]:
    """The losses of an encoder's parts, wherever they stand in it, since somebody last asked.

    Every Task adds them to its loss in training, after its forward(); who trains without a task adds them so.
    """
    return [loss for part in encoder.modules() if isinstance(part, LossPart) for loss in part.losses().values()]


class Encoder(nn.Module, ABC):
    """Turns sequences into states. Subclasses are final: to vary one, pass it a different part or wrap it.

    `forward` raises ValueError for a source longer than `spec.max_length`, or of no positions. Weight decay falls on
    matrices alone, tables left out; a module, the encoder or a part of it, may exempt further parameters by a class
    attribute that names them: `without_decay: ClassVar[frozenset[str]] = frozenset({"log_dt"})`.
    """

    dim: int  # D
    family: ClassVar[str] = "other"  # a filter of the board: encoder-only, decoder-only, recurrent, ...
    causal: bool  # True: values[:, t] depends on positions <= t only (held by a contract test, both ways)
    reads: ClassVar[frozenset[str]] = frozenset()  # names of the streams that it can read
    requires: ClassVar[frozenset[str]] = frozenset()  # those of them that it can't do without
    ahead: ClassVar[bool] = False  # True: its states are of the spec.target_length positions after the source, one each
    packs: ClassVar[bool] = False  # True: `packed` may be set
    packed: bool = False  # set by a run (trainer.padding_free): the same states by work on real positions alone
    # vectors that a state is, side by side, each of dim / outputs numbers: a head over a vocabulary gives each its
    # logits by the same weights, and fuse() makes log-probabilities of them
    outputs: int = 1
    # constructor arguments that evaluation mode alone reads, validation's too, each with its value in the run that
    # trains: a run that differs from that one in these alone takes its weights
    test_only: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    # constructor arguments that `budget.match` may change, where a config gives them a number:
    width: ClassVar[str] = "dim"
    along: ClassVar[tuple[str, ...]] = ("hidden",)  # in proportion to the width, and to fill what its steps leave over
    depths: ClassVar[tuple[str, ...]] = ("depth",)  # the first is solved, the others follow in proportion

    @abstractmethod
    def forward(self, source: Sequences) -> States:
        """States of `source` that a task reads out: of the whole network, decoder included where there is one."""

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions; fewer where positions are merged (patches)."""
        return length

    def inherited(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its state after a run before it left `weights`: these. Other where the stages differ in their parts.

        Those that begin anew are given as they are; a name or a shape that is not this encoder's is refused after it.
        """
        return weights

    def fuse(self, logits: Tensor, states: Tensor) -> Tensor:
        """Log-probabilities (M, V) of the `outputs` logits (outputs, M, V) of states (M, D); here those of their sum.

        They need not add up to 1: a loss takes them as they are in training, all else renormalises.
        """
        return logits.sum(0).log_softmax(-1)

    def told(self) -> dict[str, float]:
        """Numbers that it tells of itself when it is trained, by name, for its record and claims; {}: none."""
        return {}

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D / outputs) input table, for a task that ties its output weights to it; None where there is none."""
        return None


class Decoder(Encoder, ABC):
    """An encoder that can also continue a sequence: decoder-only and encoder-decoder alike."""

    @abstractmethod
    def prefill(self, source: Sequences) -> States:
        """What decode() continues: like forward(), but with a cache, and no work that only a read-out needs."""

    @abstractmethod
    def decode(self, target: Sequences, before: States) -> States:
        """States of `target` (B, T), which continues what made `before`: prefill(), or an earlier decode().

        Causal within the target. In steps or at once, with padding or without, the states are the same.
        """


def check_length(source: Sequences, spec: InputSpec) -> None:
    """Raise ValueError when `source` is longer than the encoder was made for, and when it has no position."""
    length = source.values.shape[1]
    if not length:
        raise ValueError("a source of no positions; every row has at least one")
    if length > spec.max_length:
        raise ValueError(f"a source of {length} positions; this encoder was made for at most {spec.max_length}")


class ContractError(ValueError):
    """A class that breaks the contract of encoders; its two lines name the class, what it gave and what is right."""


def check_declared(encoder: Encoder) -> None:
    """Raise ContractError where an encoder does not say what the contract asks of it, or hides a method of it."""
    name = type(encoder).__name__
    if hidden := _hidden(encoder):
        raise ContractError(
            f"{name} has an attribute {hidden}, which takes the place of what the contract has under this name\n"
            f"give the attribute another name; encoders/base.py says what an encoder's {hidden} is"
        )
    dim, causal = getattr(encoder, "dim", None), getattr(encoder, "causal", None)
    if type(dim) is not int or dim < 1:
        raise ContractError(
            f"{name}.dim is {_said(dim)}\nset self.dim in its constructor: the width of its states, 1 or more"
        )
    if type(causal) is not bool:
        raise ContractError(
            f"{name}.causal is {_said(causal)}\n"
            "set it to True if a state depends on the positions up to its own alone, else to False"
        )
    if not isinstance(encoder.family, str) or not encoder.family:
        raise ContractError(
            f'{name}.family is {_said(encoder.family)}\ngive a word for the board, as family = "recurrent"'
        )


def check_states(states: States, encoder: Encoder, source: Sequences) -> None:
    """Raise ContractError where `encoder(source)` gave something else than the contract says."""
    call = f"{type(encoder).__name__}.forward"
    if not isinstance(states, States):
        raise ContractError(
            f"{call} gives a {type(states).__name__}\nreturn States(values=..., mask=...) of encoders.base"
        )
    rows, length = source.mask.shape
    number = encoder.num_states(length)
    for name, right, meant in (
        ("values", (rows, number, encoder.dim), "(rows, num_states(positions), dim)"),
        ("mask", (rows, number), "(rows, num_states(positions))"),
    ):
        found = getattr(states, name)
        given = (
            f"{name} of {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__} as {name}"
        )
        if not isinstance(found, Tensor) or tuple(found.shape) != right:
            raise ContractError(
                f"{call} gives {given}, for {rows} rows of {length} positions\n{right} is right: {meant}"
            )
    if not states.values.is_floating_point() or states.mask.dtype != torch.bool:
        raise ContractError(
            f"{call} gives values of {states.values.dtype} and a mask of {states.mask.dtype}\n"
            "values are floats, and the mask is bool, True at a real state"
        )
    if not torch.isfinite(states.values[states.mask]).all():
        raise ContractError(
            f"{call} gives NaN or infinite states at real positions, before any training\n"
            "finite ones are right; look at the first weights, and at divisions by what can be 0"
        )


def _hidden(encoder: Encoder) -> str | None:
    """The first method (or property) of the contract whose name a value has, or a part, which calls do not reach."""
    for base in (Encoder, Decoder):
        for name, value in vars(base).items():
            method = callable(value)
            if not isinstance(encoder, base) or name.startswith("_") or not (method or isinstance(value, property)):
                continue
            if name in encoder._modules or (method and not callable(getattr(encoder, name))):
                return name
    return None


def _said(value: object) -> str:
    """What stands in place of a fact."""
    return "missing" if value is None else repr(value)


def positions_of(mask: Tensor) -> Tensor:
    """Position of each entry among the real ones of its row, (B, L) int64; padding repeats the last real one."""
    return (mask.to(torch.int64).cumsum(1) - 1).clamp_min(0)
