"""Convolution and normalisation of right-padded rows, in which padding counts as what lies beyond the ends: zero."""
# B batch, L positions, T that follow, N real positions of a batch, C channels in, D channels out, K kernel size - 1

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from encoders.blocks.recurrent import take


class Convolution(nn.Module):
    """nn.Conv1d of as many positions out as in, over (B, L, C), with PyTorch's initialisation.

    Of its kernel `ahead` positions lie after the output's own. With none it goes on from its past, by `resume`.
    """

    def __init__(self, *, inputs: int, outputs: int, kernel_size: int, ahead: int, bias: bool) -> None:
        super().__init__()
        self.before, self.ahead = kernel_size - 1 - ahead, ahead
        self.convolution = nn.Conv1d(inputs, outputs, kernel_size, bias=bias)

    def forward(self, x_BLC: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, D)."""
        x_BCL = (x_BLC * mask_BL.unsqueeze(-1)).transpose(1, 2)
        y_BDL: Tensor = self.convolution(F.pad(x_BCL, (self.before, self.ahead)))
        return y_BDL.transpose(1, 2)

    def resume(self, x_BTC: Tensor, mask_BT: Tensor, past_BKC: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, D) and the last K - 1 real inputs of each row; `past` is what this has left before, None: zeros."""
        assert not self.ahead
        if past_BKC is None:
            past_BKC = x_BTC.new_zeros(len(x_BTC), self.before, x_BTC.shape[2])
        whole_BLC = torch.cat((past_BKC, x_BTC * mask_BT.unsqueeze(-1)), 1)
        last_BK = mask_BT.sum(1, keepdim=True) + torch.arange(self.before, device=x_BTC.device)
        if not x_BTC.shape[1]:
            return x_BTC.new_zeros(len(x_BTC), 0, self.convolution.out_channels), past_BKC
        y_BDT: Tensor = self.convolution(whole_BLC.transpose(1, 2))
        return y_BDT.transpose(1, 2), take(whole_BLC, last_BK)


def on_real(norm: Callable[[Tensor], Tensor], x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """A normalisation of (N, D), such as nn.BatchNorm1d, over real positions only; zero at padding."""
    normed_ND = normed(norm, x_BLD[mask_BL])
    return x_BLD.new_zeros(x_BLD.shape).to(normed_ND.dtype).masked_scatter(mask_BL.unsqueeze(-1), normed_ND)


def normed(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """norm(x), (N, D) or a map (B, D, ...). Batch normalisation of one value a channel, which has no variance, is by
    the averages so far.

    PyTorch refuses that in training; the last batch of an epoch may be of one row, for none is dropped.
    """
    if isinstance(norm, _BatchNorm) and norm.training and x.numel() == x.shape[1]:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return norm(x)
