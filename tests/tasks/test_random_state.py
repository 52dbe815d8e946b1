"""numpy's global state, taken and put back."""
# ruff: noqa: NPY002 -- the legacy functions are what is tested

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tasks.random_state import NumpyState


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = np.random.get_state()
    yield
    np.random.set_state(before)
    NumpyState.plain = b""


def equal(first: object, second: object) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))  # type: ignore[call-overload]


@pytest.mark.parametrize("advance", [0, 1])
@pytest.mark.parametrize("again", [1, 2, 3])
def test_a_state_comes_back_whole(advance: int, again: int) -> None:
    """Also with a normal number drawn in advance, by the caller or in between, and on the fast path (again > 1)."""
    np.random.seed(7)
    np.random.normal(size=advance)
    before = np.random.get_state()
    assert before[3] == advance
    for _ in range(again):
        state = NumpyState.take()
        np.random.seed(1)
        np.random.normal(size=3)
        state.put()
    assert equal(np.random.get_state(), before)
    assert (state.whole is None) == (again > 1 and not advance)


def test_draws_between_two_are_kept() -> None:
    np.random.seed(7)
    NumpyState.take().put()
    np.random.normal()
    before = np.random.get_state()
    state = NumpyState.take()
    np.random.normal()
    state.put()
    assert before[3] == 1
    assert equal(np.random.get_state(), before)
    np.random.normal()  # the one in advance: no words are drawn
    after = np.random.get_state()
    state = NumpyState.take()
    np.random.seed(1)
    state.put()
    assert equal(np.random.get_state(), after)


def test_another_generator_is_left_as_it_is() -> None:
    ours = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(3))
        before = np.random.get_state(legacy=False)
        state = NumpyState.take()
        np.random.random(5)
        state.put()
        assert np.random.get_state(legacy=False) == before
    finally:
        np.random.set_bit_generator(ours)
