"""What users get wrong in classes of their own: each breaks one thing of the toy encoder, or of its metric."""
# B batch, L positions, D width

from __future__ import annotations

from typing import Any

import torch

from encoders.base import Encoder, InputSpec, Sequences, States, check_length
from tests.seqbench.toy import Hits, ToyEncoder


class NoDim(ToyEncoder):
    """Keeps its width to itself."""

    def __init__(self, *, dim: int, dropout: float, spec: InputSpec) -> None:
        super().__init__(dim=dim, dropout=dropout, spec=spec)
        del self.dim


class NoCausal(NoDim):
    """Does not say whether it looks ahead."""

    def __init__(self, *, dim: int, dropout: float, spec: InputSpec) -> None:
        super().__init__(dim=dim, dropout=dropout, spec=spec)
        self.dim = dim
        del self.causal


class NoFamily(ToyEncoder):
    """Belongs nowhere."""

    family = None  # type: ignore[assignment]


class HidesTold(ToyEncoder):
    """Keeps something under the name of a method of the contract."""

    def __init__(self, *, dim: int, dropout: float, spec: InputSpec) -> None:
        super().__init__(dim=dim, dropout=dropout, spec=spec)
        self.told = {"a": 1.0}  # type: ignore[method-assign]


class HidesFuse(ToyEncoder):
    """Has a part of such a name, which a call of `self.fuse` would not reach."""

    def __init__(self, *, dim: int, dropout: float, spec: InputSpec) -> None:
        super().__init__(dim=dim, dropout=dropout, spec=spec)
        self.fuse = torch.nn.Linear(dim, dim)  # type: ignore[assignment]


class GivesTensor(ToyEncoder):
    """States without a mask."""

    def forward(self, source: Sequences) -> States:
        return super().forward(source).values  # type: ignore[return-value]


class Wider(ToyEncoder):
    """Two widths."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return States(values=torch.cat([states.values, states.values], 2), mask=states.mask)


class Longer(ToyEncoder):
    """One state too many."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return States(values=torch.cat([states.values, states.values[:, :1]], 1), mask=states.mask)


class LastRowOnly(ToyEncoder):
    """A batch of one, whatever it got."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return States(values=states.values[-1:], mask=states.mask[-1:])


class FloatMask(ToyEncoder):
    """A mask of ones and zeros."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return States(values=states.values, mask=states.mask.float())


class NoMask(ToyEncoder):
    """None for a mask."""

    def forward(self, source: Sequences) -> States:
        return States(values=super().forward(source).values, mask=None)  # type: ignore[arg-type]


class NotANumber(ToyEncoder):
    """Divides by zero."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return States(values=states.values / 0 * 0, mask=states.mask)


class ForgetsSuper(Encoder):
    """Makes a layer before nn.Module is ready."""

    causal = True

    def __init__(self, *, dim: int, dropout: float, spec: InputSpec) -> None:
        self.dim = dim
        self.map = torch.nn.Linear(dim, dim)

    def forward(self, source: Sequences) -> States:
        raise NotImplementedError


class WrongCall(ToyEncoder):
    """Gives torch an argument that it hasn't."""

    def __init__(self, *, dim: int, dropout: float, spec: InputSpec) -> None:
        super().__init__(dim=dim, dropout=dropout, spec=spec)
        self.map = torch.nn.Linear(dim, dim, biass=False)  # type: ignore[call-arg]


class Whole(ToyEncoder):
    """Keeps the contract."""

    family = "mine"

    def __init__(self, *, dim: int, dropout: float, spec: InputSpec) -> None:
        if spec.vocab_size is None:
            raise ValueError("encoder: reads ids")
        super().__init__(dim=dim, dropout=dropout, spec=spec)
        self.spec = spec

    def forward(self, source: Sequences) -> States:
        check_length(source, self.spec)
        return super().forward(source)


class Leaks(Whole):
    """Keeps the contract but for padding, which its mean reads, and for a causality that it has not."""

    def forward(self, source: Sequences) -> States:
        states = super().forward(source)
        return States(values=states.values + states.values.mean(1, keepdim=True), mask=states.mask)


class Nameless(Hits):
    """A metric without a name."""

    name = None  # type: ignore[assignment]


class Undirected(Hits):
    """More is neither better nor worse."""

    name = "undirected"
    best = "high"  # type: ignore[assignment]


class HitsAgain(Hits):
    """The name of another."""

    def statistics(self, predictions: Any, references: Any) -> Any:
        """None is right."""
        return {"value": 0 * super().statistics(predictions, references)["value"]}
