"""Recordings of a pinned set as log-mel frames: what is the same for each of them."""
# S samples, L frames, M mel bands

from __future__ import annotations

import wave
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import DataError, Example
from tasks.data.features import Scale, log_mel
from tasks.data.pinned_set import PinnedSet

RATE = 8000  # samples a second


class Recordings(PinnedSet):
    """`source` is a log-mel spectrogram (L, M) float32, each band standardised by mean and deviation over the frames of
    the training split.
    """

    modality = "speech"

    def __init__(
        self,
        *,
        window_ms: Annotated[float, Field(gt=0)],
        hop_ms: Annotated[float, Field(gt=0)],
        mels: Annotated[int, Field(gt=0)],
    ) -> None:
        self.window_ms, self.hop_ms, self.mels = window_ms, hop_ms, mels
        self._scale: Scale | None = None

    @abstractmethod
    def listed(self, split: str) -> list[tuple[Path, Any]]:
        """Files of the split with their targets, in order."""

    def read(self, split: str) -> Sequence[Example]:
        """Spectrograms of the split; the training split's are computed first, once, for their statistics."""
        if split == "train" or self._scale is None:
            train = self._spectrograms("train")
            self._scale = Scale.of([spectrogram for spectrogram, _ in train])
        rows = train if split == "train" else self._spectrograms(split)
        return [Example(source=self._scale(spectrogram), target=target) for spectrogram, target in rows]

    def _spectrograms(self, split: str) -> list[tuple[NDArray[np.float32], Any]]:
        return [
            (
                log_mel(
                    read_wav(path, of=self.pinned),
                    rate=RATE,
                    window_ms=self.window_ms,
                    hop_ms=self.hop_ms,
                    mels=self.mels,
                ),
                target,
            )
            for path, target in self.listed(split)
        ]


def read_wav(path: Path, of: str = "fsdd") -> NDArray[np.float32]:
    """Samples (S,) in [-1, 1) of a 16-bit mono recording at 8 kHz, of the set `of`. Raises DataError for any other."""
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getnchannels(), file.getframerate(), file.getsampwidth())
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{of}: {path.name} is no WAV file ({error})") from None
    if form != (1, RATE, 2):
        raise DataError(f"{of}: {path.name} has channels, rate, bytes a sample {form}; expected (1, {RATE}, 2)")
    return np.frombuffer(content, dtype="<i2").astype(np.float32) / np.float32(32768)
