"""Pickles that hold numbers, texts and plain arrays, and no code: read without running any of the file's."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.base import DataError

NUMBERS = re.compile(r"[biufc]\d{1,2}")  # kinds of numbers, as pickles name them: no objects, no records of fields


class _Dtype:
    """A kind of numbers as told. numpy's own would take any offsets, sizes and flags that a file gives it."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def made(self) -> np.dtype[Any]:
        """Raises ValueError for what is no number."""
        if not NUMBERS.fullmatch(self.name) or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"an array is of {self.name!r}, and only numbers are read")
        return np.dtype(self.order + self.name)


class _Array:
    """An array as told, and no array yet."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def made(self) -> np.ndarray[Any, Any]:
        """With as many bytes as its shape needs, all from the file; else it raises ValueError."""
        _, shape, dtype, by_columns, content = self.state
        if not isinstance(dtype, _Dtype) or any(type(size) is not int or size < 0 for size in shape):
            raise ValueError("an array without a shape or a kind")
        kind, raw = dtype.made(), content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(raw, bytes) or len(raw) != math.prod(shape) * kind.itemsize:
            raise ValueError(f"an array of {shape} does not fill its bytes")
        return np.frombuffer(raw, kind).reshape(shape, order="F" if by_columns else "C").copy(order="K")


class _NumpyOnly(pickle.Unpickler):
    """Admits what an array of numbers needs, under its names in numpy 1 and 2, and stands in for all of it."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _Array
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Array if name == "ndarray" else _Dtype
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays of numbers are read")


def read_numpy_pickle(path: Path, *, name: str) -> Any:
    """Lists, mappings, texts, numbers and arrays of a pickle of Python 2 (binary), or of Python 3 from protocol 3 on.

    Texts of Python 2 are ISO-8859-1. `name` is the data set's. Needs memory in proportion to the file. Raises DataError
    for a file that names anything but numpy's arrays, holds one of anything but numbers, or is broken.
    """
    content = path.read_bytes()
    try:
        for operation, argument, _ in pickletools.genops(content):  # lengths, too, are within the file here
            if operation.name.startswith("EXT"):
                raise ValueError("it uses extension codes")
            makes_room = "PUT" in operation.name or operation.name == "FRAME"  # up to the place that is named
            if makes_room and int(argument or 0) > len(content):
                raise ValueError(f"{operation.name} {argument} is beyond the file")
        return _made(_NumpyOnly(io.BytesIO(content), encoding="latin1").load(), {})
    except (
        *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError),
        *(OverflowError, MemoryError, RecursionError),
    ) as error:
        raise DataError(f"{name}: {path.name} can't be read: {error}") from None


def _made(given: Any, known: dict[int, Any]) -> Any:
    """With arrays in the place of what stands for them, each once; `known` by what has been seen."""
    if id(given) in known:
        return known[id(given)]
    if isinstance(given, _Array):
        known[id(given)] = given.made()
    elif isinstance(given, list):
        known[id(given)] = given
        given[:] = [_made(each, known) for each in given]
    elif isinstance(given, dict):
        known[id(given)] = given
        given.update({key: _made(value, known) for key, value in given.items()})
    elif isinstance(given, tuple):
        known[id(given)] = tuple([_made(each, known) for each in given])
    elif isinstance(given, _Dtype | type):
        raise ValueError("it holds more than arrays of numbers")
    else:
        return given
    return known[id(given)]
