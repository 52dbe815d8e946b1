"""Blocks of text: every character once, ends of whole blocks alone, and their bits by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tasks.data.base import SPLITS, DataError
from tasks.data.blocks import Blocks
from tasks.data.tinyshakespeare import TinyShakespeare
from tasks.language_modelling import LanguageModelling
from tasks.metrics.likelihood import BitsPerCharacter, EndBitsPerCharacter
from tasks.tokenizers import Characters
from tests.tasks.test_prefix import Given, Streamed
from tests.tasks.toy_data import Rows, Table

TEXT = "the cat sat on the mat, and that was that"  # 41 characters


@pytest.mark.parametrize("times, lengths", [(1, [6] * 6 + [5]), (2, [12] * 3 + [5]), (7, [41])])
def test_the_test_alone_has_longer_blocks(times: int, lengths: list[int]) -> None:
    data = Blocks(data=Given(TEXT), length=6, times=times, end=4)
    for split in SPLITS:
        blocks = data.read(split)
        assert "".join(block.source for block in blocks) == TEXT
        found = [len(block.source) for block in blocks]
        assert found == (lengths if split == "test" else [6] * 6 + [5])
        whole = times * 6 if split == "test" else 6
        assert [block.target for block in blocks] == [4 if length == whole else 0 for length in found]
    assert data.identity() == Given().identity()
    assert (data.version, data.overlap, data.independent_valid) == (7, "the same in all", False)
    words = Blocks(data=Given(TEXT.split()), length=4, times=1, end=1).read("test")
    assert [block.source for block in words] == [TEXT.split()[i : i + 4] for i in (0, 4, 8)]


def test_what_has_no_blocks_is_refused() -> None:
    with pytest.raises(DataError, match=r"test row 0: ndarray has no blocks"):
        Blocks(data=Given(np.zeros(3)), length=2, times=1, end=1).read("test")
    with pytest.raises(ValueError, match="end: 3 of blocks of 2"):
        Blocks(data=Given(), length=2, times=1, end=3)
    with pytest.raises(ValueError, match=r"streams \(tag\)"):
        Blocks(data=Streamed(), length=2, times=1, end=1)


@pytest.mark.parametrize("max_length", [100, 5])
def test_bits_of_ends_are_those_of_their_characters(max_length: int) -> None:
    """Whatever windows cut: block by block the last three of nats by hand."""
    metrics = [BitsPerCharacter(), EndBitsPerCharacter()]
    data = Blocks(data=Given(TEXT), length=6, times=2, end=3)
    task = LanguageModelling(data=data, tokenizer=Characters(), max_length=max_length, tie=False, metrics=metrics)
    task.setup()
    encoder = Table(task.spec.vocab_size or 0, causal=True)
    task.attach(encoder)
    task.eval()
    predictions, every = {}, []
    for row in range(len(task.lengths("test"))):
        batch = task.collate("test", np.array([row]))
        predictions[row] = task(encoder, batch).predictions[0]
        logits = task.head(encoder(batch.source).values[0]).log_softmax(1)
        every += [-float(logits[i, target].detach()) for i, target in enumerate(batch.target[0])]
    together = task(encoder, task.collate("test", np.arange(len(predictions)))).predictions  # padded
    assert [tuple(p) for p in together] == [pytest.approx(predictions[row]) for row in predictions]
    scores = task.score("test", predictions)
    assert len(every) == 41
    assert scores["bits_per_character"].value == pytest.approx(sum(every) / 41 / math.log(2))
    ends = every[9:12] + every[21:24] + every[33:36]  # the last five characters are no whole block
    assert scores["end_bits_per_character"].value == pytest.approx(sum(ends) / 9 / math.log(2))
    floor = task.score("test", task.trivial("majority", "test", 0))
    assert floor["end_bits_per_character"].value > 2
    alike = task.score("test", task.trivial("random", "test", 0))
    assert alike["end_bits_per_character"].value == pytest.approx(alike["bits_per_character"].value)


def test_ends_that_nobody_named_are_refused() -> None:
    data = Rows([("abc", None), ("abd", 2)])
    metrics = [BitsPerCharacter(), EndBitsPerCharacter()]
    task = LanguageModelling(data=data, tokenizer=Characters(), max_length=4, tie=False, metrics=metrics)
    with pytest.raises(DataError, match="end_bits_per_character needs documents whose end is named"):
        task.setup()


@pytest.mark.data
def test_tiny_shakespeare_has_its_characters_at_every_length(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    for times in (1, 16):
        blocks = Blocks(data=TinyShakespeare(), length=128, times=times, end=128).read("test")
        assert sum(len(block.source) for block in blocks) == 55_770
        assert sum(block.target for block in blocks) == 55_770 // (128 * times) * 128
