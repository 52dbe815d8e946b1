"""Pickles that hold numbers, texts and plain arrays, and no code: read without running any of the file's."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.base import DataError


class _NumpyOnly(pickle.Unpickler):
    """Admits what an array of numbers needs, under its names in numpy 1 and 2."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            from numpy._core import multiarray

            return multiarray._reconstruct  # private, as pickles name it
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays of numbers are read")


def read_numpy_pickle(path: Path, *, name: str) -> Any:
    """Lists, mappings, texts, numbers and arrays of a pickle of Python 2, or of Python 3 from protocol 3 on.

    Texts of Python 2 are ISO-8859-1. `name` is the data set's. Raises DataError for a file that names anything
    but numpy's arrays, or is broken.
    """
    try:
        with path.open("rb") as file:
            return _NumpyOnly(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise DataError(f"{name}: {path.name} can't be read: {error}") from None
