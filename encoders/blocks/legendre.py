"""Legendre memory: the last steps of a signal as coefficients of Legendre polynomials, in parallel or in steps."""
# B batch, L positions, T positions that follow a state, O order (coefficients)

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST = 4096  # coefficients; their transition is 134 MB in float64, of which its exponential takes copies, and O^3 time


class LegendreMemory(nn.Module):
    """m[t] = A m[t-1] + B u[t], u a number a step (Voelker, Kajic, Eliasmith 2019, equations 1 and 2; none is learnt).

    A and B are the zero-order hold, with a step of 1, of theta m' = A' m + B' u with
        A'[i, j] = (2i + 1) (-1 if i < j else (-1)^(i-j+1)),    B'[i] = (2i + 1) (-1)^i,
    theta being `window`: then u(t - r theta) ~ sum_i P_i(2r - 1) m_i(t) for 0 <= r <= 1, P_i Legendre's polynomials,
    and what is longer ago fades. As nothing but m itself comes back, m is a convolution of u, which `forward` does by
    Fourier transforms (Chilkuri, Eliasmith 2021, arXiv 2102.11417, equation 26) in O(O L log L), `resume` in steps of
    O(O^2). A and B are made in float64; all works in float32, whatever the precision of the run. Raises ValueError
    for an order beyond MOST; the published ones are 512 at most.
    """

    transition: Tensor  # (O, O), A transposed
    entry: Tensor  # (O,), B
    response: Tensor  # (O, length), A^t B

    def __init__(self, *, order: int, window: float, length: int) -> None:
        super().__init__()
        if order > MOST:
            raise ValueError(f"order: {order} numbers, whose transition has {order**2:,}; use {MOST} or less")
        a_OO, b_O = discretised(order, window)
        steps = [b_O]
        for _ in range(length - 1):
            steps.append(a_OO @ steps[-1])
        for name, made in (("transition", a_OO.T), ("entry", b_O), ("response", torch.stack(steps, 1))):
            value = made.to(torch.get_default_device(), torch.float32).contiguous()
            self.register_buffer(name, value, persistent=False)  # of the sizes alone, so no part of the weights

    def forward(self, u_BL: Tensor) -> Tensor:
        """Memories (B, L, O) after each step, from an empty one. `u` is at most `length` long."""
        length, u_BL = u_BL.shape[1], u_BL.float()
        if not u_BL.numel():  # a transform of nothing is refused
            return u_BL.new_zeros(*u_BL.shape, len(self.entry))
        with torch.autocast(u_BL.device.type, enabled=False):
            spectrum_OF = torch.fft.rfft(self.response[:, :length].float(), n=2 * length)
            spectrum_BOF = torch.fft.rfft(u_BL, n=2 * length).unsqueeze(1) * spectrum_OF
            m_BOL: Tensor = torch.fft.irfft(spectrum_BOF, n=2 * length)[..., :length]
        return m_BOL.transpose(1, 2)

    def resume(self, u_BT: Tensor, mask_BT: Tensor, state_BO: Tensor | None) -> tuple[Tensor, Tensor]:
        """Memories (B, T, O) from a state on (None: an empty one), and each row's at its last real step."""
        if state_BO is None:
            m_BTO = self.forward(u_BT)
            from_BTO = torch.cat((torch.zeros_like(m_BTO[:, :1]), m_BTO), 1)
            return m_BTO, from_BTO[torch.arange(len(m_BTO), device=m_BTO.device), mask_BT.sum(1)]
        u_BT, memories = u_BT.float(), []
        with torch.autocast(u_BT.device.type, enabled=False):
            for t in range(u_BT.shape[1]):
                next_BO = state_BO @ self.transition.float() + u_BT[:, t, None] * self.entry.float()
                memories.append(next_BO)
                state_BO = torch.where(mask_BT[:, t, None], next_BO, state_BO)
        if not memories:
            return u_BT.new_zeros(*u_BT.shape, len(self.entry)), state_BO
        return torch.stack(memories, 1), state_BO


def discretised(order: int, window: float) -> tuple[Tensor, Tensor]:
    """A (O, O) and B (O,) in float64 on the CPU: both from exp([[A', B'], [0, 0]] / theta)."""
    i_O = torch.arange(order, dtype=torch.float64, device="cpu")
    sign_OO = torch.where(i_O[:, None] < i_O, -1.0, (-1.0) ** (i_O[:, None] - i_O + 1))
    scale_O1 = (2 * i_O[:, None] + 1) / window
    both = torch.zeros(order + 1, order + 1, dtype=torch.float64, device="cpu")
    both[:order, :order] = scale_O1 * sign_OO
    both[:order, order:] = scale_O1 * (-1.0) ** i_O[:, None]
    held: Tensor = torch.linalg.matrix_exp(both)
    return held[:order, :order], held[:order, order]
