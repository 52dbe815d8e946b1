"""Classification: read-outs, classes, truncation, rules, its metrics against scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

from encoders.base import Decoder, Encoder, States
from encoders.conversion import bart_names, convert
from tasks.base import DataError
from tasks.classification import Classification
from tasks.metrics.accuracy import Accuracy, MacroF1
from tasks.readout import pool
from tasks.specials import Frame, Specials
from tasks.tokenizers import BOS, EOS, UNK, Words
from tests.encoders.transformers_models import BART_SIDE, hf, preset, roughen
from tests.tasks.toy_data import Rows, Table
from tests.tasks.toy_decoders import GRUDecoder

PARTS = ("weight", "bias")
TRAIN = [("a b c", "x"), ("b", "y"), ("c c c c c", "y"), ("", "z")]


def task(data: Rows, **changes: Any) -> Classification:
    given: dict[str, Any] = {
        "tokenizer": Words(min_count=1, max_size=None),
        "max_length": 4,
        "readout": "auto",
        "label_smoothing": 0.0,
        "metrics": [Accuracy(), MacroF1()],
    }
    return Classification(data=data, **(given | changes))


def ready(data: Rows, *, causal: bool = False, **changes: Any) -> tuple[Classification, Table]:
    made = task(data, **changes)
    made.setup()
    encoder = Table(made.spec.vocab_size or 0, causal=causal)
    made.attach(encoder)
    return made, encoder


def test_classes_lengths_and_accounting() -> None:
    made, _ = ready(Rows(TRAIN))
    assert made.classes == ["x", "y", "z"]
    assert made.lengths("train").tolist() == [3, 1, 4, 1]
    assert made.accounting("train").truncated == 1
    assert made.accounting("train").positions == 9
    assert made.spec.max_length == 4
    batch = made.collate("train", np.array([3, 1]))
    assert batch.source.values.tolist() == [[UNK], [7]]  # nothing is one UNK; c is 6, b 7, a 8, by count
    assert batch.label.tolist() == [2, 1]


@pytest.mark.parametrize("causal", [True, False])
def test_auto_reads_the_last_state_of_a_causal_encoder_and_the_mean_of_another(causal: bool) -> None:
    made, encoder = ready(Rows(TRAIN), causal=causal)
    made.eval()
    batch = made.collate("train", np.arange(4))
    states = encoder(batch.source)
    rows = [states.values[i, : int(states.mask[i].sum())] for i in range(4)]
    pooled = torch.stack([row[-1] if causal else row.mean(0) for row in rows])
    torch.testing.assert_close(made(encoder, batch).loss, F.cross_entropy(made.head(pooled), batch.label))


def test_pooling_by_hand() -> None:
    values = torch.tensor([[[1.0, -2], [3, -4], [9, 9]], [[5.0, 6], [9, 9], [9, 9]], [[9.0, 9]] * 3])
    states = States(values=values, mask=torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool))
    assert pool(states, "mean").tolist() == [[2, -3], [5, 6], [0, 0]]
    assert pool(states, "max").tolist() == [[3, -2], [5, 6], [0, 0]]
    assert pool(states, "first").tolist() == [[1, -2], [5, 6], [0, 0]]
    assert pool(states, "last").tolist() == [[3, -4], [5, 6], [0, 0]]


class Framed(Words):
    """With <s> (2) and </s> (3) around a text, as BART's tokeniser has them, and its start of a decoder."""

    specials = Specials(pad=0, unk=1, bos=3, eos=3, sep=3, mask=5)

    def frame(self, parts: int) -> Frame:
        return Frame(before=(2,), after=(3,))


