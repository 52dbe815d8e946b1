"""The transducer's loss: how likely a sequence is, over all ways to emit it frame by frame (Graves 2012, 1211.3711)."""
# B batch, T frames, U symbols of a row, V outputs, N = T + U + 1 diagonals of the lattice

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def transducer_loss(
    logits_BTUV: Tensor, label_BU: Tensor, frames_B: Tensor, symbols_B: Tensor, *, blank: int, fast_emit: float
) -> Tensor:
    """-ln P(label | frames) of each row, (B,) float32 in nats, of logits (B, T, U + 1, V), U counting from 0.

    Row b has frames_B[b] >= 1 frames and symbols_B[b] symbols; what is beyond plays no part. At (t, u) a path either
    emits symbol u and stays at the frame, or a blank and goes to the next; the last step is a blank of the last frame.
    `fast_emit` is FastEmit's lambda (Yu et al. 2021, arXiv 2010.11148): gradients of symbols, not of blanks, are
    larger by 1 + lambda, the value is not. O(T U V) memory, T + U steps.
    """
    p_BTUV = F.log_softmax(logits_BTUV.float(), -1)
    blank_BTU = p_BTUV[..., blank]
    index_BTU1 = label_BU[:, None, :, None].expand(-1, p_BTUV.shape[1], -1, 1)
    label_BTU = p_BTUV[:, :, :-1].gather(3, index_BTU1).squeeze(3)
    likelihood: Any = _Likelihood.apply
    loss: Tensor = -likelihood(blank_BTU, label_BTU, frames_B, symbols_B, fast_emit)
    return loss


class _Likelihood(torch.autograd.Function):
    """ln P by the backward variables, its gradient by the arcs' posteriors; both run over diagonals n = t + u."""

    @staticmethod
    def forward(
        ctx: Any, blank_BTU: Tensor, label_BTU: Tensor, frames_B: Tensor, symbols_B: Tensor, fast_emit: float
    ) -> Tensor:
        """ln P, (B,), of blanks (B, T, U + 1) and of symbols (B, T, U)."""
        frames, symbols = blank_BTU.shape[1], label_BTU.shape[2]
        place_U = torch.arange(symbols + 1, device=blank_BTU.device)
        number = frames + symbols + 1
        time_NU = torch.arange(number, device=blank_BTU.device)[:, None] - place_U
        inside_BNU = (time_NU >= 0) & (time_NU < frames_B[:, None, None]) & (place_U <= symbols_B[:, None, None])
        index_BNU = time_NU.clamp(0, frames - 1).expand(len(blank_BTU), -1, -1)
        blank_BNU = blank_BTU.gather(1, index_BNU).masked_fill(~inside_BNU, -torch.inf)
        ends_BNU = inside_BNU & (place_U < symbols_B[:, None, None])
        label_BNU = F.pad(label_BTU, (0, 1)).gather(1, index_BNU).masked_fill(~ends_BNU, -torch.inf)
        exit_BNU = (time_NU == frames_B[:, None, None]) & (place_U == symbols_B[:, None, None])
        after_BU = torch.full_like(blank_BNU[:, 0], -torch.inf)
        beta = [after_BU] * number
        for n in range(number - 1, -1, -1):
            after_BU = torch.logaddexp(
                blank_BNU[:, n] + after_BU, label_BNU[:, n] + F.pad(after_BU[:, 1:], (0, 1), value=-torch.inf)
            )
            after_BU = beta[n] = after_BU.masked_fill(exit_BNU[:, n], 0.0)
        ctx.save_for_backward(blank_BNU, label_BNU, torch.stack(beta, 1), inside_BNU, ends_BNU)
        ctx.fast_emit, ctx.frames = fast_emit, frames
        return beta[0][:, 0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor | None, ...]:
        """Posterior of each arc: P of the paths through it over P."""
        blank_BNU, label_BNU, beta_BNU, inside_BNU, ends_BNU = ctx.saved_tensors
        before_BU = torch.full_like(blank_BNU[:, 0], -torch.inf)
        before_BU[:, 0] = 0.0
        alpha = [before_BU]
        for n in range(1, blank_BNU.shape[1]):
            moved_BU = F.pad((before_BU + label_BNU[:, n - 1])[:, :-1], (1, 0), value=-torch.inf)
            before_BU = torch.logaddexp(before_BU + blank_BNU[:, n - 1], moved_BU)
            alpha.append(before_BU)
        whole_BNU = torch.stack(alpha, 1) - beta_BNU[:, :1, :1]
        next_BNU = F.pad(beta_BNU[:, 1:], (0, 0, 0, 1), value=-torch.inf)
        onward_BNU = F.pad(next_BNU[:, :, 1:], (0, 1), value=-torch.inf)
        through_BNU = (whole_BNU + blank_BNU + next_BNU).exp().masked_fill(~inside_BNU, 0.0)
        emitted_BNU = (whole_BNU + label_BNU + onward_BNU).exp().masked_fill(~ends_BNU, 0.0) * (1 + ctx.fast_emit)
        upright = [_upright(part * grad_B[:, None, None], ctx.frames) for part in (through_BNU, emitted_BNU)]
        return upright[0], upright[1][:, :, :-1], None, None, None


def _upright(x_BNU: Tensor, frames: int) -> Tensor:
    """From diagonals back to frames, (B, T, U + 1)."""
    place_TU = torch.arange(frames, device=x_BNU.device)[:, None] + torch.arange(x_BNU.shape[2], device=x_BNU.device)
    return x_BNU.gather(1, place_TU.expand(len(x_BNU), -1, -1))
