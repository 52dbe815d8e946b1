"""Recognition: losses are by symbol and add up, targets keep their form, what has no alignment is refused; its data."""
# B batch, T frames, U symbols

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encoders.base import Encoder, Sequences, States
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from seqbench.library import load_encoder, load_task
from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.data.connected_digits import GAP, NOISE, SPEAKERS, WORDS, ConnectedDigits, _noise
from tasks.data.draws import Draws
from tasks.data.features import Scale, log_mel
from tasks.data.recordings import RATE
from tasks.data.yesno import YesNo
from tasks.recognition import Recognition
from tasks.transducer_loss import transducer_loss

ARGUMENTS: dict[str, Any] = {"window_ms": 25.0, "hop_ms": 10.0, "mels": 40}


class Beeps(DataSet):
    """Frames that say by their channel which word it is, twice each, with silence between."""

    modality = "synthetic"

    def __init__(self, *, listed: bool = False, longest: int = 5) -> None:
        self.listed, self.longest = listed, longest

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None: ...

    def read(self, split: str) -> Sequence[Example]:
        generator = np.random.default_rng(len(split))
        return [self._example(generator) for _ in range(60)]

    def _example(self, generator: np.random.Generator) -> Example:
        said = generator.integers(3, size=generator.integers(1, self.longest + 1)).tolist()
        source = np.zeros((4 * len(said) + 1, 4), dtype=np.float32)
        for place, word in enumerate(said):
            source[4 * place : 4 * place + 2, word] = 1.0
        source += 0.05 * generator.standard_normal(source.shape).astype(np.float32)
        words = [("ay", "bee", "sea")[word] for word in said]
        return Example(source=source, target=words if self.listed else " ".join(words))


def make(data: DataSet | None = None, **changes: Any) -> Recognition:
    node = {**compose_node("task", "yesno"), "max_length": 40, **changes}
    task = build({**node, "data": compose_node("task", "waves")["data"]}, "task", ["tasks"])
    assert isinstance(task, Recognition)
    task.data = data or Beeps()
    task.setup()
    return task


def encoder_of(task: Recognition, name: str = "gru") -> Encoder:
    encoder = load_encoder(name, task.spec, dim=24, depth=1, dropout=0.0)
    task.attach(encoder)
    return encoder


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ctc", "transducer", "hybrid"])
def test_each_loss_learns_to_recognise(loss: str) -> None:
    task = make(loss=loss)
    encoder = encoder_of(task, "lstm")
    parameters = [*encoder.parameters(), *task.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=2e-2)
    rows = np.arange(40)
    task.examples["train"] = task.examples["train"][:40]
    for _ in range(100):
        optimizer.zero_grad()
        task(encoder, task.collate("train", rows)).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    task.eval()
    encoder.eval()
    with torch.no_grad():
        output = task(encoder, task.collate("train", rows))
    scores = task.score("train", dict(enumerate(output.predictions)))
    assert scores["symbol_error_rate"].value < 0.1, scores["symbol_error_rate"].value
    assert scores["symbol_error_rate"].statistics["symbols"].sum() == output.items


def test_hybrid_is_the_weighted_sum_by_symbol() -> None:
    task = make(loss="hybrid", ctc_weight=0.3)
    encoder = encoder_of(task).eval()
    task.eval()
    batch: Any = task.collate("test", np.arange(7))
    states = encoder(batch.source)
    frames = states.mask.sum(1)
    ctc = F.ctc_loss(
        task.head(states.values).log_softmax(-1).transpose(0, 1),
        torch.cat([row[:n] for row, n in zip(batch.label, batch.symbols.tolist(), strict=True)]),
        frames,
        batch.symbols,
        blank=task.tokenizer.vocab_size,
        reduction="sum",
    )
    logits = task.transducer(states.values, batch.label)
    other = transducer_loss(logits, batch.label, frames, batch.symbols, blank=task.tokenizer.vocab_size, fast_emit=0.0)
    output = task(encoder, batch)
    assert output.items == batch.symbols.sum()
    torch.testing.assert_close(output.loss, (0.3 * ctc + 0.7 * other.sum()) / output.items)
    by_ctc = make(loss="hybrid", decoding="ctc")
    encoder_of(by_ctc)
    by_ctc.load_state_dict(task.state_dict())
    assert by_ctc.eval()(encoder, batch).loss == output.loss
    assert by_ctc.decoding == "ctc"
    assert task.decoding == "transducer"


