"""Bach's chorales as steps of sounding notes, one a quarter note."""
# L steps, C = 88 keys of a piano

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.data.pinned import check_files, identity

CARD, FILE = "jsb-chorales", "jsb-chorales-quarter.json"
LOWEST, KEYS = 21, 88  # MIDI pitch of A0, and the keys from there to C8


class Chorales(DataSet):
    """JSB chorales in the split of Boulanger-Lewandowski et al. 2012 (arXiv 1206.6392): 229, 76 and 77 pieces.

    Source: (L, 88) float32, 1 where a key of the piano sounds. No target: what follows is in the source.
    """

    modality = "music"

    def __init__(self) -> None: ...

    def identity(self) -> list[FileFact]:
        """The one file."""
        return identity(CARD)

    def check(self) -> None:
        """It is there, or is fetched, with the right checksum."""
        check_files(CARD)

    def read(self, split: str) -> Sequence[Example]:
        """Pieces in the order of the file."""
        pieces = _pieces(check_files(CARD)[FILE])
        return [
            Example(source=frames(piece, f"{split} piece {i}"), target=None) for i, piece in enumerate(pieces[split])
        ]


def frames(piece: list[list[int]], where: str) -> NDArray[np.float32]:
    """(L, 88) of a list of steps, each a list of MIDI pitches. Raises DataError for a pitch that no piano has."""
    values_LC = np.zeros((len(piece), KEYS), dtype=np.float32)
    for step, pitches in enumerate(piece):
        for pitch in pitches:
            if not LOWEST <= pitch < LOWEST + KEYS:
                raise DataError(f"{CARD}: {where}, step {step} has pitch {pitch}; a piano has {LOWEST} to 108")
            values_LC[step, pitch - LOWEST] = 1
    return values_LC


@cache
def _pieces(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
