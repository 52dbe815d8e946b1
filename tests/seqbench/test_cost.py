"""Costs against formulas: parameters, operations, time that is known."""

from __future__ import annotations

import contextlib
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from encoders.base import Encoder, InputSpec, Sequences, States
from seqbench.costs import cost
from seqbench.costs.operations import counting
from seqbench.training.evaluation import Evaluator
from tasks.base import Batch, Output
from tasks.loading import Batching
from tests.seqbench.toy import VOCABULARY, Hits, ToyBatch, ToyData, ToyEncoder, ToyTask

D = 12


class Recurrent(Encoder):
    """One LSTM over one-hot ids."""

    def __init__(self, *, spec: InputSpec) -> None:
        super().__init__()
        self.dim, self.causal = D, True
        self.lstm = nn.LSTM(VOCABULARY, D, batch_first=True)

    def forward(self, source: Sequences) -> States:
        values = nn.functional.one_hot(source.values, VOCABULARY).float()
        return States(values=self.lstm(values)[0], mask=source.mask)


class Slow(ToyTask):
    """Takes ten milliseconds at least."""

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        time.sleep(0.01)
        return super().forward(encoder, batch)


def evaluator(kind: type[Encoder] = ToyEncoder, task_kind: type[ToyTask] = ToyTask) -> Evaluator:
    task = task_kind(data=ToyData(rows=42, seed=3), metrics=[Hits()], max_length=7)
    task.setup()
    encoder = ToyEncoder(dim=D, dropout=0.2, spec=task.spec) if kind is ToyEncoder else kind(spec=task.spec)  # type: ignore[call-arg]
    task.attach(encoder)
    return Evaluator(
        task=task,
        encoder=encoder,
        batching=Batching(tokens=100),
        device=torch.device("cpu"),
        precision=contextlib.nullcontext,
        workers=0,
        seed=0,
    )


def test_parameters_by_formula() -> None:
    it = evaluator()
    assert cost.parameters(it.encoder, it.task) == {
        "parameters": VOCABULARY * D + D * D + D + 2 * D + 2 * D + 2,
        "parameters_encoder": VOCABULARY * D + D * D + D + 2 * D,
        "parameters_embedding": VOCABULARY * D,
        "parameters_trained": VOCABULARY * D + D * D + D + 2 * D + 2 * D + 2,
    }


def test_a_shared_parameter_counts_once() -> None:
    it = evaluator()
    before = cost.parameters(it.encoder, it.task)
    assert isinstance(it.encoder, ToyEncoder)
    it.task.tied = it.encoder.table.weight
    it.encoder.requires_grad_(False)
    after = cost.parameters(it.encoder, it.task)
    assert after == before | {"parameters_trained": 2 * D + 2}


def test_operations_of_a_training_by_formula() -> None:
    it = evaluator()
    batches = [np.arange(i, i + 6) for i in range(0, 42, 6)]
    positions, rows = 0, 0
    for i in (2, 4):
        batch = it.task.collate("train", batches[i])
        assert isinstance(batch, ToyBatch)
        positions += batch.source.mask.numel()
        rows += len(batches[i])
    # a product of (n, a) and (a, b) takes 2nab; backward takes one for the input and one for the weights
    one_training = 3 * (2 * positions * D * D + 2 * rows * D * 2)
    assert cost.flops_training(it, batches, 10 * positions) == pytest.approx(10 * one_training)
    assert all(p.grad is None for p in it.encoder.parameters())


def test_a_recurrent_layer_is_counted() -> None:
    it = evaluator(Recurrent)
    rows = np.arange(5)
    batch = it.task.collate("test", rows)
    assert isinstance(batch, ToyBatch)
    padded, real = batch.source.mask.numel(), int(batch.source.mask.sum())
    expected = 2 * padded * 4 * D * (VOCABULARY + D) + 2 * len(rows) * D * 2
    assert cost.flops_forward(it, rows) == pytest.approx(expected / real)


def test_operations_of_a_frozen_encoder_are_forward_only() -> None:
    it = evaluator()
    batches = [np.arange(6)]
    whole = cost.flops_training(it, batches, 1000)
    it.encoder.requires_grad_(False)
    assert cost.flops_training(it, batches, 1000) < 0.5 * whole


@pytest.mark.parametrize("masked", [False, True])
def test_attention_counts_the_same_in_any_kernel(masked: bool) -> None:
    B, H, L, S, E = 2, 3, 5, 7, 8
    q = torch.randn(B, H, L, E, requires_grad=True)
    k, v = (torch.randn(B, H, S, E, requires_grad=True) for _ in range(2))
    mask = torch.ones(B, 1, L, S, dtype=torch.bool) if masked else None
    for kernel in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(kernel), counting() as counter:
            nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward()
        assert counter.get_total_flops() == 3 * (4 * B * H * L * S * E), kernel


