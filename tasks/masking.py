"""BERT's masking: which tokens are asked for, and what stands in their place (Devlin et al. 2019, section 3.1)."""
# B batch, L positions

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

HIDDEN, OTHER = 0.8, 0.9  # of the chosen tokens 80 % become MASK, 10 % a random token, 10 % stay (Devlin et al. 2019)


class Masking:
    """A token is chosen with probability `share`; of the chosen 80 % become `mask`, 10 % a random token, 10 % stay.

    `special` ids are neither chosen nor put in a place; at least one token a row is chosen that has any other.
    """

    def __init__(self, *, special: Collection[int], vocab_size: int, mask: int, share: float) -> None:
        self.special = torch.tensor(sorted(special))
        self.ordinary = torch.tensor([i for i in range(vocab_size) if i not in special])
        self.mask, self.share = mask, share

    def choose(self, ids_BL: Tensor, draws_BL: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """Which tokens are asked for, (B, L) bool, by draws in [0, 1): real ones, no specials."""
        may_BL = ~torch.isin(ids_BL, self.special.to(ids_BL.device))
        may_BL = may_BL if mask_BL is None else may_BL & mask_BL
        chosen_BL = (draws_BL < self.share) & may_BL
        first_BL = may_BL & (may_BL.cumsum(1) == 1)
        return torch.where(chosen_BL.any(1, keepdim=True), chosen_BL, first_BL)

    def hide(self, ids_BL: Tensor, chosen_BL: Tensor, fate_BL: Tensor, other_BL: Tensor) -> Tensor:
        """What an encoder reads in place of the ids, by two draws in [0, 1) of what becomes of the chosen."""
        ordinary = self.ordinary.to(ids_BL.device)
        random_BL = ordinary[(other_BL * len(ordinary)).long().clamp_max(len(ordinary) - 1)]
        replaced_BL = torch.where(fate_BL < HIDDEN, self.mask, random_BL)
        return torch.where(chosen_BL & (fate_BL < OTHER), replaced_BL, ids_BL)