class Said(Encoder):
    """States that spell given outputs, one-hot."""

    causal = True

    def __init__(self, outputs: list[list[int]], dim: int) -> None:
        super().__init__()
        self.outputs, self.dim = outputs, dim

    def forward(self, source: Sequences) -> States:
        lengths = torch.tensor([len(row) for row in self.outputs])
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in self.outputs], batch_first=True)
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        return States(values=F.one_hot(padded, self.dim).float(), mask=mask)


@pytest.mark.parametrize("listed", [False, True])
def test_predictions_have_the_form_of_targets(listed: bool) -> None:
    task = make(Beeps(listed=listed)).eval()
    ids = {word: int(task.tokenizer.encode([word])[0].ids[0]) for word in ("ay", "bee", "sea")}
    blank, a, b = task.tokenizer.vocab_size, ids["ay"], ids["bee"]
    encoder = Said([[blank, a, a, blank, a, b, b], [blank, blank], [b]], dim=blank + 1)
    task.attach(encoder)
    with torch.no_grad():
        task.head.weight.copy_(torch.eye(blank + 1))
        task.head.bias.zero_()
    found = task(encoder, task.collate("test", np.arange(3))).predictions
    assert found == ([["ay", "ay", "bee"], [], ["bee"]] if listed else ["ay ay bee", "", "bee"])
    assert isinstance(task.references("test")[0], list) == listed


def test_characters_are_symbols_too() -> None:
    task = make(tokenizer={"_target_": "tasks.tokenizers.Characters"}).eval()
    target = task.references("train")[0]
    assert len(task.labels["train"][0]) == len(target)
    assert task.tokenizer.decode(task.labels["train"][0].tolist()) == target


def test_what_has_no_alignment_is_refused() -> None:
    task = make()
    with pytest.raises(ValueError, match=r"task\.loss: CTC needs \d+ states for the \d symbols of training row \d+"):
        task.attach(load_encoder("encoder_only", task.spec, dim=16, patch=8))
    make(loss="transducer").attach(load_encoder("encoder_only", task.spec, dim=16, patch=8))
    twice = Beeps()
    twice.read = lambda split: [Example(source=np.zeros((2, 4), dtype=np.float32), target="ay ay")]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="CTC needs 3 states for the 2 symbols of training row 0, which has 2"):
        encoder_of(make(twice))  # a blank between equal ones
    with pytest.raises(ValueError, match=r"task\.decoding: transducer, with task\.loss ctc"):
        make(decoding="transducer")
    mixed = Beeps()
    mixed.read = lambda split: [*Beeps().read(split), *Beeps(listed=True).read(split)]  # type: ignore[method-assign]
    with pytest.raises(DataError, match="train row 60: a target is text or words"):
        make(mixed)


def test_symbols_are_of_training() -> None:
    plain, mixed = make(), Beeps()
    frames = np.zeros((9, 4), dtype=np.float32)
    new = [Example(source=frames, target="ay xylophone")]
    mixed.read = lambda split: new if split == "test" else Beeps().read(split)  # type: ignore[method-assign]
    assert make(mixed).tokenizer.vocab_size == plain.tokenizer.vocab_size


def test_noise_is_normal_and_of_50_db() -> None:
    noise = _noise(Draws(3), 100_001)
    assert noise.shape == (100_001,)
    assert noise.std() == pytest.approx(NOISE, rel=0.02) == pytest.approx(10**-2.5, rel=0.02)
    assert abs(noise.mean()) < 5e-5
    assert np.mean(np.abs(noise) > 1.96 * NOISE) == pytest.approx(0.05, abs=0.005)
    assert np.array_equal(noise * 32768, np.round(noise * 32768))


def digits(**changes: Any) -> ConnectedDigits:
    node = {**compose_node("task", "connected_digits")["data"], "train": 12, "valid": 5, "test": 6, **changes}
    data = build(node, "data", ["tasks"])
    assert isinstance(data, ConnectedDigits)
    return data


@pytest.mark.parametrize(
    "held", [(["theo"], ["theo"]), (["nobody"], ["theo"]), ([], ["theo"]), (list(SPEAKERS[:3]), list(SPEAKERS[3:]))]
)
def test_each_split_has_speakers_of_its_own(held: tuple[list[str], list[str]]) -> None:
    with pytest.raises(ValueError, match="valid_speakers, test_speakers"):
        digits(valid_speakers=held[0], test_speakers=held[1])
    with pytest.raises(ValueError, match="least: 8 digits"):
        digits(least=8)


