"""Spoken digits: the published split, the scale of the training frames, broken files."""

from __future__ import annotations

import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasks.data.base import SPLITS, DataError
from tasks.data.features import log_mel
from tasks.data.fsdd import FSDD, NAME, TAKES
from tasks.data.pinned import card
from tasks.data.recordings import RATE, read_wav

ARGUMENTS = {"window_ms": 25.0, "hop_ms": 10.0, "mels": 40}


def write(path: Path, samples: np.ndarray, *, rate: int = RATE, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def test_samples_are_what_was_written(tmp_path: Path) -> None:
    samples = np.array([0, 1, -1, 32767, -32768, 1000])
    read = read_wav(write(tmp_path / "a.wav", samples))
    assert read.dtype == np.float32
    assert (read * 32768).tolist() == samples.tolist()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected \(1, 8000, 2\)"):
        read_wav(write(tmp_path / "a.wav", np.zeros(8), rate=16000))
    with pytest.raises(DataError, match=r"b\.wav has channels, rate, bytes a sample \(2,"):
        read_wav(write(tmp_path / "b.wav", np.zeros(8), channels=2))
    for content in (b"", b"RIFF", b"no sound"):
        (tmp_path / "c.wav").write_bytes(content)
        with pytest.raises(DataError, match=r"c\.wav is no WAV file"):
            read_wav(tmp_path / "c.wav")


def test_the_listing_holds_every_take_once() -> None:
    names = [fact.name for fact in card("fsdd").files]
    assert len(names) == len(set(names)) == 3000
    taken = Counter((found[1], found[2]) for name in names if (found := NAME.fullmatch(name)))
    assert set(taken.values()) == {50}
    assert len(taken) == 60
    takes = [take for split in SPLITS for take in TAKES[split]]
    assert sorted(takes) == list(range(50))


@pytest.mark.data
@pytest.mark.slow
def test_the_splits_are_the_published_ones(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    data = FSDD(**ARGUMENTS)
    splits = {split: data.read(split) for split in ("test", "valid", "train")}
    for split, examples in splits.items():
        assert len(examples) == card("fsdd").splits[split]
        assert Counter(e.target for e in examples) == dict.fromkeys(range(10), len(examples) // 10)
        assert all(e.source.dtype == np.float32 and e.source.shape[1] == 40 for e in examples)
    frames = np.concatenate([e.source for e in splits["train"]])
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(frames.std(0), 1, atol=1e-4)
    assert np.abs(np.concatenate([e.source for e in splits["test"]]).mean(0)).max() > 1e-3  # not its own scale

    first = log_mel(read_wav(data_cache / "fsdd" / "recordings" / "0_george_0.wav"), rate=RATE, **ARGUMENTS)
    assert splits["test"][0].target == 0
    for band in (0, 20, 39):  # a linear map of each band
        assert np.corrcoef(first[:, band], splits["test"][0].source[:, band])[0, 1] == pytest.approx(1, abs=1e-5)