def test_an_echo_is_barts_classification() -> None:
    """With the weights of transformers' BartForSequenceClassification its logits, to 1e-5: states at the last </s>."""
    made = task(Rows(TRAIN), readout="echo", tokenizer=Framed(min_count=1, max_size=None), max_length=8)
    assert made.needs is Decoder
    made.setup()
    assert made.spec.target_length == made.spec.max_length == 8
    size = made.spec.vocab_size
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3, "num_labels": 3}
    sizes = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in BART_SIDE.items()}
    torch.manual_seed(3)
    config = hf().BartConfig(vocab_size=size, d_model=128, max_position_embeddings=8, **ids, **sizes)
    model = roughen(hf().BartForSequenceClassification(config)).eval()
    encoder = preset("bart", made.spec)
    made.attach(encoder)
    made.eval()
    encoder.load_state_dict(convert(model.model.state_dict(), bart_names(), encoder.state_dict()))
    theirs = model.classification_head.state_dict()
    made.load_state_dict(
        {f"head.{i}.{part}": theirs[f"{name}.{part}"] for i, name in ((0, "dense"), (2, "out_proj")) for part in PARTS}
    )
    batch = made.collate("train", np.arange(4))
    assert batch.source.values[2].tolist() == [2, *[6] * 5, 3]
    with torch.no_grad():
        expected = model(input_ids=batch.source.values, attention_mask=batch.source.mask.long()).logits
        found = made(encoder, batch)
    assert expected.std() > 0.01
    torch.testing.assert_close(found.loss, F.cross_entropy(expected, batch.label), atol=1e-5, rtol=1e-5)
    assert found.predictions == [made.classes[k] for k in expected.argmax(1)]
    assert made.accounting("train").positions == 2 * (5 + 3 + 7 + 2)


def test_an_echo_ends_in_eos_by_any_tokeniser() -> None:
    class Seen(GRUDecoder):
        def decode(self, target, before):  # type: ignore[no-untyped-def]
            self.given = target
            return super().decode(target, before)

    made = task(Rows(TRAIN), readout="echo")
    made.setup()
    encoder = Seen(dim=4, spec=made.spec)
    made.attach(encoder)
    batch = made.collate("train", np.arange(4))
    assert batch.source.values.tolist() == [[8, 7, 6, EOS], [7, EOS, 0, 0], [6, 6, 6, EOS], [EOS, 0, 0, 0]]
    made(encoder, batch)
    assert encoder.given.values.tolist() == [[BOS, 8, 7, 6], [BOS, 7, 0, 0], [BOS, 6, 6, 6], [BOS, 0, 0, 0]]
    assert torch.equal(encoder.given.mask, batch.source.mask)
    assert made.accounting("train").truncated == 1
    assert made.lengths("train").tolist() == [8, 4, 8, 2]

    class Begun(Framed):
        specials = Specials(pad=0, unk=1, bos=2, eos=3, sep=3, mask=5)  # its frame begins as a decoder does

    begun = task(Rows(TRAIN), readout="echo", tokenizer=Begun(min_count=1, max_size=None), max_length=8)
    begun.setup()
    encoder = Seen(dim=4, spec=begun.spec)
    begun.attach(encoder)
    begun(encoder, begun.collate("train", np.arange(2)))
    assert encoder.given.values.tolist() == [[2, 8, 7, 6], [2, 7, 0, 0]]
    assert encoder.given.mask.sum(1).tolist() == [4, 2]
    assert begun.lengths("train").tolist()[:2] == [5 + 4, 3 + 2]
    pairs = task(Rows([(("a", "b"), "x"), (("c", "a"), "y")]), readout="echo")
    pairs.setup()
    assert [int(row[-1]) for row in (pairs.sources["train"].rows[0], pairs.sources["train"].rows[1])] == [EOS, EOS]
    with pytest.raises(ValueError, match="readout: echo"):
        task(Rows(TRAIN), readout="echo", tokenizer=None)
    assert task(Rows(TRAIN)).needs is Encoder


def test_auxiliary_losses_and_smoothing() -> None:
    made, encoder = ready(Rows(TRAIN), label_smoothing=0.1)
    batch = made.collate("train", np.arange(4))
    plain = made(encoder, batch).loss.item()
    logits = made.head(pool(encoder(batch.source), "mean")).log_softmax(1)
    by_hand = -(0.9 * logits.gather(1, batch.label[:, None])[:, 0] + 0.1 * logits.mean(1)).mean()
    assert plain == pytest.approx(by_hand.item())
    encoder.losses = {"balance": torch.tensor(0.25), "other": torch.tensor(0.5)}
    assert made(encoder, batch).loss.item() == pytest.approx(plain + 0.75)


