"""The trivial rows of a board: no parameters and no states to speak of, only the name of a rule."""
# B batch, L positions, T target positions

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from encoders.base import Decoder, InputSpec, Sequences, States, check_length


class Trivial(Decoder):
    """Zero states of width 1; the predictions come from `Task.trivial(rule, ...)`, which the runner asks for.

    It is a Decoder and causal (a constant depends on nothing), so that every task takes it; whether a task knows the
    rule is for the task to say (`Task.rules`). Raises ValueError for a source beyond `spec.max_length`.
    """

    family: ClassVar[str] = "trivial"
    causal = True
    dim = 1

    def __init__(
        self, *, rule: Literal["majority", "random", "repeat_last", "source_mean", "biases"], spec: InputSpec
    ) -> None:
        super().__init__()
        self.rule = rule
        self.spec = spec

    def forward(self, source: Sequences) -> States:
        """Zeros, (B, L, 1)."""
        check_length(source, self.spec)
        return self._zeros(source)

    def prefill(self, source: Sequences) -> States:
        """Zeros, (B, L, 1); nothing has to be kept."""
        return self.forward(source)

    def decode(self, target: Sequences, before: States) -> States:
        """Zeros, (B, T, 1)."""
        return self._zeros(target)

    def _zeros(self, sequences: Sequences) -> States:
        mask = sequences.mask
        return States(values=mask.new_zeros((*mask.shape, 1), dtype=torch.float32), mask=mask)
