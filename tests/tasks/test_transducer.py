"""The transducer's loss against every alignment, its gradient by differences, greedy decoding against plain loops."""
# B batch, T frames, U symbols, V outputs

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.recognition import collapsed, ctc
from tasks.transducer import Transducer
from tasks.transducer_loss import _Likelihood, transducer_loss

likelihood: Any = _Likelihood.apply


def draw(frames: list[int], symbols: list[int], outputs: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of some size, labels other than the blank (the last output), and both lengths; padding is filled, too."""
    logits = 2 * torch.randn(len(frames), max(frames), max(symbols) + 1, outputs)
    label = torch.randint(outputs - 1, (len(frames), max(symbols)))
    return logits, label, torch.tensor(frames), torch.tensor(symbols)


def by_alignments(logits_TUV: Tensor, label: list[int], frames: int, blank: int) -> float:
    """ln of the sum over all orders of `frames` blanks and the symbols that end with a blank."""
    p = F.log_softmax(logits_TUV.double(), -1)
    steps, total = frames + len(label), []
    for places in itertools.combinations(range(steps - 1), len(label)):
        t = u = 0
        score = 0.0
        for step in range(steps):
            output = label[u] if step in places else blank
            score += float(p[t, u, output])
            t, u = (t, u + 1) if step in places else (t + 1, u)
        assert (t, u) == (frames, len(label))
        total.append(score)
    assert len(total) == math.comb(steps - 1, len(label))
    return float(torch.logsumexp(torch.tensor(total, dtype=torch.float64), 0))


def test_loss_is_over_all_alignments() -> None:
    """Rows of unequal numbers in one batch: more frames than symbols, fewer, one frame, no symbols."""
    frames, symbols = [6, 3, 1, 4, 5], [3, 4, 2, 0, 4]
    logits, label, *lengths = draw(frames, symbols)
    found = transducer_loss(logits, label, *lengths, blank=4, fast_emit=0.0)
    for row, (t, u) in enumerate(zip(frames, symbols, strict=True)):
        expected = -by_alignments(logits[row], label[row, :u].tolist(), t, 4)
        assert float(found[row]) == pytest.approx(expected, rel=1e-5)


def test_gradient_is_that_of_differences() -> None:
    blank = (-3 * torch.rand(3, 5, 4, dtype=torch.float64)).requires_grad_()
    label = (-3 * torch.rand(3, 5, 3, dtype=torch.float64)).requires_grad_()
    frames, symbols = torch.tensor([5, 3, 1]), torch.tensor([3, 1, 2])
    assert torch.autograd.gradcheck(
        lambda b, s: likelihood(b, s, frames, symbols, 0.0),
        (blank, label),
    )


def test_gradient_of_the_logits_is_that_of_the_lattice_in_autograd() -> None:
    """Against plain recursion over cells, differentiated by autograd; nothing flows to padding."""
    frames, symbols = [6, 3, 2], [2, 3, 0]
    logits, label, *lengths = draw(frames, symbols)
    ours = logits.clone().requires_grad_()
    transducer_loss(ours, label, *lengths, blank=4, fast_emit=0.0).sum().backward()  # type: ignore[no-untyped-call]
    theirs = logits.clone().double().requires_grad_()
    p, total = F.log_softmax(theirs, -1), torch.zeros((), dtype=torch.float64)
    for row, (T, U) in enumerate(zip(frames, symbols, strict=True)):
        alpha = {(0, 0): torch.zeros((), dtype=torch.float64)}
        for t, u in itertools.product(range(T), range(U + 1)):
            ways = [alpha[t - 1, u] + p[row, t - 1, u, 4]] if t else []
            ways += [alpha[t, u - 1] + p[row, t, u - 1, label[row, u - 1]]] if u else []
            alpha[t, u] = torch.logsumexp(torch.stack(ways), 0) if ways else alpha[t, u]
        total = total - alpha[T - 1, U] - p[row, T - 1, U, 4]
    total.backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=1e-5, rtol=1e-4)
    assert not ours.grad[1, 3:].any()
    assert not ours.grad[2, :, 1:].any()


def test_fast_emit_scales_gradients_of_symbols_alone() -> None:
    grads = {}
    for fast_emit in (0.0, 0.5):
        blank, label = torch.full((1, 4, 3), -1.0).requires_grad_(), torch.full((1, 4, 2), -1.5).requires_grad_()
        value = likelihood(blank, label, torch.tensor([4]), torch.tensor([2]), fast_emit)
        torch.autograd.backward(value.sum())
        assert blank.grad is not None
        assert label.grad is not None
        grads[fast_emit] = float(value.detach()), blank.grad, label.grad
    assert grads[0.0][0] == grads[0.5][0]
    assert torch.equal(grads[0.0][1], grads[0.5][1])
    torch.testing.assert_close(1.5 * grads[0.0][2], grads[0.5][2])
    assert float(grads[0.0][1].sum()) == pytest.approx(4)  # every path has a blank a frame
    assert float(grads[0.0][2].sum()) == pytest.approx(2)  # and each symbol once


def test_long_rows_stay_exact() -> None:
    """150 frames and 60 symbols in float32, against float64 by the same cells' forward recursion, row by row."""
    logits, label, *lengths = draw([150], [60], outputs=9)
    p = F.log_softmax(logits[0].double(), -1)
    symbol = p[:, :-1].gather(2, label[0][None, :, None].expand(150, -1, -1)).squeeze(2)
    alpha = torch.cat((torch.zeros(1, dtype=torch.float64), symbol[0].cumsum(0)))
    for t in range(1, 150):
        come = alpha + p[t - 1, :, 8]
        cells = [come[0]]
        for u in range(1, 61):
            cells.append(torch.logaddexp(come[u], cells[u - 1] + symbol[t, u - 1]))
        alpha = torch.stack(cells)
    expected = -float(alpha[60] + p[149, 60, 8])
    found = transducer_loss(logits, label, *lengths, blank=8, fast_emit=0.0)
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)


