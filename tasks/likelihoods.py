"""What tasks that score a text by its likelihood predict: (nats, tokens, characters) of each row."""
# B batch, T positions, M real ones, V vocabulary

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.padding import Ragged


def of_rows(logits_MV: Tensor, label_M: Tensor, real_BT: Tensor) -> list[tuple[float, int, int]]:
    """Of each row the sum of -log p in nats, its tokens, and 0 characters, which are not counted."""
    nats_BT = torch.zeros(real_BT.shape, dtype=torch.float64, device=real_BT.device)
    nats_BT[real_BT] = F.cross_entropy(logits_MV.float(), label_M, reduction="none").double()
    return [(nats, tokens, 0) for nats, tokens in zip(nats_BT.sum(1).tolist(), real_BT.sum(1).tolist(), strict=True)]


def of_unigrams(rule: str, train: Ragged, rows: Ragged, vocab_size: int, never: Collection[int]) -> dict[int, Any]:
    """The same of a rule that reads nothing, over rows whose first id is given; `never` holds ids that no text has.

    `majority`: frequencies of ids in training, one added to each; `random`: all ids alike.
    """
    told = np.delete(train.values, train.offsets[:-1])
    counts = np.bincount(told, minlength=vocab_size).astype(np.float64)
    weights = counts + 1 if rule == "majority" else np.ones_like(counts)
    weights[sorted(never)] = 0
    with np.errstate(divide="ignore"):
        nats_V = -np.log(weights / weights.sum())
    return {row: (float(nats_V[rows[row][1:]].sum()), len(rows[row]) - 1, 0) for row in range(len(rows))}
