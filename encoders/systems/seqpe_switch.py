"""One word for the kind of positions, so that SeqPE and what it is compared with are one config with one key turned."""
# B rows, L positions, H heads, E width of a head

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from encoders.blocks.positions import (
    ALiBi,
    Learned,
    NoPosition,
    Position,
    PositionModule,
    Rotary,
    Rotation,
    Sinusoidal,
)
from encoders.systems.seqpe import SequentialPosition


class PositionSwitch(Position):
    """SeqPE or one of its baselines, each with or without the random shift of SeqPE's training.

    `rope` and `sinusoidal` have `base`; `alibi` the published slopes, `alibi_scaled` those over sqrt(E), which is what
    SeqPE's own code has (it adds m_h k before the scores are divided). A shift: with probability `chance` a step of
    training has positions o .. o + L - 1, a row one of `offsets` o that follow each other in a pool of `windows`, drawn
    once (the official code goes through its pool in order, here a step begins anywhere). SeqPE alone is trained so in
    the paper; as the others don't see far positions else, `chance` is for all kinds.
    """

    def __init__(
        self,
        *,
        kind: Literal["seqpe", "rope", "alibi", "alibi_scaled", "sinusoidal", "learned", "none"],
        base: Annotated[float, Field(gt=1)],
        chance: Annotated[float, Field(ge=0, le=1)],
        windows: Annotated[int, Field(gt=0)],
        offsets: Annotated[int, Field(gt=0)],
        seqpe: SequentialPosition,
    ) -> None:
        self.kind, self.base, self.seqpe = kind, base, seqpe
        self.chance, self.windows, self.offsets = chance, windows, offsets

    def make(self, *, dim: int, heads: int, head_dim: int, length: int, causal: bool) -> PositionModule:
        """The module of the kind. Raises ValueError where a shift would have nowhere to go."""
        kinds: dict[str, Position] = {
            "seqpe": self.seqpe,
            "rope": Rotary(base=self.base),
            "alibi": ALiBi(),
            "alibi_scaled": ALiBi(),
            "sinusoidal": Sinusoidal(base=self.base),
            "learned": Learned(),
            "none": NoPosition(),
        }
        most = self.seqpe.max_position
        if self.chance and length > most:
            raise ValueError(
                f"position.chance: {length} positions can't be shifted within {most}; max_position is more"
            )
        far = most if self.chance else length
        made = kinds[self.kind].make(dim=dim, heads=heads, head_dim=head_dim, length=far, causal=causal)
        if self.kind == "alibi_scaled":
            made.get_buffer("slopes_H").div_(math.sqrt(head_dim))
        return _Shifted(made, self.chance, self.windows, self.offsets, most) if self.chance else made


class _Shifted(PositionModule):
    """Another one's positions, in some steps of training further out."""

    pool_W: Tensor  # in parts of the way that there is

    def __init__(self, made: PositionModule, chance: float, windows: int, offsets: int, most: int) -> None:
        super().__init__()
        self.made, self.chance, self.offsets, self.most = made, chance, offsets, most
        self.register_buffer("pool_W", torch.rand(windows))

    def places(self, positions_BL: Tensor, rows: int) -> Tensor:
        if not self.training or float(torch.rand(())) >= self.chance:
            return positions_BL
        begin = int(torch.randint(len(self.pool_W), ()))
        each_B = torch.arange(rows, device=positions_BL.device) % self.offsets
        part_B = self.pool_W[(begin + each_B) % len(self.pool_W)]
        room = self.most - positions_BL.shape[1] + 1
        return positions_BL + (part_B * room).long().unsqueeze(1)

    def add(self, x_BLD: Tensor, positions_BL: Tensor) -> Tensor:
        return self.made.add(x_BLD, positions_BL)

    def rotation(self, positions_BL: Tensor) -> Rotation | None:
        return self.made.rotation(positions_BL)

    def bias(self, query_BT: Tensor, key_BS: Tensor) -> Tensor | None:
        return self.made.bias(query_BT, key_BS)
