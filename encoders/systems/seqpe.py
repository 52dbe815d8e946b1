"""SeqPE: a position is its digits, read by a small Transformer (Li et al. 2025, arXiv 2506.13277, section 3)."""
# B batch (or 1), U different positions, M digits of one, T queries, S keys, D width, H heads, E width of a head

from __future__ import annotations

import random
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.blocks.layer import Layer, LayerOptions
from encoders.blocks.masks import Sight
from encoders.blocks.positions import Position, PositionModule
from encoders.blocks.stack import initial_std
from encoders.systems.seqpe_losses import Contrast, Transfer

ROOM = 64  # a table that is kept is longer by up to so many positions: a step of generation encodes none anew


class SequentialPosition(Position):
    """Scores S = (Q K^T + `strength` P_q P_k^T) / sqrt(E), P_q and P_k one linear map of PE(position), for all layers.

    PE(p) is what the reader makes of the digits of p: as many as those of `max_position` - 1, most significant first,
    filled up with zeros on the left, which `masks_padding` hides (the released runs do not). Text's "attn_scalar" and
    "single" of the official code (ghrua/seqpe@4c4b908); its variants for images are not here. `width` of the reader,
    null: the model's; a head of `head_dim`; first weights as a stack's, which at the published width are the paper's
    (normal, 0.02). Two losses make positions that training does not reach be like those that
    it does (seqpe_losses.py): a LossPart's, which every encoder that takes this position is trained with.
    """

    def __init__(
        self,
        *,
        max_position: Annotated[int, Field(gt=1)],
        width: Annotated[int, Field(gt=0)] | None,
        depth: Annotated[int, Field(gt=0)],
        head_dim: Annotated[int, Field(gt=0)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        direction: Literal["causal", "both"],
        masks_padding: bool,
        strength: Annotated[float, Field(ge=0)],
        layer: LayerOptions,
        contrast: Contrast,
        transfer: Transfer,
    ) -> None:
        self.max_position, self.width, self.depth, self.head_dim = max_position, width, depth, head_dim
        self.dropout, self.direction, self.masks_padding = dropout, direction, masks_padding
        self.strength, self.layer, self.contrast, self.transfer = strength, layer, contrast, transfer

    def make(self, *, dim: int, heads: int, head_dim: int, length: int, causal: bool) -> PositionModule:
        """The module. Raises ValueError for more positions than digits tell apart, for fewer than there are candidates,
        for a reader that its heads don't divide, and for a transfer by heads that don't divide `dim`.
        """
        width = self.width or dim
        of_reader = max(1, width // self.head_dim)
        if width % of_reader:
            raise ValueError(
                f"position.head_dim: {self.head_dim} makes {of_reader} heads of a reader of width {width}, which they "
                "don't divide; use a divisor of it"
            )
        reader = DigitReader(
            digits=len(str(self.max_position - 1)),
            width=width,
            depth=self.depth,
            heads=of_reader,
            dropout=self.dropout,
            causal=self.direction == "causal",
            masks_padding=self.masks_padding,
            layer=self.layer,
            out=dim,
        )
        if length > 10**reader.digits:
            raise ValueError(
                f"position.max_position: {self.max_position} has {reader.digits} digits, which tell "
                f"{10**reader.digits} positions apart; there are {length}"
            )
        if self.contrast.candidates >= self.max_position:
            raise ValueError(
                f"position.contrast.candidates: {self.contrast.candidates} of {self.max_position} positions; take fewer"
            )
        if self.transfer.weight and dim % heads:
            raise ValueError(
                f"position.transfer.weight: {self.transfer.weight:g}, by head, of vectors of {dim} numbers, which "
                f"{heads} heads don't divide; use 0, or other heads"
            )
        return _Sequential(reader, nn.Linear(dim, 2 * heads * head_dim), self, heads=heads)


class DigitReader(nn.Module):
    """Digits and their places embedded, a vector [CLS] behind them, Transformer layers, a norm, a linear map."""

    powers_M: Tensor

    def __init__(
        self,
        *,
        digits: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
        causal: bool,
        masks_padding: bool,
        layer: LayerOptions,
        out: int,
    ) -> None:
        super().__init__()
        self.digits, self.causal, self.masks_padding = digits, causal, masks_padding
        self.register_buffer("powers_M", 10 ** torch.arange(digits - 1, -1, -1), persistent=False)
        self.digit = nn.Embedding(10, width)
        self.place = nn.Embedding(digits, width)
        self.cls = nn.Parameter(torch.empty(width))
        self.layers = nn.ModuleList(
            Layer(dim=width, heads=heads, hidden=4 * width, dropout=dropout, options=layer, cross=False)
            for _ in range(depth)
        )
        self.norm = layer.norm.make(width)
        self.out = nn.Linear(width, out)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=initial_std(width))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.cls, std=initial_std(width))

    def digits_of(self, positions_U: Tensor) -> Tensor:
        """(U, M) int64, the most significant first."""
        return positions_U.unsqueeze(1) // self.powers_M % 10

    def forward(self, positions_U: Tensor) -> Tensor:
        """PE, (U, D): a function of the digits alone."""
        x_UMD = self.digit(self.digits_of(positions_U)) + self.place.weight
        x_UMD = torch.cat((x_UMD, self.cls.expand(len(x_UMD), 1, -1).to(x_UMD.dtype)), dim=1)  # [CLS] has no place
        seen = self._seen(positions_U)
        for layer in self.layers:
            x_UMD, _ = layer(x_UMD, seen, None, None, None, seen)
        pe_UD: Tensor = self.out(self.norm(x_UMD[:, -1]))
        return pe_UD

    def _seen(self, positions_U: Tensor) -> Sight:
        if not self.masks_padding:
            return Sight(None, self.causal)
        real_UM = (positions_U.unsqueeze(1) >= self.powers_M) | (self.powers_M == 1)  # the last digit always is
        real_US = torch.cat((real_UM, real_UM[:, -1:]), dim=1)
        own_SS = torch.eye(self.digits + 1, dtype=torch.bool, device=real_US.device)
        past_SS = torch.ones_like(own_SS).tril() if self.causal else torch.ones_like(own_SS)
        return Sight((real_US[:, None, None, :] & past_SS) | own_SS, False)


