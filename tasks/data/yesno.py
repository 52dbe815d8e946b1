"""Kaldi's yesno: 60 recordings of one speaker, each of eight words, yes or no."""
# L frames, M mel bands

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import Example
from tasks.data.draws import Draws
from tasks.data.features import Scale, log_mel
from tasks.data.fsdd import RATE, read_wav
from tasks.data.pinned_set import PinnedSet

PLACES = {"train": slice(0, 40), "valid": slice(40, 50), "test": slice(50, 60)}  # of an order drawn once


class YesNo(PinnedSet):
    """40 train, 10 valid, 10 test. `source` (L, M) float32, as FSDD's; `target` the words, as "no yes yes no ...".

    Real utterances to see that a recogniser works at all; of ten recordings no error rate tells models apart.
    """

    pinned = "yesno"
    modality = "speech"

    def __init__(
        self,
        *,
        window_ms: Annotated[float, Field(gt=0)],
        hop_ms: Annotated[float, Field(gt=0)],
        mels: Annotated[int, Field(gt=0)],
    ) -> None:
        self.window_ms, self.hop_ms, self.mels = window_ms, hop_ms, mels

    def read(self, split: str) -> Sequence[Example]:
        """Spectrograms of the split, each band standardised over the frames of the training split."""
        files = self.located()
        names = sorted(files)
        order = [names[place] for place in Draws(0).permutation(len(names)).tolist()]
        heard = {name: self._spectrogram(files[name]) for part in ("train", split) for name in order[PLACES[part]]}
        scale = Scale.of([heard[name] for name in order[PLACES["train"]]])
        return [Example(source=scale(heard[name]), target=_words(name)) for name in order[PLACES[split]]]

    def _spectrogram(self, path: Path) -> NDArray[np.float32]:
        samples = read_wav(path, of="yesno")
        return log_mel(samples, rate=RATE, window_ms=self.window_ms, hop_ms=self.hop_ms, mels=self.mels)


def _words(name: str) -> str:
    return " ".join({"0": "no", "1": "yes"}[bit] for bit in name.removesuffix(".wav").split("_"))