@pytest.mark.parametrize(
    "data, message",
    [
        (
            Rows(TRAIN, test=[("a", "new")]),
            "test row 0: class 'new' is not in the training split, whose classes are 'x', 'y', 'z'\\nCorrect",
        ),
        (
            Rows([("a", "x"), ("b", "x")]),
            "^train row 0 and all other training rows: the class is 'x'; .* two classes or more",
        ),
        (Rows([("a", "x"), ("b", 1)]), "all text, all whole numbers or"),
        (Rows([("a", 0.5), ("b", 1.5)]), "all text, all whole numbers or"),
        (Rows(TRAIN, valid=[]), "the valid split has no examples"),
        (Rows([(np.ones((3, 2)), "x"), (np.ones((3, 2)), "y")]), "Ids"),
    ],
)
def test_unfit_data(data: Rows, message: str) -> None:
    with pytest.raises(DataError, match=message):
        task(data).setup()


@pytest.mark.parametrize(
    "source, message",
    [
        ("text", "set task.tokenizer"),
        (np.ones(3), r"must be \(positions, channels\)"),
        (np.ones((0, 2)), r"must be \(positions, channels\)"),
        (np.array([[1.0, math.nan]]), "not finite"),
        (np.ones((3, 3)), "unequal numbers of channels"),
    ],
)
def test_unfit_channels(source: Any, message: str) -> None:
    data = Rows([(np.ones((2, 2)), 0), (np.ones((3, 2)), 1)], test=[(source, 0), (np.ones((2, 2)), 1)])
    with pytest.raises(DataError, match=message):
        task(data, tokenizer=None).setup()


def test_channels_are_fed_as_they_are() -> None:
    made = task(Rows([(np.full((2, 3), 0.5), 4), (np.ones((6, 3)), 1)]), tokenizer=None)
    made.setup()
    assert (made.spec.channels, made.classes) == (3, [1, 4])
    batch = made.collate("train", np.arange(2))
    assert batch.source.values.shape == (2, 4, 3)
    assert batch.source.values.dtype == torch.float32
    assert made.accounting("train").truncated == 1


def test_trivial_rules() -> None:
    made, _ = ready(Rows(TRAIN, test=[("a", "x")] * 300))
    assert set(made.trivial("majority", "test", 0).values()) == {"y"}
    drawn = made.trivial("random", "test", 0)
    assert drawn == made.trivial("random", "test", 0) != made.trivial("random", "test", 1)
    shares = [list(drawn.values()).count(name) / 300 for name in "xyz"]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.1)


def test_macro_f1_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    for size in (1, 5, 200):
        gold = generator.choice(["a", "b", "c", "d"], size, p=[0.5, 0.3, 0.15, 0.05]).tolist()
        predicted = generator.choice(["a", "b", "c", "e"], size).tolist()
        expected = f1_score(gold, predicted, average="macro", zero_division=0)
        assert MacroF1().score(predicted, gold) == pytest.approx(expected)
        assert Accuracy().score(predicted, gold) == pytest.approx(np.mean(np.array(predicted) == np.array(gold)))


def test_smoothing_is_of_training_alone() -> None:
    made, encoder = ready(Rows(TRAIN), label_smoothing=0.2)
    torch.nn.init.normal_(made.head.weight)  # logits that differ: on equal ones smoothing changes nothing
    batch = made.collate("train", np.arange(4))
    logits = made.head(pool(encoder(batch.source), "mean"))
    losses = {}
    for training in (True, False):
        made.train(training)
        losses[training] = made(encoder, batch).loss.item()
    assert losses[True] == pytest.approx(F.cross_entropy(logits, batch.label, label_smoothing=0.2).item(), rel=1e-5)
    assert losses[False] == pytest.approx(F.cross_entropy(logits, batch.label).item(), rel=1e-5)
    assert losses[True] != pytest.approx(losses[False], rel=1e-4)


def test_true_and_false_are_classes() -> None:
    made, encoder = ready(Rows([("a", True), ("b", False), ("c", True)]))
    assert made.classes == [False, True]
    assert made.eval().trivial("majority", "test", 0) == {0: True, 1: True, 2: True}
    assert set(made(encoder, made.collate("test", np.arange(3))).predictions) <= {False, True}
    with pytest.raises(DataError, match="all text, all whole numbers or all true and false, found bool, int"):
        ready(Rows([("a", True), ("b", 0)]))
