"""Neurons that integrate, leak and fire, along the positions of a sequence; how often they fire and what that costs."""
# B batch, L positions, D width

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from encoders.base import Encoder, Sequences
from encoders.blocks.convolution import Convolution, on_real

TAU, SLOPE = 2.0, 4.0  # of the leak, in positions; of the surrogate gradient


class Spikes(nn.Module):
    """LIF(BN(x)), zeros and ones: v = v + (x - v) / 2; where v >= threshold a spike, and v = 0.

    The neurons and gradients of spikingjelly (Fang et al. 2023, arXiv 2310.16620; LIFNode, hard reset, detached): the
    step's gradient is that of sigmoid(4 (v - threshold)), the reset has none. Membranes start at 0 in every row and
    hear nothing at padding. `dim` None: no normalisation. O(L D) time, L steps in sequence.
    """

    def __init__(self, *, dim: int | None, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.norm = None if dim is None else nn.BatchNorm1d(dim)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """(B, L, D) of 0.0 and 1.0; none at padding."""
        if self.norm is not None:
            x_BLD = on_real(self.norm, x_BLD, mask_BL)
        fired: Tensor = _Fire.apply(x_BLD, self.threshold)  # type: ignore[no-untyped-call]
        return fired


class _Fire(torch.autograd.Function):
    """All steps as one function, so that autograd keeps two tensors and no graph of L steps."""

    @staticmethod
    def forward(ctx: Any, x_BLD: Tensor, threshold: float) -> Tensor:
        v_BD, before_BLD, fired_BLD = torch.zeros_like(x_BLD[:, 0]), torch.empty_like(x_BLD), torch.empty_like(x_BLD)
        for t in range(x_BLD.shape[1]):
            h_BD = v_BD + (x_BLD[:, t] - v_BD) / TAU
            s_BD = (h_BD >= threshold).to(h_BD.dtype)
            v_BD = h_BD * (1 - s_BD)
            before_BLD[:, t], fired_BLD[:, t] = h_BD, s_BD
        ctx.save_for_backward(before_BLD, fired_BLD)
        ctx.threshold = threshold
        return fired_BLD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        before_BLD, fired_BLD = ctx.saved_tensors
        p_BLD = torch.sigmoid(SLOPE * (before_BLD - ctx.threshold))
        through_BLD = gradients[0] * SLOPE * p_BLD * (1 - p_BLD)
        gradient_BLD, v_BD = torch.empty_like(before_BLD), torch.zeros_like(before_BLD[:, 0])
        for t in reversed(range(before_BLD.shape[1])):
            h_BD = through_BLD[:, t] + v_BD * (1 - fired_BLD[:, t])
            gradient_BLD[:, t] = h_BD / TAU
            v_BD = h_BD * (1 - 1 / TAU)
        return gradient_BLD, None


def firing_rates(encoder: Encoder, source: Sequences) -> dict[str, float]:
    """Share of spikes among the real positions of a source, for each layer of neurons by its name."""
    found: dict[str, float] = {}

    def watching(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...], fired_BLD: Tensor) -> None:
            found[name] = float(fired_BLD[source.mask].mean())

        return hook

    named = [(name, module) for name, module in encoder.named_modules() if isinstance(module, Spikes)]
    _watched(encoder, source, [module.register_forward_hook(watching(name)) for name, module in named])
    return found


def synaptic_operations(encoder: Encoder, source: Sequences) -> tuple[int, int]:
    """Multiply-adds and mere additions of linear maps and convolutions on the real positions of a source.

    What reads nothing but zeros and ones adds its weights for each one; what reads numbers multiplies each of them.
    Attention, memories and norms are not in it, and both ends of a row count as its middle.
    """
    counts = {"multiplications": 0, "additions": 0}

    def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        x_ND = given[0][source.mask]
        binary = bool(((x_ND == 0) | (x_ND == 1)).all())
        linear = module.convolution if isinstance(module, Convolution) else module
        fan_out = linear.weight.numel() // x_ND.shape[1]  # type: ignore[operator]
        counts["additions" if binary else "multiplications"] += fan_out * int(x_ND.sum() if binary else x_ND.numel())

    linear = [module for module in encoder.modules() if isinstance(module, nn.Linear | Convolution)]
    _watched(encoder, source, [module.register_forward_pre_hook(hook) for module in linear])
    return counts["multiplications"], counts["additions"]


def _watched(encoder: Encoder, source: Sequences, handles: list[Any]) -> None:
    try:
        with torch.no_grad():
            encoder(source)
    finally:
        for handle in handles:
            handle.remove()
