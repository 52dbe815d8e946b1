"""Connected digits: recordings of FSDD strung together, with a little noise between, spoken by people held out."""
# S samples, L frames, M mel bands

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import SPLITS, DataError, DataSet, Example, FileFact
from tasks.data.draws import Draws
from tasks.data.features import Scale, log_mel
from tasks.data.fsdd import NAME
from tasks.data.pinned import check_files, identity
from tasks.data.recordings import RATE, read_wav

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
GAP = 0.05, 0.3  # seconds between two recordings, before the first and after the last
NOISE = 10 ** (-50 / 20)  # deviation in gaps: 50 dB below full scale

Recordings = dict[str, list[tuple[int, NDArray[np.float32]]]]  # of each speaker, digits and samples


class ConnectedDigits(DataSet):
    """`train`, `valid` and `test` utterances of `least` to `longest` digits, each of one speaker.

    `source` is a log-mel spectrogram (L, M) float32, each band standardised over the frames of the training split;
    `target` the words, as "seven two two". An utterance is of different recordings of one speaker, drawn evenly from
    the 500 there are (from different takes of a digit, it may be said twice), after each other with gaps of 50 to 300
    ms of normal noise, at both ends as well, in 16 bits. `valid_speakers` and `test_speakers` are heard nowhere else.
    Each recording is first brought to `level_db` (root mean square, full scale 0), for speakers differ by 21 dB on
    average, which is nothing that speech tells; null: as they are. `word_ends` has the times. Raises ValueError for
    speakers that don't leave each split one of its own.
    """

    modality = "speech"

    def __init__(
        self,
        *,
        train: Annotated[int, Field(gt=0)],
        valid: Annotated[int, Field(gt=0)],
        test: Annotated[int, Field(gt=0)],
        valid_speakers: list[str],
        test_speakers: list[str],
        least: Annotated[int, Field(gt=0)],
        longest: Annotated[int, Field(gt=0, le=500)],
        level_db: Annotated[float, Field(le=-20)] | None,
        window_ms: Annotated[float, Field(gt=0)],
        hop_ms: Annotated[float, Field(gt=0)],
        mels: Annotated[int, Field(gt=0)],
        seed: Annotated[int, Field(ge=0)],
    ) -> None:
        if least > longest:
            raise ValueError(f"least: {least} digits, with longest {longest}")
        held = [*valid_speakers, *test_speakers]
        rest = [name for name in SPEAKERS if name not in held]
        if set(held) - set(SPEAKERS) or len(set(held)) < len(held) or not (rest and valid_speakers and test_speakers):
            raise ValueError(
                f"valid_speakers, test_speakers: {valid_speakers}, {test_speakers}; different ones of"
                f" {', '.join(SPEAKERS)}, one or more for each split"
            )
        self.sizes = dict(zip(SPLITS, (train, valid, test), strict=True))
        self.speakers = dict(zip(SPLITS, (rest, valid_speakers, test_speakers), strict=True))
        self.least, self.longest, self.level_db, self.seed = least, longest, level_db, seed
        self.window_ms, self.hop_ms, self.mels = window_ms, hop_ms, mels
        self._scale: Scale | None = None

    def identity(self) -> list[FileFact]:
        """The listing of FSDD's files."""
        return identity("fsdd")

    def check(self) -> None:
        """Fetch or check all files."""
        check_files("fsdd")

    def read(self, split: str) -> Sequence[Example]:
        """The utterances of the split; the training split's are made first, once, for their statistics."""
        made = None
        if self._scale is None or split == "train":
            made = self._spectrograms("train")
            self._scale = Scale.of([spectrogram for spectrogram, _ in made])
        rows = made if made is not None and split == "train" else self._spectrograms(split)
        return [Example(source=self._scale(spectrogram), target=" ".join(words)) for spectrogram, words in rows]

    def word_ends(self, split: str) -> list[NDArray[np.float64]]:
        """Where each word of each utterance ends, in seconds from its beginning, in the order of `read`."""
        known = self._recordings(split)
        return [self._utterance(split, row, known)[2] for row in range(self.sizes[split])]

    def _spectrograms(self, split: str) -> list[tuple[NDArray[np.float32], list[str]]]:
        known, made = self._recordings(split), []
        for row in range(self.sizes[split]):
            samples, words, _ = self._utterance(split, row, known)
            made.append(
                (log_mel(samples, rate=RATE, window_ms=self.window_ms, hop_ms=self.hop_ms, mels=self.mels), words)
            )
        return made

    def _utterance(
        self, split: str, row: int, known: Recordings
    ) -> tuple[NDArray[np.float32], list[str], NDArray[np.float64]]:
        """Samples (S,), words and their ends: a pure function of seed, split and row."""
        draws = Draws(self.seed, SPLITS.index(split), row)
        speakers = self.speakers[split]
        recordings = known[speakers[int(draws.integers(len(speakers), 1)[0])]]
        number = self.least + int(draws.integers(self.longest - self.least + 1, 1)[0])
        said = [recordings[place] for place in draws.permutation(len(recordings))[:number]]
        gaps = (RATE * (GAP[0] + (GAP[1] - GAP[0]) * draws.uniform(number + 1))).astype(np.int64)
        noise = _noise(draws, int(gaps.sum()))
        parts, ends, start = [noise[: gaps[0]]], [], int(gaps[0])
        for (_, samples), gap, after in zip(said, gaps[1:], gaps.cumsum()[:-1], strict=True):
            start += len(samples)
            ends.append(start / RATE)
            start += int(gap)
            parts += [samples, noise[after : after + gap]]
        return np.concatenate(parts), [WORDS[digit] for digit, _ in said], np.array(ends)

    def _recordings(self, split: str) -> Recordings:
        found = []
        for name, path in check_files("fsdd").items():
            if (parts := NAME.fullmatch(name)) and parts[2] in self.speakers[split]:
                found.append((parts[2], int(parts[1]), int(parts[3]), path))
        known: Recordings = {speaker: [] for speaker in self.speakers[split]}
        for speaker, digit, _, path in sorted(found):
            known[speaker].append((digit, self._level(read_wav(path))))
        if any(len(recordings) < self.longest for recordings in known.values()):
            raise DataError(f"fsdd: a speaker has fewer than {self.longest} recordings")
        return known

    def _level(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.level_db is None:
            return samples
        loudness = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
        return _sixteen_bits(samples * (10 ** (self.level_db / 20) / max(loudness, 1e-6)))


def _sixteen_bits(samples: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    return (np.clip(np.round(32768 * samples), -32768, 32767) / 32768).astype(np.float32)


def _noise(draws: Draws, number: int) -> NDArray[np.float32]:
    """Normal noise of deviation NOISE (Box and Muller 1958), rounded to 16 bits."""
    u, v = draws.uniform(2, -(-number // 2))
    radius = np.sqrt(-2 * np.log1p(-u))
    pairs = np.concatenate((radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)))[:number]
    return _sixteen_bits(NOISE * pairs)
