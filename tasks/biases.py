"""What sources and streams say by being the same as in training: means and biases, the floor of data in two parts."""
# N rows, K kinds

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10  # of alternation; on a matrix with no hole the first is exact


def kinds(values: Sequence[Any]) -> list[str]:
    """A text each, equal for equal contents: sources or streams. Rows that are one object are looked at once."""
    known: dict[int, str] = {}
    return [_kind(value, known) for value in values]


def _kind(value: Any, known: dict[int, str]) -> str:
    if isinstance(value, Mapping):  # made anew for each row, what it holds is not
        return "|".join(f"{name}={_kind(value[name], known)}" for name in sorted(value))
    if isinstance(value, tuple):  # a pair of texts, or of arrays, of which repr() leaves out the middle
        return "&".join(_kind(part, known) for part in value)
    if id(value) not in known:
        content = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
        known[id(value)] = hashlib.sha256(content).hexdigest()
    return known[id(value)]


def additive(
    train: Sequence[tuple[str, str]], targets: NDArray[np.float64], rows: Sequence[tuple[str, str]]
) -> NDArray[np.float64]:
    """Numbers for `rows`, (N,): mean + a[left] + b[right], by least squares on the training rows; 0 where unseen.

    Solved by turns from b = 0: a is the mean of what is left for each left part, then b for each right part. With one
    right part for all it is the mean of each left part.
    """
    mean = float(targets.mean())
    sides = [_numbered([pair[side] for pair in train], [pair[side] for pair in rows]) for side in (0, 1)]
    (left_N, a_of, count_a), (right_N, b_of, count_b) = sides
    a_K, b_K = np.zeros(count_a), np.zeros(count_b)
    for _ in range(ROUNDS):
        a_K = _means(left_N, targets - mean - b_K[right_N], count_a)
        b_K = _means(right_N, targets - mean - a_K[left_N], count_b)
    found: NDArray[np.float64] = mean + np.append(a_K, 0.0)[a_of] + np.append(b_K, 0.0)[b_of]
    return found


def _numbered(train: list[str], rows: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Numbers of the training kinds, those of `rows` (-1 for unseen ones), and how many there are."""
    numbers = {kind: i for i, kind in enumerate(dict.fromkeys(train))}
    return np.array([numbers[k] for k in train]), np.array([numbers.get(k, -1) for k in rows]), len(numbers)


def _means(kind_N: NDArray[np.int64], value_N: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Mean of the values of each kind, (K,)."""
    means: NDArray[np.float64] = np.bincount(kind_N, value_N, count) / np.bincount(kind_N, minlength=count)
    return means