@pytest.mark.data
@pytest.mark.slow
def test_utterances_are_recordings_and_gaps(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each word is found again, sample by sample, where `word_ends` says, among the split's own speakers."""
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    data = digits()
    for split in ("train", "test"):
        known, examples, ends = data._recordings(split), data.read(split), data.word_ends(split)
        assert len(examples) == len(ends) == data.sizes[split]
        speakers = set()
        for row, example in enumerate(examples):
            samples, words, _ = data._utterance(split, row, known)
            assert example.target.split() == words
            assert 3 <= len(words) <= 7
            before = 0
            for word, end in zip(words, np.round(ends[row] * RATE).astype(int).tolist(), strict=True):
                last = samples[end - 50 : end].tobytes()  # a fingerprint
                fit = [
                    (speaker, end - len(one))
                    for speaker, recordings in known.items()
                    for digit, one in recordings
                    if one[-50:].tobytes() == last
                    and WORDS[digit] == word
                    and np.array_equal(samples[max(0, end - len(one)) : end], one)
                ]
                assert len(fit) == 1
                speakers.add(fit[0][0])
                assert GAP[0] * RATE - 1 <= fit[0][1] - before <= GAP[1] * RATE
                assert samples[before : fit[0][1]].std() == pytest.approx(NOISE, rel=0.25)
                before = end
            assert GAP[0] * RATE - 1 <= len(samples) - before <= GAP[1] * RATE
            assert len(example.source) == 1 + (len(samples) - 200) // 80
        assert speakers <= set(data.speakers[split])
    frames = np.concatenate([example.source for example in data.read("train")])
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(frames.std(0), 1, atol=1e-4)
    other = np.concatenate([example.source for example in digits().read("test")])
    assert np.abs(other.mean(0)).max() > 0.05  # no statistics of its own
    longer = digits(train=20).read("train")
    assert [e.target for e in longer[:12]] == [e.target for e in data.read("train")]
    assert digits(seed=1).read("train")[0].target != longer[0].target or len(longer[0].source) != len(
        digits(seed=1).read("train")[0].source
    )


@pytest.mark.data
def test_yesno_is_cut_40_10_10(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    splits = {split: YesNo(**ARGUMENTS).read(split) for split in ("train", "valid", "test")}
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 40, "valid": 10, "test": 10}
    targets = [example.target for rows in splits.values() for example in rows]
    assert len(set(targets)) == 60
    assert sum(target.split().count("yes") for target in targets) == 251
    assert all(len(target.split()) == 8 for target in targets)
    np.testing.assert_allclose(np.concatenate([e.source for e in splits["train"]]).std(0), 1, atol=1e-4)
    assert np.abs(np.concatenate([e.source for e in splits["test"]]).mean(0)).max() > 0.01  # no statistics of its own


@pytest.mark.data
def test_recordings_are_of_one_level(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    levels = {}
    for level in (None, -26.0):
        recordings = digits(level_db=level)._recordings("test")["yweweler"]
        levels[level] = [20 * np.log10(np.sqrt(np.mean(samples.astype(float) ** 2))) for _, samples in recordings]
        assert all(np.array_equal(samples * 32768, np.round(samples * 32768)) for _, samples in recordings)
        assert max(np.abs(samples).max() for _, samples in recordings) < 1
    np.testing.assert_allclose(levels[-26.0], -26, atol=0.02)
    assert np.mean(levels[None]) == pytest.approx(-38.6, abs=0.1)


def test_scale_is_of_training_frames() -> None:
    spectrograms = [
        log_mel(np.random.default_rng(i).normal(size=4000).astype(np.float32), rate=RATE, **ARGUMENTS) for i in range(3)
    ]
    scale = Scale.of(spectrograms)
    whole = np.concatenate([scale(one) for one in spectrograms])
    assert whole.dtype == np.float32
    np.testing.assert_allclose((whole.mean(0), whole.std(0)), (np.zeros(40), np.ones(40)), atol=1e-5)
    assert scale(spectrograms[0][:5]).tolist() == scale(spectrograms[0])[:5].tolist()  # no statistics of its own


@pytest.mark.data
@pytest.mark.slow
def test_the_streaming_conformer_recognises_alike_in_chunks(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transcripts of whole utterances and of chunks with caches are the same ones."""
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    task = load_task("yesno", loss="hybrid")
    task.setup()
    found = []
    for inference in ("whole", "cached"):
        torch.manual_seed(0)
        encoder = load_encoder("streaming_conformer", task.spec, inference=inference).eval()
        task.attach(encoder)
        task.eval()
        with torch.no_grad():
            found.append(task(encoder, task.collate("test", np.arange(10))))
    assert found[0].predictions == found[1].predictions
    torch.testing.assert_close(found[0].loss, found[1].loss, atol=1e-4, rtol=1e-4)
