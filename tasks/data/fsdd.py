"""Free Spoken Digit Dataset: recordings of single digits as log-mel frames."""
# L frames, M mel bands, S samples

from __future__ import annotations

import re
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.data.features import Scale, log_mel
from tasks.data.pinned import check_files, identity

RATE = 8000  # samples a second
NAME = re.compile(r"recordings/(\d)_([a-z]+)_(\d+)\.wav")
TAKES = {"test": range(5), "valid": range(5, 10), "train": range(10, 50)}  # of each digit and speaker


class FSDD(DataSet):
    """3,000 recordings of "zero" to "nine", 6 speakers, 50 takes of each: 2,400 train, 300 valid, 300 test.

    `source` is a log-mel spectrogram (L, M) float32, each band standardised by mean and deviation over the frames of
    the training split; `target` the digit, 0 to 9. Takes 0-4 are the test split, as the authors fix it, 5-9 of their
    training part validate. All speakers are in all splits. Order: digit, speaker, take.
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

    def identity(self) -> list[FileFact]:
        """The listing of the 3,000 files."""
        return identity("fsdd")

    def check(self) -> None:
        """Fetch or check all files."""
        check_files("fsdd")

    def read(self, split: str) -> Sequence[Example]:
        """Spectrograms of the split; the training split's are computed first, once, for their statistics."""
        if split == "train" or self._scale is None:
            train = self._spectrograms("train")
            self._scale = Scale.of([spectrogram for spectrogram, _ in train])
        rows = train if split == "train" else self._spectrograms(split)
        return [Example(source=self._scale(spectrogram), target=digit) for spectrogram, digit in rows]

    def _spectrograms(self, split: str) -> list[tuple[NDArray[np.float32], int]]:
        chosen = []
        for name, path in check_files("fsdd").items():
            if (found := NAME.fullmatch(name)) and int(found[3]) in TAKES[split]:
                chosen.append((int(found[1]), found[2], int(found[3]), path))
        return [
            (log_mel(read_wav(path), rate=RATE, window_ms=self.window_ms, hop_ms=self.hop_ms, mels=self.mels), digit)
            for digit, _, _, path in sorted(chosen)
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
