"""The parts of a streaming Conformer: who sees whom, subsampling, attention by distance, convolution, a block."""
# B batch, L frames, P states, T new ones, S before them, K kernel size - 1, C channels, Q bands, D width, H heads

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.blocks.attention import head_width
from encoders.blocks.feed_forward import FeedForward, FeedForwardOptions


def halved(length: int, stages: int) -> int:
    """States of `length` frames, or frames themselves for no stages: one more than half in each stage."""
    for _ in range(stages):
        length = length // 2 + 1
    return length


def visible(number: int, *, style: str, left: int, look_ahead: int, device: torch.device | None = None) -> Tensor:
    """Which states j each state i sees, (P, P) bool, i first."""
    i_P1 = torch.arange(number, device=device)[:, None]
    j_P = torch.arange(number, device=device)
    if style == "full":
        return torch.ones(number, number, dtype=torch.bool, device=device)
    if style == "regular":
        return (i_P1 - left <= j_P) & (j_P <= i_P1 + look_ahead)
    chunk = look_ahead + 1
    back_PP = i_P1 // chunk - j_P // chunk
    return (back_PP >= 0) & (back_PP <= left // chunk)


def latest(x: Tensor, number: int) -> Tensor:
    """The last `number` positions (axis 1), filled up in front where there are fewer."""
    missing = max(0, number - x.shape[1])
    if missing:
        x = torch.cat((x.new_zeros(len(x), missing, *x.shape[2:]), x), 1)
    return x[:, x.shape[1] - number :]


class Subsampling(nn.Module):
    """Frames (B, L, Q) -> (B, P, D) by convolutions of 3 x 3 over time and bands, of stride 2, `stages` of them.

    "dw_striding" of NeMo: the first one makes C channels, the further ones are depthwise with a 1 x 1 after it; ReLU
    after each. Padding is 2 before and 1 after in both directions, so that state p is of frames up to p * 2^stages.
    """

    def __init__(self, *, bands: int, channels: int, stages: int, dim: int) -> None:
        super().__init__()
        self.stages = stages
        self.first = nn.Conv2d(1, channels, 3, stride=2)
        self.further = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, stride=2, groups=channels), nn.Conv2d(channels, channels, 1))
            for _ in range(stages - 1)
        )
        self.out = nn.Linear(channels * halved(bands, stages), dim)

    def forward(self, x_BLQ: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P, D) and the real ones among them (B, P): of a row of n frames `halved(n)`.

        Frames that are not real may stand in front, too, as before the beginning of a stream.
        """
        x_BCLQ = (x_BLQ * mask_BL.unsqueeze(-1)).unsqueeze(1)
        for convolution in (self.first, *self.further):
            x_BCLQ = F.relu(convolution(F.pad(x_BCLQ, (2, 1, 2, 1))))
            mask_BL = (
                F.pad(mask_BL, (1, (mask_BL.shape[1] + 1) % 2)).view(len(mask_BL), x_BCLQ.shape[2], 2).any(2)
            )  # of 2p-1, 2p
            x_BCLQ = x_BCLQ * mask_BL[:, None, :, None]  # what lies behind a row's end is zero, as beyond a batch's
        return self.out(x_BCLQ.transpose(1, 2).flatten(2)), mask_BL


class RelativeAttention(nn.Module):
    """Attention by content and distance (Transformer-XL: Dai et al. 2019, arXiv 1901.02860, section 3.3).

    score(i, j) = ((q_i + u) k_j + (q_i + v) W_p r_{i-j}) / sqrt(D / H), r the sinusoid of the distance, u and v learnt.
    """

    table_ND: Tensor

    def __init__(self, *, dim: int, heads: int, dropout: float, reach: int) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.distance = nn.Linear(dim, dim, bias=False)
        self.u, self.v = (nn.Parameter(torch.zeros(heads, head_width(dim, heads))) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
        angles = torch.outer(torch.arange(reach, -reach - 1, -1).float(), frequency)  # largest distance first
        table_ND = torch.stack((angles.sin(), angles.cos()), -1).flatten(1)
        self.register_buffer("table_ND", table_ND, persistent=False)

    def forward(self, x_BTD: Tensor, past_BSD: Tensor | None, seen_BTS: Tensor) -> Tensor:
        """New states (B, T, D) from inputs of the T positions and of S before them; `seen` (B or 1, T, S + T) bool."""
        whole_BSD = x_BTD if past_BSD is None else torch.cat((past_BSD, x_BTD), 1)
        q_BTHE = self.query(x_BTD).unflatten(-1, (self.heads, -1))
        k_BSHE, v_BSHE = (f(whole_BSD).unflatten(-1, (self.heads, -1)) for f in (self.key, self.value))
        queries, keys = x_BTD.shape[1], whole_BSD.shape[1]
        r_ND = self.table_ND[self.reach - keys + 1 : self.reach + queries]  # distances keys - 1 down to 1 - queries
        p_NHE = self.distance(r_ND).unflatten(-1, (self.heads, -1))
        content_BHTS = torch.einsum("bthe,bshe->bhts", q_BTHE + self.u, k_BSHE)
        distance_BHTN = torch.einsum("bthe,nhe->bhtn", q_BTHE + self.v, p_NHE)
        scores_BHTS = (content_BHTS + _shifted(distance_BHTN)[..., :keys]) / math.sqrt(q_BTHE.shape[-1])
        scores_BHTS = scores_BHTS.float().masked_fill(~seen_BTS.unsqueeze(1), -torch.inf)
        weights_BHTS = self.dropout(scores_BHTS.softmax(-1)).to(v_BSHE.dtype)
        y_BTD: Tensor = self.out(torch.einsum("bhts,bshe->bthe", weights_BHTS, v_BSHE).flatten(2))
        return y_BTD


def _shifted(x_BHTN: Tensor) -> Tensor:
    """Row t moved to the left by T - 1 - t, so that columns are keys in place of distances; N = S + T - 1."""
    *batch, queries, number = x_BHTN.shape
    turned = F.pad(x_BHTN, (1, 0)).reshape(*batch, number + 1, queries)[..., 1:, :]
    return turned.reshape(*batch, queries, number)


class CausalConvolution(nn.Module):
    """1 x 1 to 2 D, gated linear unit, depthwise over the present and K before, LayerNorm, Swish, 1 x 1."""

    def __init__(self, *, dim: int, kernel: int) -> None:
        super().__init__()
        self.before = kernel - 1
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, past_BKD: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, D), and the last K inputs of the depthwise convolution; `past` is what this has left, None: zeros."""
        gated_BTD = F.glu(self.up(x_BTD), -1)
        if past_BKD is None:
            past_BKD = gated_BTD.new_zeros(len(x_BTD), self.before, gated_BTD.shape[2])
        whole_BLD = torch.cat((past_BKD, gated_BTD), 1)
        y_BTD = self.depthwise(whole_BLD.transpose(1, 2)).transpose(1, 2)
        return self.down(F.silu(self.norm(y_BTD))), whole_BLD[:, whole_BLD.shape[1] - self.before :]


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, each after a LayerNorm, and one at the end.

    Gulati et al. 2020, arXiv 2005.08100, with a causal convolution and LayerNorm in place of its batch normalisation.
    """

    def __init__(self, *, dim: int, heads: int, hidden: int, kernel: int, dropout: float, reach: int) -> None:
        super().__init__()
        options = FeedForwardOptions(activation="silu", gated=False, bias=True, dropout=dropout)
        self.first, self.second = (FeedForward(dim=dim, hidden=hidden, options=options) for _ in range(2))
        self.attention = RelativeAttention(dim=dim, heads=heads, dropout=dropout, reach=reach)
        self.convolution = CausalConvolution(dim=dim, kernel=kernel)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(5))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_BTD: Tensor, seen_BTS: Tensor, past_BSD: Tensor | None, past_BKD: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D); the inputs of the attention (B, T, D), and the last inputs of the convolution (B, K, D)."""
        norm_1, norm_attention, norm_convolution, norm_2, norm_out = self.norms
        x_BTD = x_BTD + 0.5 * self.dropout(self.first(norm_1(x_BTD)))
        attended_BTD = norm_attention(x_BTD)
        x_BTD = x_BTD + self.dropout(self.attention(attended_BTD, past_BSD, seen_BTS))
        y_BTD, convolved_BKD = self.convolution(norm_convolution(x_BTD), past_BKD)
        x_BTD = x_BTD + self.dropout(y_BTD)
        x_BTD = x_BTD + 0.5 * self.dropout(self.second(norm_2(x_BTD)))
        return norm_out(x_BTD), attended_BTD, convolved_BKD
