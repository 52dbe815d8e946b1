"""Kaldi's yesno: 60 recordings of one speaker, each of eight words, yes or no."""
# L frames, M mel bands

from __future__ import annotations

from pathlib import Path

from tasks.data.draws import Draws
from tasks.data.recordings import Recordings

PLACES = {"train": slice(0, 40), "valid": slice(40, 50), "test": slice(50, 60)}  # of an order drawn once


class YesNo(Recordings):
    """40 train, 10 valid, 10 test. `source` (L, M) float32, as FSDD's; `target` the words, as "no yes yes no ...".

    Real utterances to see that a recogniser works at all; of ten recordings no error rate tells models apart.
    """

    pinned = "yesno"

    def listed(self, split: str) -> list[tuple[Path, str]]:
        """Files in the order that was drawn, with their words."""
        files = self.located()
        names = sorted(files)
        order = [names[place] for place in Draws(0).permutation(len(names)).tolist()]
        return [(files[name], _words(name)) for name in order[PLACES[split]]]


def _words(name: str) -> str:
    return " ".join({"0": "no", "1": "yes"}[bit] for bit in name.removesuffix(".wav").split("_"))
