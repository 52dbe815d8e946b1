"""Results by the identity of what they are of: records share sections, and equal work is done once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
MOST = 200_000  # results that are kept


class Memo(Generic[Result]):
    """A function of objects that nobody changes, which it keeps, so that no identity comes twice.

    For objects that are no keys of a dictionary, and too large to be made into some each time: equal objects that are
    not the same are only so much slower.
    """

    def __init__(self, make: Callable[..., Result]) -> None:
        self._make = make
        self._results: dict[tuple[int, ...], tuple[tuple[Any, ...], Result]] = {}

    def __call__(self, *objects: Any) -> Result:
        """The function's result for these objects."""
        key = tuple(map(id, objects))
        found = self._results.get(key)
        if found is None:
            if len(self._results) >= MOST:
                self._results.clear()
            found = self._results[key] = objects, self._make(*objects)
        return found[1]
