"""Labels that need the right neighbour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.data.base import SPLITS
from tasks.data.look_right import LookRight

SIZES: dict[str, Any] = {
    "vocab_size": 40, "classes": 5, "length": 24, "train": 300, "valid": 20, "test": 40, "seed": 0,
}  # fmt: skip


def test_labels_are_of_the_token_and_its_right_neighbour() -> None:
    data = LookRight(**SIZES)
    for split in SPLITS:
        examples = data.read(split)
        assert len(examples) == SIZES[split]
        for example in examples:
            tokens = [int(token) for token in example.source]
            assert len(tokens) == 24
            assert 0 <= min(tokens) <= max(tokens) < 40
            padded = [*tokens, 0]
            assert example.target.tolist() == [(padded[t] % 5 + 2 * (padded[t + 1] % 5)) % 5 for t in range(24)]


def test_nothing_but_the_last_label_is_known_without_looking_right() -> None:
    examples = LookRight(**{**SIZES, "train": 4000}).read("train")
    source, target = np.stack([e.source for e in examples]) % 5, np.stack([e.target for e in examples])
    for own in range(5):  # of every class of the token itself, all five labels are as likely
        seen = target[:, :-1][source[:, :-1] == own]
        assert np.abs(np.bincount(seen, minlength=5) / len(seen) - 0.2).max() < 0.02
    assert (target[:, -1] == source[:, -1]).all()


def test_seed_and_split_draw_others() -> None:
    first = np.stack([e.source for e in LookRight(**SIZES).read("valid")])
    assert (first == np.stack([e.source for e in LookRight(**SIZES).read("valid")])).all()
    assert (first != np.stack([e.source for e in LookRight(**{**SIZES, "seed": 1}).read("valid")])).any()
    assert (first != np.stack([e.source for e in LookRight(**SIZES).read("train")])[: len(first)]).any()


def test_uneven_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size: 41; a multiple of classes 5"):
        LookRight(**{**SIZES, "vocab_size": 41})