def test_ctc_is_over_all_alignments() -> None:
    frames, symbols = [5, 4, 3], [3, 2, 0]
    logits, label = torch.randn(3, 5, 4), torch.tensor([[0, 0, 1], [2, 1, 0], [0, 0, 0]])
    found = ctc(logits, label, torch.tensor(frames), torch.tensor(symbols), blank=3)
    p = logits.log_softmax(-1).double()
    for row, (T, U) in enumerate(zip(frames, symbols, strict=True)):
        total = 0.0
        for outputs in itertools.product(range(4), repeat=T):
            merged = [k for k, _ in itertools.groupby(outputs) if k != 3]
            if merged == label[row, :U].tolist():
                total += math.exp(sum(float(p[row, t, k]) for t, k in enumerate(outputs)))
        assert float(found[row]) == pytest.approx(-math.log(total), rel=1e-5)
    assert ctc(logits[:1], label[:1], torch.tensor([3]), torch.tensor([3]), blank=3).tolist() == [0.0]  # no room


def test_greedy_ctc_drops_repetitions_then_blanks() -> None:
    outputs = torch.tensor([[1, 1, 3, 1, 0, 0, 3], [3, 3, 2, 2, 3, 2, 1]])
    assert collapsed(F.one_hot(outputs, 4).float(), torch.tensor([7, 5]), blank=3) == [[1, 1, 0], [2]]


def test_greedy_transducer_is_a_plain_loop() -> None:
    """Row by row, the LSTM read anew from the begin each time; most symbols a frame are cut off.

    What was said so far counts much, so that a state that moves at a blank, or another begin, gives other symbols.
    """
    net = Transducer(dim=6, outputs=5, predictor=7, joint=8).eval()
    assert not net.table.weight[4].any(), "nothing yet is zeros"
    assert net.table.padding_idx == 4
    with torch.no_grad():
        for weight in (*net.lstm.parameters(), net.of_past.weight, net.out.weight):
            weight.mul_(4)
        frames = [9, 5, 1, 7, 2, 8, 6, 3, 4, 5, 7, 8]
        states = 2 * torch.randn(len(frames), 9, 6)
        first = net(states, torch.zeros(len(frames), 0, dtype=torch.int64))[:, :, 0]
        net.out.bias[4] += (first[..., :4].amax(-1) - first[..., 4]).median()  # blank at half of the frames
        for most in (1, 3):
            found = net.greedy(states, torch.tensor(frames), most=most)
            for row, length in enumerate(frames):
                symbols: list[int] = []
                for t in range(length):
                    for _ in range(most):
                        logits = net(states[row, None, t, None], torch.tensor([symbols], dtype=torch.int64))
                        best = int(logits[0, 0, -1].argmax())
                        if best == 4:
                            break
                        symbols.append(best)
                assert found[row] == symbols
        assert 3 < sum(map(len, found)) < 3 * sum(frames)