def test_fourier_transforms_by_formula() -> None:
    x = torch.randn(3, 16)
    with counting() as counter:
        torch.fft.irfft(torch.fft.rfft(x, n=32), n=32)
    assert counter.get_total_flops() == 2 * round(2.5 * 3 * 32 * 5)
    with counting() as counter:
        torch.fft.fft(x.to(torch.complex64))
    assert counter.get_total_flops() == 5 * 3 * 16 * 4


def test_latency_of_a_known_time() -> None:
    latency = cost.latency(evaluator(task_kind=Slow))
    assert latency.batch_size == 1
    assert 20 <= latency.repeats <= cost.MOST
    assert latency.p95_ms is not None
    assert 10 <= latency.p50_ms <= latency.p95_ms < 100


def test_a_few_slow_passes_have_no_95th_percentile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "PATIENCE", 0.05)
    monkeypatch.setattr(cost, "SECONDS", 0.05)
    latency = cost.latency(evaluator(task_kind=Slow))
    assert cost.FEWEST <= latency.repeats < 20
    assert latency.p95_ms is None
    assert latency.p50_ms >= 10


class Windows(ToyTask):
    """Nine windows of one example, as of a series."""

    seen: ClassVar[set[int]] = set()

    def lengths(self, split: str) -> NDArray[np.int64]:
        return np.full(9, len(self._ids(split, 0)))

    def collate(self, split: str, rows: NDArray[np.int64]) -> ToyBatch:
        self.seen.update(int(row) for row in rows)
        return super().collate(split, 0 * rows)


def test_latency_goes_over_rows_not_over_what_they_are_cut_from() -> None:
    it = evaluator(task_kind=Windows)
    it.task.examples["test"] = it.task.examples["test"][:1]
    cost.latency(it)
    assert Windows.seen == set(range(9))


def test_peak_memory_sees_what_was_held() -> None:
    device = torch.device("cpu")
    before = cost.reset_peak_memory(device)
    assert cost.peak_memory_mib(device, before) < 8
    held: Tensor | None = torch.ones(2**24)  # 64 MiB
    assert held is not None
    held = None
    assert cost.peak_memory_mib(device, before) == pytest.approx(64, abs=8)
    again = cost.reset_peak_memory(device)  # a second run is charged with what it holds, not with what is left
    assert cost.peak_memory_mib(device, again) < 8


class Timed(ToyTask):
    """Notes the rows that are passed through."""

    passed: ClassVar[list[int]] = []

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        self.passed.extend(batch.index.tolist())
        return super().forward(encoder, batch)


def test_latency_is_of_rows_drawn_at_random_the_same_for_all() -> None:
    orders = []
    for _ in range(2):
        Timed.passed.clear()
        cost.latency(evaluator(task_kind=Timed))
        orders.append(list(Timed.passed))
    number = len(evaluator().task.lengths("test"))
    assert orders[0][:20] == orders[1][:20]
    assert number <= cost.MOST
    assert orders[0][:number] != sorted(orders[0][:number])
    assert set(orders[0][:number]) == set(range(number))  # without repeats while there are new ones


class Normed(Encoder):
    """One-hot ids, normalised over the batch."""

    def __init__(self, *, spec: InputSpec) -> None:
        super().__init__()
        self.dim, self.causal = VOCABULARY, False
        self.norm = nn.BatchNorm1d(VOCABULARY)

    def forward(self, source: Sequences) -> States:
        values_BLV = nn.functional.one_hot(source.values, VOCABULARY).float()
        normed_BVL = self.norm(values_BLV.transpose(1, 2))
        return States(values=normed_BVL.transpose(1, 2), mask=source.mask)


def test_counting_leaves_the_statistics_of_a_batch_norm() -> None:
    """What is kept of a run afterwards is what was tested."""
    it = evaluator(Normed)
    batches = [np.arange(7), np.arange(7, 14)]
    before = {name: tensor.clone() for name, tensor in it.encoder.state_dict().items()}
    cost.flops_training(it, batches, 100)
    assert all(torch.equal(tensor, before[name]) for name, tensor in it.encoder.state_dict().items())
    it.encoder.train()
    it.encoder(it.task.collate("train", batches[0]).source)  # type: ignore[attr-defined]
    assert not torch.equal(it.encoder.state_dict()["norm.running_mean"], before["norm.running_mean"])