class _Sequential(PositionModule):
    def __init__(self, reader: DigitReader, maps: nn.Linear, options: SequentialPosition, *, heads: int) -> None:
        super().__init__()
        self.reader, self.maps, self.options, self.heads = reader, maps, options, heads
        self._kept: tuple[object, Tensor] | None = None  # weights, and P of the first positions
        self._last: tuple[Tensor, Tensor] | None = None  # positions (U,) of the last pass in training, and their PE

    def bias(self, query_BT: Tensor, key_BS: Tensor) -> Tensor | None:
        if self.options.strength == 0:
            return None
        if self.training or torch.is_grad_enabled():
            self._kept = None  # weights may change now, and a fused optimizer leaves no trace of it in their versions
            positions_U = torch.unique(key_BS)  # sorted
            pe_UD = self.reader(positions_U)
            self._last = (positions_U, pe_UD) if self.training else None
            maps_U2HE = self._map(pe_UD)
            query_BT = torch.searchsorted(positions_U, query_BT.contiguous())
            key_BS = torch.searchsorted(positions_U, key_BS.contiguous())
        else:
            maps_U2HE = self._table(1 + int(key_BS.max()) if key_BS.numel() else 1)
        queries_BHTE = maps_U2HE[query_BT, 0].transpose(1, 2)
        keys_BHES = maps_U2HE[key_BS, 1].permute(0, 2, 3, 1)
        scale: float = self.options.strength * queries_BHTE.shape[-1] ** -0.5
        return queries_BHTE @ keys_BHES * scale

    def losses(self) -> dict[str, Tensor]:
        last, self._last = self._last, None
        if last is None:
            return {}
        draw = random.Random(int(torch.randint(2**62, ())))
        parts, most = (self.options.contrast, self.options.transfer), self.options.max_position
        drawn = [part.draw(last[0], most, draw) for part in parts if part.weight]
        if not any(drawn):
            return {}
        asked = [positions for one in drawn if one is not None for positions in one.positions]
        made = iter(self.reader(torch.cat(asked)).split([len(positions) for positions in asked]))
        return {
            one.name: one.weight * one.loss([next(made) for _ in one.positions], last[1], self.heads)
            for one in drawn
            if one is not None
        }

    def _map(self, pe_UD: Tensor) -> Tensor:
        """P_q and P_k by head, (U, 2, H, E)."""
        maps_UF: Tensor = self.maps(pe_UD)
        return maps_UF.view(len(maps_UF), 2, self.heads, -1)

    def _table(self, number: int) -> Tensor:
        """P of the first positions, kept for as long as the weights stay what they are."""
        weights = [(p.data_ptr(), p._version, p.dtype) for p in self.parameters()]
        now = (weights, torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"))
        if self._kept is None or self._kept[0] != now or len(self._kept[1]) < number:
            number = min(-(-number // ROOM) * ROOM, 10**self.reader.digits)
            table = self._map(self.reader(torch.arange(number, device=self.maps.weight.device)))
            self._kept = (now, table)
        return self._kept[1]
