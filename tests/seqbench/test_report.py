"""What a run prints at its end."""

from __future__ import annotations

from pathlib import Path

from seqbench.record import Cost
from seqbench.report import describe
from tests.seqbench import board_records as made


def test_the_cost_stands_in_a_line_after_the_scores(tmp_path: Path) -> None:
    cost = Cost(parameters=1_234_567, train_seconds=83.0, train_tokens_per_second=9630.0, peak_memory_mib=11264.0)
    record = made.write(tmp_path).model_copy(update={"cost": cost})
    lines = describe(record, tmp_path, skipped=False).splitlines()
    assert lines[-2] == "cost: 1.23M parameters, 83 s of training, 9.63k tokens/s, 11.0 GiB at the peak"
    assert lines[-3].split()[0] == "accuracy"


def test_what_was_not_measured_is_not_told(tmp_path: Path) -> None:
    record = made.write(tmp_path)
    floor = record.model_copy(update={"cost": Cost(parameters=0)})
    assert describe(floor, tmp_path, skipped=True).splitlines()[-2] == "cost: 0 parameters"
    nothing = record.model_copy(update={"cost": Cost()})
    assert "cost" not in describe(nothing, tmp_path, skipped=False)
