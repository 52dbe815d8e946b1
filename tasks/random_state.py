"""The state of numpy's global generator, taken and put back within a few microseconds."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import numpy as np

WORDS = 624
SIZE = (WORDS + 1) * 4  # bytes: the words, and the place among them


class NumpyState:
    """A state that was taken, to be put back.

    numpy's get_state() and set_state() take 0.1 ms each, a tenth of a small model's step. So the generator's memory is
    copied. The one more thing that a state has, a normal number drawn in advance, can't be read there; but it comes
    only with words drawn. So where memory is as it was when a state without one was last put back, there is none, and
    else get_state() is asked.
    """

    plain: ClassVar[bytes] = b""  # memory that was put back last, with no number in advance

    def __init__(self, memory: bytes, whole: Any) -> None:
        self.memory, self.whole = memory, whole

    @classmethod
    def take(cls) -> NumpyState:
        """The state as it is now."""
        address = _address()
        memory = b"" if address is None else ctypes.string_at(address, SIZE)
        if memory and memory == cls.plain:
            return cls(memory, None)
        return cls(memory, np.random.get_state(legacy=False))  # noqa: NPY002

    def put(self) -> None:
        """Set it again."""
        address = _address()
        if self.whole is not None or address is None:
            np.random.set_state(self._state())  # noqa: NPY002
        else:
            np.random.seed(0)  # noqa: NPY002 -- no number in advance
            ctypes.memmove(address, self.memory, SIZE)
        NumpyState.plain = self.memory if self.whole is None or not self.whole["has_gauss"] else b""

    def _state(self) -> Any:
        if self.whole is not None:
            return self.whole
        words = np.frombuffer(self.memory, dtype=np.uint32)
        return "MT19937", words[:WORDS], int(words[WORDS]), 0, 0.0


def _address() -> int | None:
    """Of the global generator's memory, where that is numpy's own one."""
    bits = np.random.get_bit_generator()  # type: ignore[attr-defined]
    return int(bits.ctypes.state_address) if type(bits) is np.random.MT19937 else None
