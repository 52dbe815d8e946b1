"""Which states go on and how many of them: scores by attention, how much of a row carries it, the cost of a profile."""
# B rows, H heads, L positions, N states of a layer, K states kept, D width, F hidden width

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.base import Sequences

Score = Literal["acc", "sig", "random", "first"]
Profile = Literal["effective", "mass", "above", "linear", "geometric"]
CONTRIBUTIONS: tuple[Profile, ...] = ("effective", "mass", "above")  # ways to measure one, rows of the measured

MASS, ABOVE = 0.9, 0.5  # tau and theta of `contributions`
HAIR = 1e-4  # what a layer's part is less than the one before at least, so that any profile can be made steeper
MOST = 1e6  # gamma at most


def received(weights_BHNN: Tensor, mask_BN: Tensor) -> Tensor:
    """s(j): attention that position j gets, a mean over heads and over real rows; sums to 1 over real j. (B, N)."""
    rows_BN1 = (mask_BN / mask_BN.sum(1, keepdim=True).clamp_min(1)).unsqueeze(2)
    return (weights_BHNN.mean(1) * rows_BN1).sum(1)


def significance(weights_BHNN: Tensor, mask_BN: Tensor) -> Tensor:
    """PoWER-BERT's: a sum over real rows of the heads' mean, without what a position gives itself. (B, N)."""
    whole_BNN = weights_BHNN.mean(1) * mask_BN.unsqueeze(2)
    return whole_BNN.sum(1) - whole_BNN.diagonal(dim1=1, dim2=2)


def drawn(fingerprint_B: Tensor, layer: int, places_BN: Tensor) -> Tensor:
    """A number for each place of a row, as good as random, and the same whenever the row comes. (B, N) float."""
    mixed_BN = fingerprint_B.unsqueeze(1) * 0x9E3779B1 + places_BN * 0x85EBCA77 + (layer + 1) * 0xC2B2AE3D
    for factor in (0x7FEB352D, 0x846CA68B):  # of a 32-bit mixer, in 64 bits without overflow that matters
        mixed_BN = ((mixed_BN ^ (mixed_BN >> 15)) & 0x7FFFFFFF) * factor
    return ((mixed_BN >> 7) & 0xFFFFFF).double()


def fingerprint(source: Sequences) -> Tensor:
    """A number of each row that is the same whatever the batch, (B,) int64: of its ids, or of channels its length."""
    mask_BL = source.mask
    if source.values.is_floating_point():
        return mask_BL.sum(1)
    factors_L = (torch.arange(mask_BL.shape[1], device=mask_BL.device) * 2 + 1) * 7919 % 65521
    return ((source.values + 1) * factors_L * mask_BL).sum(1) & 0x7FFFFFFF


def scored(
    score: Score, weights_BHNN: Tensor | None, mask_BN: Tensor, places_BN: Tensor, chance: tuple[Tensor, int] | None
) -> Tensor:
    """What a state is kept by, (B, N): the more the better. `weights` are of `acc` and `sig` alone.

    `chance`: the fingerprint and the layer that `random` is drawn by; None, as in training: drawn anew each time.
    """
    if score == "first":
        return -places_BN.double()
    if score == "random":
        return torch.rand(mask_BN.shape, device=mask_BN.device) if chance is None else drawn(*chance, places_BN)
    assert weights_BHNN is not None
    return received(weights_BHNN, mask_BN) if score == "acc" else significance(weights_BHNN, mask_BN)


