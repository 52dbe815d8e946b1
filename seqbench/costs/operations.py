"""Counting operations: matrix products, attention, convolutions, Fourier transforms; the same on every device."""
# B batch, H heads, L positions, S positions attended to, N positions of all rows, E width of a head

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.attention.varlen  # which defines the operations that are counted here
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Shape = Sequence[int]
aten: Any = torch.ops.aten


def _attention(query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any) -> int:
    """Two products, (L, E) by (E, S) and (L, S) by (S, E) for each of B * H; all of S, also where it is masked."""
    rows, heads, length, width = query
    return 2 * rows * heads * length * key[2] * (width + value[3])


def _attention_backward(grad: Shape, query: Shape, key: Shape, value: Shape, *args: Any, **kwargs: Any) -> int:
    """Twice the forward. That some kernels compute the scores again is the kernel's affair, not the model's."""
    return 2 * _attention(query, key, value)


def _packed(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor) -> int:
    """As _attention, for rows (N, H, E) of segments with these bounds: each by itself."""
    squares = sum(length * length for length in bounds.diff().tolist())
    return int(2 * squares * query.shape[1] * (query.shape[2] + value.shape[2]))


def _packed_forward(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, *args: Any, **kwargs: Any) -> int:
    """Of torch.nn.attention.varlen, as this project calls it: keys are the queries' own."""
    return _packed(query, key, value, bounds)


def _packed_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    bounds: Tensor,
    *args: Any,
    **kwargs: Any,
) -> int:
    """Twice the forward, as for every other kernel; torch's own count adds what this one computes again."""
    return 2 * _packed(query, key, value, bounds)


_packed_forward._get_raw = _packed_backward._get_raw = True  # type: ignore[attr-defined]  # tensors, not shapes


def _real_fourier(shape: Shape, dims: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """2.5 n log2 n for n real points, the convention of FFTW's benchmarks."""
    return round(2.5 * _fourier(shape, dims))


def _real_inverse(shape: Shape, dims: Sequence[int], normalization: int, last: int, *args: Any, **kwargs: Any) -> int:
    """As _real_fourier, for the `last` real points that come out."""
    full = [*shape]
    full[dims[-1]] = last
    return round(2.5 * _fourier(full, dims))


def _complex_fourier(shape: Shape, dims: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """5 n log2 n for n complex points."""
    return round(5 * _fourier(shape, dims))


def _fourier(shape: Shape, dims: Sequence[int]) -> float:
    points = math.prod(shape[dim] for dim in dims)
    return math.prod(shape) * math.log2(points)


_KERNELS = ("efficient_attention", "flash_attention", "cudnn_attention", "flash_attention_for_cpu")
_FORMULAS: dict[Any, Callable[..., int]] = {
    **{getattr(aten, f"_scaled_dot_product_{kernel}"): _attention for kernel in _KERNELS},
    **{getattr(aten, f"_scaled_dot_product_{kernel}_backward"): _attention_backward for kernel in _KERNELS},
    torch.ops.torch_attn._varlen_attn: _packed_forward,
    torch.ops.torch_attn._varlen_attn_backward: _packed_backward,
    aten._fft_r2c: _real_fourier,
    aten._fft_c2r: _real_inverse,
    aten._fft_c2c: _complex_fourier,
}


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Counts what is done inside, forward and backward; `.get_total_flops()` afterwards.

    A multiplication and an addition are two. Element-wise work (norms, activations, diagonal scans) and look-ups are
    not counted, as in torch's own counter, which this one is: with attention on a CPU and Fourier transforms added,
    of which that knows nothing, and with recurrent layers step by step, since their fused kernels are one operation
    to it. Attention counts the same in any kernel.
    """
    with warnings.catch_warnings():
        # setting one flag of oneDNN sets them all, one of which is of no use here
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        with (
            torch.backends.mkldnn.flags(enabled=False),
            torch.backends.cudnn.flags(enabled=False),
            FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter,
        ):
            yield counter


def training_operations(
    *,
    dim: int,
    hidden: int,
    rows: int,
    source: int,
    target: int,
    source_layers: int,
    target_layers: int,
    cross: bool,
    head: tuple[int, int],
) -> int:
    """Operations of a training step of a Transformer by formula: what the count on a real step is held against.

    A product of (n, a) and (a, b) is 2nab, and backward twice the forward: one for the inputs, one for the weights
    (Kaplan et al. 2020, arXiv 2001.08361, section 2.1: 6 a parameter and position, and attention on top). Plain
    layers: as many heads of keys as of queries, no gate. `source_layers` run over the source (self-attention), the
    `target_layers` over the target: with `cross` after a cross-attention to the source, else as the same stack gone
    on, the target seeing the source through its cache; then only keys and values of the last layer over the source
    have a way back. The head maps `head[0]` states to `head[1]` outputs. Tables,
    norms and activations are not counted. All positions count, padding and what a causal mask hides included.
    """
    projections, forward_net = 4 * dim * dim, 2 * dim * hidden

    def layers(number: int, length: int, seen: int) -> int:
        return number * (2 * length * (projections + forward_net) + 4 * length * seen * dim)

    one = layers(source_layers, source, source) + layers(target_layers, target, target if cross else source + target)
    if cross:
        own, of_source = 2 * dim * dim, 2 * dim * dim  # queries and output; keys and values
        one += target_layers * (2 * target * own + 2 * source * of_source + 4 * target * source * dim)
    step = 3 * (rows * one + 2 * head[0] * dim * head[1])
    if target and not cross:  # the last layer's states of the source are read by nobody: no way back through them
        unread = 2 * source * (2 * dim * dim + forward_net) + 4 * source * source * dim
        step -= 2 * rows * unread
    return step
