"""SeqPE's two losses: the official values, which positions are drawn, and what the contrast alone teaches.

The values were computed with the official module (ghrua/seqpe@4c4b908, float32).
"""
# b pivots, K candidates of each, U positions, D width

from __future__ import annotations

import random
from collections import Counter
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.base import InputSpec
from encoders.systems import seqpe_losses
from encoders.systems.seqpe_losses import Contrast, Transfer, contrast_loss, edit, transfer_loss
from tests.encoders.transformers_models import preset


def test_both_losses_have_the_official_values() -> None:
    def grid(rows: int, factor: float, of: Any) -> Tensor:
        return torch.tensor(of(factor * np.arange(rows * 8.0)).reshape(rows, 8), dtype=torch.float32)

    loss = contrast_loss(grid(2, 1.0, np.cos), grid(6, 0.5, np.sin).view(2, 3, 8), torch.tensor([1, 2]))
    assert float(loss) == pytest.approx(1.730804, abs=2e-6)
    main, student = grid(5, 0.3, np.cos).requires_grad_(), grid(6, 0.7, np.sin).view(2, 3, 8).requires_grad_()
    teacher = main[torch.tensor([[0, 2, 4], [1, 3, 0]])]
    assert float(transfer_loss(teacher, student, heads=2).detach()) == pytest.approx(0.213836, abs=2e-6)
    loss = transfer_loss(teacher, student, heads=1)
    assert float(loss.detach()) == pytest.approx(0.229409, abs=2e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert main.grad is None
    assert student.grad is not None
    assert float(transfer_loss(student, student, heads=2).detach()) == pytest.approx(0.0, abs=1e-7)


def test_candidates_are_drawn_as_published() -> None:
    contrast = Contrast(weight=0.1, pivots=400, candidates=16, hard=0.4, near=64)
    draw, kinds = random.Random(3), Counter[str]()
    for pivot in range(0, 4000, 10):
        found = contrast.candidates_of(pivot, 4096, draw)
        assert len(found) == len(set(found)) == 16
        assert pivot not in found
        assert 0 <= min(found) <= max(found) < 4096
        kinds["window" if max(found[:15]) - min(found[:15]) < 80 else "hard"] += 1
    assert 0.5 < kinds["window"] / 400 < 0.7  # 0.6 within 4.1 standard deviations
    drawn: Any = contrast.draw(torch.arange(12), 4096, random.Random(5))
    pivots, candidates = drawn.positions[0].tolist(), drawn.positions[1].view(400, 16).tolist()
    for pivot, each, label in zip(pivots, candidates, drawn.labels_b.tolist(), strict=True):
        assert abs(each[label] - pivot) == min(abs(other - pivot) for other in each)


def test_hard_negatives_come_first_where_they_are_farther_than_the_nearest() -> None:
    """A quarter of the candidates, unless an edit is nearer than all uniform ones: then it would be the label."""
    contrast, number = Contrast(weight=0.1, pivots=1, candidates=16, hard=1.0, near=64), iter(range(3000, 4000))
    with mock.patch.object(seqpe_losses, "edit", side_effect=number):
        found = contrast.candidates_of(500, 4096, random.Random(2))
    assert found[:4] == [3000, 3001, 3002, 3003]
    assert min(abs(position - 500) for position in found) > 1
    assert next(number) == 3004
    with mock.patch.object(seqpe_losses, "edit", return_value=501):
        assert contrast.candidates_of(500, 4096, random.Random(2))[:12] == found[4:]


def test_the_nearest_is_of_the_uniform_ones_that_are_left_beside_the_hard_ones() -> None:
    """Of 17 the first 13, as in the official sampler: a nearer one among the last four lets no hard one in."""
    contrast, draw = Contrast(weight=0.1, pivots=1, candidates=16, hard=1.0, near=64), random.Random(2)
    uniform = [*range(1000, 1013), 501, 1013, 1014, 1015]
    with mock.patch.object(draw, "sample", return_value=uniform), mock.patch.object(seqpe_losses, "edit") as edited:
        edited.return_value = 520
        assert contrast.candidates_of(500, 4096, draw) == uniform[:16]
        edited.return_value = 1100
        assert contrast.candidates_of(500, 4096, draw) == [1100, *uniform[:15]]


def test_an_edit_is_any_of_four_and_there_are_one_to_three() -> None:
    draw, calls = random.Random(4), set()
    with mock.patch.object(seqpe_losses, "EDITS", 1):
        found = {str(edit(12, 1000, draw)) for _ in range(6000)}
    inserted = {"12"[:at] + digit + "12"[at:] for at in range(3) for digit in "0123456789"}
    substituted = {one for digit in "0123456789" for one in (digit + "2", "1" + digit)}
    every = inserted | substituted | {"1", "2", "21"}
    assert found == {one for one in every if one != "12" and not one.startswith("0")}
    for _ in range(60):
        with mock.patch.object(seqpe_losses, "_edited", side_effect=map(str, range(100, 200))) as made:
            edit(7, 1000, draw)
            calls.add(made.call_count)
    assert calls == {1, 2, 3}


def test_a_window_may_be_anywhere_and_is_as_wide_as_asked() -> None:
    """At least five times the candidates; within what there is."""
    for near, width in ((8, 80), (300, 300)):
        contrast = Contrast(weight=0.1, pivots=1, candidates=16, hard=0.0, near=near)
        draw = random.Random(1)
        windows = [contrast.candidates_of(2000, 4096, draw)[:15] for _ in range(300)]
        spans = [max(window) - min(window) for window in windows]
        assert 0.9 * width < max(spans) < width
        starts = [min(window) for window in windows]
        assert min(starts) < 300
        assert max(starts) > 3500


def test_hard_negatives_are_few_edits_away() -> None:
    draw = random.Random(1)
    for position in (0, 7, 10, 123, 999):
        found = {edit(position, 1000, draw) for _ in range(200)}
        assert len(found) > 8
        assert max(found) < 1000
        assert any(abs(other - position) > 90 for other in found)
    assert {edit(5, 6, draw) for _ in range(50)} <= set(range(6))


def test_transfer_is_from_the_whole_beginning_to_all_that_is_further_out() -> None:
    transfer = Transfer(weight=1.0, offsets=200, indices=3)
    drawn: Any = transfer.draw(torch.arange(8), 14, random.Random(0))
    offset_bK = drawn.positions[0].view(200, 3) - drawn.index_bK
    assert set(offset_bK.flatten().tolist()) == {2, 3, 4, 5}  # from a quarter of 8 on, within 14
    assert set(drawn.index_bK.flatten().tolist()) == set(range(8))
    assert all(len(set(row)) == 3 for row in drawn.index_bK.tolist())
    shifted = torch.tensor([0, 1, 2, 3, 7, 8, 9, 10])  # one of the windows at 0
    assert transfer.draw(shifted, 100, random.Random(0)) is None
    assert transfer.draw(torch.arange(0), 100, random.Random(0)) is None
    with pytest.raises(ValueError, match="nothing beyond a pass of 8; use 11 or more"):
        transfer.draw(torch.arange(8), 10, random.Random(0))


@pytest.mark.slow
def test_the_contrast_alone_teaches_which_positions_are_near() -> None:
    """Median distance of the nearest PE by product from its position: 65 after 500 steps, 33 after 1,000 (the sheet's
    run: 68 and 25).
    """
    torch.manual_seed(0)
    changes = {"dim": 64, "hidden": 8, "heads": 1, "position": {"seqpe": {"head_dim": 32, "dropout": 0.0}}}
    encoder = preset("seqpe", InputSpec(max_length=16, vocab_size=3), depth=1, **changes)
    made: Any = encoder.get_submodule("stack.position.made.reader").train()
    contrast, draw = Contrast(weight=1.0, pivots=16, candidates=16, hard=0.4, near=256), random.Random(0)

    def distance() -> float:
        with torch.no_grad():
            pe_UD = made.eval()(torch.arange(4096))
        made.train()
        nearest = (pe_UD @ pe_UD.T).fill_diagonal_(-torch.inf).argmax(1)
        return float((nearest - torch.arange(4096)).abs().float().median())

    first = distance()
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)
    for _ in range(500):
        drawn: Any = contrast.draw(torch.arange(16), 4096, draw)
        pivots, candidates = made(torch.cat(drawn.positions)).split([16, 256])
        optimizer.zero_grad()
        contrast_loss(pivots, candidates.view(16, 16, -1), drawn.labels_b).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert first > 150
    assert distance() < 90
