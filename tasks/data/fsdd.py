"""Free Spoken Digit Dataset: recordings of single digits as log-mel frames."""
# L frames, M mel bands

from __future__ import annotations

import re
from pathlib import Path

from tasks.data.recordings import Recordings

NAME = re.compile(r"recordings/(\d)_([a-z]+)_(\d+)\.wav")
TAKES = {"test": range(5), "valid": range(5, 10), "train": range(10, 50)}  # of each digit and speaker


class FSDD(Recordings):
    """3,000 recordings of "zero" to "nine", 6 speakers, 50 takes of each: 2,400 train, 300 valid, 300 test.

    `source` is a log-mel spectrogram (L, M) float32, each band standardised by mean and deviation over the frames of
    the training split; `target` the digit, 0 to 9. Takes 0-4 are the test split, as the authors fix it, 5-9 of their
    training part validate. All speakers are in all splits. Order: digit, speaker, take.
    """

    pinned = "fsdd"

    def listed(self, split: str) -> list[tuple[Path, int]]:
        """Files by digit, speaker and take, with their digits."""
        chosen = []
        for name, path in self.located().items():
            if (found := NAME.fullmatch(name)) and int(found[3]) in TAKES[split]:
                chosen.append((int(found[1]), found[2], int(found[3]), path))
        return [(path, digit) for digit, _, _, path in sorted(chosen)]
