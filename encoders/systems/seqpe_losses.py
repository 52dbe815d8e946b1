"""SeqPE's two losses (2506.13277, section 3): near positions are alike, relations far out as in the trained length."""
# U positions of a pass, b pivots or offsets, K positions of each, D width, H heads, E width of a head

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

EDITS = 3  # digits that a hard negative is away from its pivot at most
TRIES = (
    100  # edits of a digit that may fail (a position of one digit has none to swap) before a hard negative is let be
)


@dataclass(frozen=True, slots=True)
class Drawn(ABC):
    """What a loss has drawn for a step: positions whose PE it needs."""

    name: str
    weight: float
    positions: list[Tensor]  # each (n,) int64

    @abstractmethod
    def loss(self, made: list[Tensor], pe_UD: Tensor, heads: int) -> Tensor:
        """() from the PE of its positions, and of those of the pass."""


class Contrast:
    """Of `candidates` positions the nearest has the largest product with a pivot: cross-entropy, for `pivots` of them.

    As the official sampler draws them: K + 1 uniform ones, and before these with probability `hard` K / 4 whose digits
    are 1 to 3 edits from the pivot's (kept where they are farther than the nearest uniform one), else K of one window
    of max(`near`, 5 K) positions; without repetition, without the pivot, the first K. Pivots are drawn uniformly.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0)],
        pivots: Annotated[int, Field(gt=0)],
        candidates: Annotated[int, Field(gt=1)],
        hard: Annotated[float, Field(ge=0, le=1)],
        near: Annotated[int, Field(gt=0)],
    ) -> None:
        self.weight, self.pivots, self.candidates, self.hard, self.near = weight, pivots, candidates, hard, near

    def draw(self, positions_U: Tensor, most: int, draw: random.Random) -> Drawn | None:
        """Pivots, candidates and labels, of positions 0 to `most` - 1."""
        pivots = [draw.randrange(most) for _ in range(self.pivots)]
        candidates = [self.candidates_of(pivot, most, draw) for pivot in pivots]
        labels = [
            min(range(len(each)), key=lambda i, each=each, p=p: abs(each[i] - p))  # type: ignore[misc]
            for p, each in zip(pivots, candidates, strict=True)
        ]
        device = positions_U.device
        numbers = [torch.tensor(part, device=device) for part in (pivots, candidates, labels)]
        return _Contrasted("contrast", self.weight, [numbers[0], numbers[1].flatten()], numbers[2])

    def candidates_of(self, pivot: int, most: int, draw: random.Random) -> list[int]:
        """K positions other than the pivot and each other."""
        uniform = draw.sample(range(most), self.candidates + 1)
        if draw.random() < self.hard:
            number = self.candidates // 4
            nearest = min(abs(position - pivot) for position in uniform[: len(uniform) - number])
            edited = [edit(pivot, most, draw) for _ in range(number)]
            special = [position for position in edited if abs(position - pivot) > nearest]
        else:
            start = int(max(0, most - self.near) * draw.random())
            window = range(start, min(start + max(self.near, 5 * self.candidates), most))
            special = draw.sample(window, min(self.candidates, len(window)))
        return [position for position in dict.fromkeys(special + uniform) if position != pivot][: self.candidates]


class Transfer:
    """Far out, positions relate to each other as those in training do: for `offsets` o, softmax(PE PE^T) of o + I like
    that of I, `indices` positions of the pass, head by head.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(ge=0)],
        offsets: Annotated[int, Field(gt=0)],
        indices: Annotated[int, Field(gt=1)],
    ) -> None:
        self.weight, self.offsets, self.indices = weight, offsets, indices

    def draw(self, positions_U: Tensor, most: int, draw: random.Random) -> Drawn | None:
        """Indices, and the positions that they have further out; None for a pass that itself is shifted,
        or has no position.

        Raises ValueError where the pass has all positions that there are, so that none is further out.
        """
        length = len(positions_U)
        if not length or int(positions_U[0]) or int(positions_U[-1]) != length - 1:  # a window may begin at 0
            return None
        low, high = length // 4, most - length
        if low >= high:
            raise ValueError(
                f"position.max_position: {most} leaves nothing beyond a pass of {length}; use {length + low + 1} or "
                "more, or position.transfer.weight 0"
            )
        starts = [draw.randrange(low, high) for _ in range(self.offsets)]
        indices = [draw.sample(range(length), min(self.indices, length)) for _ in starts]
        index_bK = torch.tensor(indices, device=positions_U.device)
        far_bK = index_bK + torch.tensor(starts, device=positions_U.device).unsqueeze(1)
        return _Transferred("transfer", self.weight, [far_bK.flatten()], index_bK)


@dataclass(frozen=True, slots=True)
class _Contrasted(Drawn):
    labels_b: Tensor

    def loss(self, made: list[Tensor], pe_UD: Tensor, heads: int) -> Tensor:
        return contrast_loss(made[0], made[1].view(*made[0].shape[:1], -1, made[0].shape[1]), self.labels_b)


@dataclass(frozen=True, slots=True)
class _Transferred(Drawn):
    index_bK: Tensor

    def loss(self, made: list[Tensor], pe_UD: Tensor, heads: int) -> Tensor:
        return transfer_loss(pe_UD[self.index_bK], made[0].view(*self.index_bK.shape, -1), heads=heads)


def contrast_loss(pivots_bD: Tensor, candidates_bKD: Tensor, labels_b: Tensor) -> Tensor:
    """() cross-entropy of PE(p) . PE(c), whole vectors, not scaled."""
    logits_bK = torch.einsum("bd,bkd->bk", pivots_bD, candidates_bKD)
    return F.cross_entropy(logits_bK.float(), labels_b)


def transfer_loss(teacher_bKD: Tensor, student_bKD: Tensor, *, heads: int) -> Tensor:
    """() KL(T || U) + KL(U || T) of the rows' softmax of PE PE^T, head by head; no gradient reaches the teacher.

    A mean over all elements, as torch's reduction "mean" has it, so 1 / K of the mean over rows.
    """

    def relations(pe_bKD: Tensor) -> Tensor:
        pe_bHKE = pe_bKD.view(*pe_bKD.shape[:2], heads, -1).transpose(1, 2)
        products_bHKK: Tensor = pe_bHKE @ pe_bHKE.transpose(2, 3)
        return products_bHKK.float().log_softmax(3)

    teacher, student = relations(teacher_bKD).detach(), relations(student_bKD)
    one = F.kl_div(student, teacher, reduction="none", log_target=True)
    return (one + F.kl_div(teacher, student, reduction="none", log_target=True)).mean()


def edit(position: int, most: int, draw: random.Random) -> int:
    """1 to 3 edits away in its digits (insert, delete, swap, substitute), below `most`; itself if none is found."""
    wanted, found, places = draw.randint(1, EDITS), str(position), len(str(most - 1))
    for _ in range(TRIES):
        if not wanted:
            break
        new = _edited(found, draw)
        if new not in (found, str(position)) and new == str(int(new or -1)) and len(new) <= places and int(new) < most:
            found, wanted = new, wanted - 1
    return int(found)


def _edited(text: str, draw: random.Random) -> str:
    at, digit = draw.randrange(len(text)), str(draw.randrange(10))
    kind = draw.randrange(4)
    if kind == 0:
        at = draw.randint(0, len(text))
        return text[:at] + digit + text[at:]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        other = draw.randrange(len(text))
        swapped = list(text)
        swapped[at], swapped[other] = swapped[other], swapped[at]
        return "".join(swapped)
    return text[:at] + digit + text[at + 1 :]
