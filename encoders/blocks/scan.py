"""Diagonal state space layer: one linear recurrence per channel, as a convolution, in chunks or step by step."""
# B batch, L positions, D channels, N complex states of a channel, I and J: L = I J, rounded up

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.blocks.recurrent import take, turning


class DiagonalSSM(nn.Module):
    """x' = A x + B u, y = Re(C x) + skip u, with diagonal complex A (S4D: Gu et al. 2022, arXiv 2206.11893, section 3).

    Discretised by zero-order hold with a learnt step dt for each channel:
        x[t] = exp(dt A) x[t-1] + (exp(dt A) - 1) / A u[t],    y[t] = 2 Re(sum_n C[n] x[n,t]) + skip u[t].
    A state size of 2N real numbers is N complex ones and their conjugates (the 2 above); B is 1, as C takes its part.
    Re A = -exp(log_decay) < 0 keeps it stable. Start values (section 4, and the official code at 2ed46fc):
    A[n] = -1/2 + i pi n ("lin") or -1/2 + i (2N / pi) (2N / (2n + 1) - 1) ("inv"); log dt uniform between the logs
    of `dt_min` and `dt_max`; C standard complex normal, E|C|^2 = 1 (each part N(0, 1/2)), skip N(0, 1).

    What A and dt are made of is never decayed, as in the official code: 0 is no neutral value there. The smaller
    learning rate that the code gives them is not here. All of it runs in float32, under autocast and where the weights
    are bfloat16, since FFT and long powers have none; outputs have the type of the inputs.
    """

    without_decay: ClassVar[frozenset[str]] = frozenset({"log_dt", "log_decay", "turn"})

    def __init__(
        self, *, channels: int, state_dim: int, init: Literal["lin", "inv"], dt_min: float, dt_max: float
    ) -> None:
        super().__init__()
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"dt_min, dt_max: {dt_min}, {dt_max}; use 0 < dt_min <= dt_max")
        if state_dim % 2:
            raise ValueError(f"state_dim: {state_dim} is odd; states come in conjugate pairs, use {state_dim + 1}")
        pairs = state_dim // 2
        n_N = torch.arange(pairs, dtype=torch.float32)
        turn_N = math.pi * n_N if init == "lin" else state_dim / math.pi * (state_dim / (2 * n_N + 1) - 1)
        low, high = math.log(dt_min), math.log(dt_max)
        self.log_dt = nn.Parameter(torch.rand(channels) * (high - low) + low)  # (D,)
        self.log_decay = nn.Parameter(torch.full((channels, pairs), math.log(0.5)))  # (D, N)
        self.turn = nn.Parameter(turn_N.repeat(channels, 1))  # (D, N), imaginary part of A
        self.readout = nn.Parameter(torch.randn(channels, pairs, 2) * math.sqrt(0.5))  # (D, N, 2), C
        self.skip = nn.Parameter(torch.randn(channels))  # (D,)

    def forward(self, u_BLD: Tensor) -> Tensor:
        """Outputs (B, L, D) from a zero state, by FFT: O(B D L log L + D N L) time."""
        with _full_precision(u_BLD):
            u_BDL = u_BLD.float().transpose(1, 2)
            rate_DN, gain_DN = self._discrete()
            return self._convolve(u_BDL, rate_DN, gain_DN).transpose(1, 2).to(u_BLD.dtype)

    def resume(self, u_BLD: Tensor, mask_BL: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (B, L, D) from `state` on (None: zeros), and the state at each row's last real position.

        `state` (B, D, N, 2) float32. A row without a real position keeps its state. O(B D N L) time.
        """
        if u_BLD.shape[1] == 1 and state is not None:
            return self._step(u_BLD, mask_BL, state)
        if not u_BLD.shape[1] and state is not None:
            return u_BLD, state
        with _full_precision(u_BLD):
            length, lengths_B, dtype = u_BLD.shape[1], mask_BL.sum(1), u_BLD.dtype
            u_BLD = u_BLD.float()
            rate_DN, gain_DN = self._discrete()
            y_BDL = self._convolve(u_BLD.transpose(1, 2), rate_DN, gain_DN)
            # Turned within its real part, every row ends at place 0, and one table of powers serves them all.
            turned_BLD = take(u_BLD, turning(mask_BL)) * mask_BL.unsqueeze(-1)
            after_BDN = _weigh(turned_BLD.transpose(1, 2), rate_DN) * gain_DN
            if state is not None:
                before_BDN = torch.view_as_complex(state)
                readout_DN = torch.view_as_complex(self.readout.float()) * torch.exp(rate_DN)
                y_BDL = y_BDL + 2 * _unroll(before_BDN * readout_DN, rate_DN, length).real
                after_BDN = after_BDN + before_BDN * torch.exp(rate_DN * lengths_B[:, None, None])
            return y_BDL.transpose(1, 2).to(dtype), torch.view_as_real(after_BDN)

    def _step(self, u_B1D: Tensor, mask_B1: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One turn of the recurrence in the class's docstring."""
        with _full_precision(u_B1D):
            u_BD = u_B1D.float().squeeze(1)
            rate_DN, gain_DN = self._discrete()
            x_BDN = torch.exp(rate_DN) * torch.view_as_complex(state) + gain_DN * u_BD.unsqueeze(-1)
            y_BD = 2 * (torch.view_as_complex(self.readout.float()) * x_BDN).sum(-1).real + self.skip * u_BD
            state = torch.where(mask_B1[:, :, None, None], torch.view_as_real(x_BDN), state)
            return y_BD.unsqueeze(1).to(u_B1D.dtype), state

    def _discrete(self) -> tuple[Tensor, Tensor]:
        """dt A and (exp(dt A) - 1) / A, both (D, N) complex."""
        a_DN = torch.complex(-self.log_decay.float().exp(), self.turn.float())
        rate_DN = a_DN * self.log_dt.float().exp().unsqueeze(-1)
        return rate_DN, (torch.exp(rate_DN) - 1) / a_DN

    def _convolve(self, u_BDL: Tensor, rate_DN: Tensor, gain_DN: Tensor) -> Tensor:
        """y = K * u + skip u with K[l] = 2 Re(sum_n C[n] gain[n] exp(dt A[n] l))."""
        length = u_BDL.shape[-1]
        if not len(u_BDL):  # an FFT of nothing is refused
            return u_BDL
        readout_DN = torch.view_as_complex(self.readout.float()) * gain_DN
        kernel_DL = 2 * _unroll(readout_DN, rate_DN, length).real
        spectrum_BDF = torch.fft.rfft(u_BDL, n=2 * length) * torch.fft.rfft(kernel_DL, n=2 * length)
        y_BDL: Tensor = torch.fft.irfft(spectrum_BDF, n=2 * length)[..., :length]
        return y_BDL + self.skip.unsqueeze(-1) * u_BDL


def _powers(rate_DN: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """exp(rate l) for l < length as products of two tables: l = i J + j gives (D, N, I) times (D, N, J).

    So 2 sqrt(L) exponentials are taken for each state in place of L, which were most of a training step on CPU.
    """
    fine = math.isqrt(length - 1) + 1
    coarse = -(-length // fine)
    steps = torch.arange(max(fine, coarse), device=rate_DN.device)
    rate_DN1 = rate_DN.unsqueeze(-1)
    return torch.exp(rate_DN1 * (fine * steps[:coarse])), torch.exp(rate_DN1 * steps[:fine])


def _unroll(weight_DN: Tensor, rate_DN: Tensor, length: int) -> Tensor:
    """sum_n weight[n] exp(rate[n] l) for every l < length: (..., D, N) -> (..., D, L), complex."""
    coarse_DNI, fine_DNJ = _powers(rate_DN, length)
    parts_DIN = (weight_DN.unsqueeze(-1) * coarse_DNI).transpose(-1, -2)
    return (parts_DIN @ fine_DNJ).flatten(-2)[..., :length]


def _weigh(u_BDL: Tensor, rate_DN: Tensor) -> Tensor:
    """sum_l exp(rate[n] l) u[l]: (B, D, L) real -> (B, D, N) complex."""
    coarse_DNI, fine_DNJ = _powers(rate_DN, u_BDL.shape[-1])
    coarse, fine = coarse_DNI.shape[-1], fine_DNJ.shape[-1]
    u_BDIJ = F.pad(u_BDL, (0, coarse * fine - u_BDL.shape[-1])).reshape(*u_BDL.shape[:2], coarse, fine)
    parts_BDIN: Tensor = u_BDIJ.to(fine_DNJ.dtype) @ fine_DNJ.transpose(-1, -2)
    return (parts_BDIN * coarse_DNI.transpose(-1, -2)).sum(-2)


def _full_precision(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu", enabled=False)