def contributions(scores_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """How many states carry the context of a layer, over how many there are: (3, B), by s of `received`.

    effective: exp(-sum s log s); mass: the least number whose scores sum to MASS; above: those with s > ABOVE / N.
    """
    s_BN = scores_BN * mask_BN
    number_B = mask_BN.sum(1).clamp_min(1)
    effective_B = torch.special.entr(s_BN).sum(1).exp()
    sums_BN = s_BN.sort(1, descending=True).values.cumsum(1)
    mass_B = 1 + (sums_BN < MASS * (1 - 1e-6)).sum(1)
    above_B = ((s_BN * number_B.unsqueeze(1) > ABOVE) & mask_BN).sum(1)
    parts_3B = torch.stack([effective_B, mass_B, above_B]) / number_B
    return parts_3B.clamp(0.0, 1.0)


def survivors(scores_BN: Tensor, mask_BN: Tensor, kept_B: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The first state of each row and the best of the others, kept_B in all, in their old order.

    Gives indices (B, most) int64 and what is real of them: those beyond a row's own number stand at its end. Of equal
    scores the earlier position is the better one.
    """
    order_BN = scores_BN.masked_fill(~mask_BN, -math.inf)
    order_BN[:, 0] = math.inf
    best_BK = order_BN.sort(dim=1, descending=True, stable=True).indices[:, :most]
    real_BK = torch.arange(most, device=mask_BN.device) < kept_B.unsqueeze(1)
    index_BK = best_BK.masked_fill(~real_BK, scores_BN.shape[1]).sort(1).values
    return index_BK.clamp_max(scores_BN.shape[1] - 1), real_BK


def restored(parts: Sequence[tuple[Tensor, Tensor, Tensor]], length: int) -> Tensor:
    """The last state of each position, (B, L, D), of (places, mask, states) of N states a row, in order of layers."""
    _, _, first_BLD = parts[0]
    if len(parts) == 1:
        return first_BLD
    found_BLD = F.pad(first_BLD, (0, 0, 0, 1))  # one place more, where padding is put
    for places_BN, mask_BN, x_BND in parts[1:]:
        index_BN1 = places_BN.masked_fill(~mask_BN, length).unsqueeze(2)
        found_BLD = found_BLD.scatter(1, index_BN1.expand_as(x_BND), x_BND)
    return found_BLD[:, :length]


def fractions(profile: Profile, measured: Sequence[float], gamma: float) -> list[float]:
    """alpha_l: the part of a row's first states that each layer keeps at `gamma`; all of them at 0.

    r_l ** gamma with r_l the least of ACC_1 .. ACC_l (`measured`), or exp(-l / depth) for `geometric`; `linear` is
    1 - gamma l / depth, and not below 0.
    """
    depth = len(measured)
    if profile == "linear":
        return [max(0.0, 1 - gamma * (layer + 1) / depth) for layer in range(depth)]
    if profile == "geometric":
        return [math.exp(-gamma * (layer + 1) / depth) for layer in range(depth)]
    found, least = [], 1.0
    for part in measured:
        least = max(min(part, least - HAIR), 1e-9)
        found.append(least**gamma)
    return found


def kept(alpha: float, states: int) -> int:
    """max(1, ceil(alpha T_0)) of a row of T_0 states."""
    return max(1, math.ceil(round(alpha * states, 6)))


def cost(read: int, kept: int, *, dim: int, hidden: int) -> int:
    """Operations of a layer that reads N states and keeps K: 8 N D^2 + 4 N^2 D + 4 K D F."""
    return 8 * read * dim**2 + 4 * read**2 * dim + 4 * kept * dim * hidden


def speed_up(counts: Sequence[int], states: int, *, dim: int, hidden: int) -> float:
    """Operations of a stack on a row of so many states, over those with so many kept by each layer."""
    reads = [states, *counts[:-1]]
    reduced = sum(cost(n, k, dim=dim, hidden=hidden) for n, k in zip(reads, counts, strict=True))
    return len(counts) * cost(states, states, dim=dim, hidden=hidden) / reduced


def most(depth: int, length: int, *, dim: int, hidden: int) -> float:
    """The greatest speed-up of so many layers on rows of up to `length` states: each keeps one."""
    return max(speed_up([1] * depth, states, dim=dim, hidden=hidden) for states in range(1, length + 1))


def solve(wanted: float, states: int, *, dim: int, hidden: int, parts: Callable[[float], list[float]]) -> float:
    """The least gamma at which `parts(gamma)` give the wanted speed-up on a row of so many states, by bisection.

    Raises ValueError for one that not even a single state a layer gives.
    """

    def gives(gamma: float) -> float:
        return speed_up([kept(alpha, states) for alpha in parts(gamma)], states, dim=dim, hidden=hidden)

    if wanted <= 1:
        return 0.0
    if gives(MOST) < wanted:
        raise ValueError(f"speed_up: {wanted:g}; {gives(MOST):.2f} is the most on rows of {states} states")
    low, high = 0.0, MOST
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if gives(middle) >= wanted else (middle, high)
    return high
