"""What is for CUDA and has a path on a CPU: compiled steps, and peaks of devices. What needs CUDA is skipped."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from seqbench import process
from seqbench.costs import cost
from seqbench.costs.peaks import DEVICES, peak
from seqbench.run import run
from tests.seqbench.toy_config import toy_config


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756.5e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("Tesla V100-SXM2-16GB", None),
        ("NVIDIA A1000", None),
    ],
)
def test_peaks_by_the_names_that_drivers_give(name: str, bf16: float | None) -> None:
    assert peak(name, "bf16-mixed", tf32=False) == (bf16 and pytest.approx(bf16))


def test_peaks_are_dense_and_fall_with_precision() -> None:
    assert peak("NVIDIA H100 80GB HBM3", "32-true", tf32=True) == pytest.approx(494.7e12)
    assert peak("NVIDIA H100 80GB HBM3", "32-true", tf32=False) == pytest.approx(66.9e12)
    for _, peaks in DEVICES:
        assert peaks.bf16 is None or peaks.bf16 >= (peaks.tf32 or 0) > 0
    with pytest.raises(ValueError, match="precision: 8-true has no peak here"):
        peak("NVIDIA H100", "8-true", tf32=False)


def test_utilisation_is_a_share_of_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    how = {"devices": 4, "precision": "bf16-mixed", "tf32": True}
    cpu = cost.utilisation(1e15, 2.0, device=torch.device("cpu"), **how)  # type: ignore[arg-type]
    assert cpu == {"peak_flops": None, "mfu": None}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    found = cost.utilisation(1e15, 2.0, device=torch.device("cuda"), **how)  # type: ignore[arg-type]
    assert found["peak_flops"] == pytest.approx(4 * 989.4e12)
    assert found["mfu"] is not None
    assert math.isclose(found["mfu"], 0.5e15 / (4 * 989.4e12))


def test_tensor_cores_are_a_setting_that_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    with process.settings(threads=None, deterministic=True, tf32=True):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before == "highest"


@pytest.mark.slow
def test_compiled_steps_learn_the_same_and_are_counted(tmp_path: Path) -> None:
    same = {"encoder.dropout": 0.0, "budget.steps": 6, "budget.eval_every": 3, "trainer.accumulate": 1}
    plain = run(toy_config(tmp_path, same)).record
    compiled = run(toy_config(tmp_path, same | {"trainer.compile": "default"})).record
    assert compiled.status == "finished"
    assert compiled.id != plain.id
    for p, q in zip(plain.curves, compiled.curves, strict=True):
        assert q.values["train/loss"] == pytest.approx(p.values["train/loss"], abs=1e-5)
    assert plain.cost.compilations is None
    assert compiled.cost.compilations is not None
    assert compiled.cost.recompilations is not None
    assert compiled.cost.compilations > compiled.cost.recompilations >= 1  # batches of other lengths
    again = run(toy_config(tmp_path / "again", same)).record
    assert again.curves[-1].values == plain.curves[-1].values
    assert compiled.cost.flops_train == pytest.approx(plain.cost.flops_train)  # counted on the plain encoder


@pytest.mark.cuda
def test_a_run_on_cuda_is_the_same_twice(tmp_path: Path) -> None:
    settings = {"trainer.accelerator": "gpu", "trainer.precision": "bf16-mixed", "trainer.tf32": True}
    first = run(toy_config(tmp_path / "a", settings)).record
    second = run(toy_config(tmp_path / "b", settings)).record
    assert first.status == "finished"
    assert [p.values for p in first.curves] == [p.values for p in second.curves]
    assert first.predictions == second.predictions
    assert first.cost.peak_memory_mib
