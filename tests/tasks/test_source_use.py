"""How much of its source a target uses: the derivative against backward passes, what is kept, words by their place."""
# B batch, L source positions, T target positions, D width

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from encoders.base import InputSpec, Sequences
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from tasks.metrics.along import FirstWordAccuracy, LastWordAccuracy, SensitivityKept, SourceShareKept, WordAccuracy
from tasks.search import Hypothesis
from tasks.source_use import SourceUse, along_source, table_of

SPEC = InputSpec(max_length=12, vocab_size=17, target_length=12)
SMALL = {"dim": 8, "depth": 2, "heads": 2, "hidden": 16, "dropout": 0.0}


def encoder(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    node = compose_node("encoder", name, changes={**SMALL, **changes})
    return build(node, "encoder", ["encoders"], spec=SPEC).eval()


def rows(lengths: tuple[int, ...], seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 17, (len(lengths), max(lengths)), generator=generator)
    return Sequences(values=values, mask=torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1))


def jacobian(model: Any, source: Sequences, target: Sequences) -> Tensor:
    """d state / d source embedding of one row, (T, D, L, D), by a backward pass for each number of each state."""
    found: list[Tensor] = []

    def leaf(module: Any, ids: Any, values: Tensor) -> Tensor:
        found.append(values.detach().requires_grad_())
        return found[-1]

    handle = table_of(model).register_forward_hook(leaf)
    before = model.prefill(source)
    handle.remove()
    states = model.decode(target, before).values[0]
    parts = [torch.autograd.grad(x, found, retain_graph=True)[0][0] for x in states.flatten()]
    return torch.stack(parts).view(*states.shape, *found[0].shape[1:])


@pytest.mark.parametrize("name", ["palm", "decoder_only", "encoder_decoder"])
def test_the_derivative_along_a_direction_is_that_of_backward_passes(name: str) -> None:
    model, source, target = encoder(name), rows((5,), 1), rows((4,), 2)
    u_BLD = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(3))
    exact = torch.einsum("tdle,le->td", jacobian(model, source, target), u_BLD[0])
    with torch.no_grad():
        assert_close(along_source(model, source, target, u_BLD)[0], exact, atol=1e-5, rtol=1e-4)
    assert float(exact.abs().max()) > 0.01
    assert not table_of(model)._forward_hooks


@pytest.mark.slow
def test_an_encoder_of_two_outputs_has_a_derivative_by_its_table() -> None:
    """Its states are twice as wide as the embeddings; a mean over many probes is the whole derivative's square."""
    this = task(looked_into=1, probes=300)
    model: Any = build(
        compose_node("encoder", "surface_fusion", changes={**SMALL, "depth": 1}),
        "encoder",
        ["encoders"],
        spec=this.spec,
    ).eval()
    source, target = rows((5,), 1), rows((3,), 2)
    square_T = this._squares(model, source, target, [0])[0]
    exact_T = jacobian(model, source, target).square().sum((1, 2, 3))
    assert jacobian(model, source, target).shape == (3, 16, 5, 8)
    assert square_T.tolist() == pytest.approx(exact_T.tolist(), rel=0.2)


def task(**changes: Any) -> SourceUse:
    node = compose_node("task", "key_values_use", changes=changes)
    node["data"] = {**node["data"], "train": 40, "valid": 12, "test": 12, "pairs": 5}
    made: Any = build(node, "task", ["tasks"])
    made.setup()
    return made  # type: ignore[no-any-return]


def test_probes_are_of_a_row_alone_and_independent() -> None:
    """Whatever stands beside it in a batch, and however long; two of them are not one twice."""
    this, model = task(looked_into=9, probes=2), encoder("palm")
    source, target = rows((9, 5, 2), 1), rows((3, 6, 4), 2)
    together = this._squares(model, source, target, [4, 7, 0])
    one = Sequences(values=source.values[1:2, :5], mask=source.mask[1:2, :5])
    its = Sequences(values=target.values[1:2], mask=target.mask[1:2])
    alone = this._squares(model, one, its, [7])
    assert_close(together[1, :6], alone[0], atol=1e-6, rtol=1e-4)
    once = [task(looked_into=9, probes=1)._squares(model, one, its, [n]) for n in (14, 15)]  # the same two, each alone
    assert_close(alone, (once[0] + once[1]) / 2, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(once[0], once[1], rtol=1e-2)


def test_what_is_fed_is_the_output_behind_bos() -> None:
    """With its last word, whose state says the end; of an output without an end as much as was read."""
    this = task(looked_into=1, probes=1)
    bos, room = this.tokenizer.specials.bos, this.spec.target_length
    long = list(range(5, 5 + room))
    found = [Hypothesis(ids=[8, 9], score=0.0, finished=True), Hypothesis(ids=long, score=0.0, finished=False)]
    fed = this._fed(found, torch.device("cpu"))
    assert fed.values[0][fed.mask[0]].tolist() == [bos, 8, 9]
    assert fed.values[1].tolist() == [bos, *long[:-1]]


@pytest.mark.slow
def test_predictions_tell_both_and_training_is_as_without() -> None:
    this = task(looked_into=6, probes=400)
    model: Any = build(compose_node("encoder", "palm", changes=SMALL), "encoder", ["encoders"], spec=this.spec).eval()
    this.attach(model)
    with torch.no_grad():
        batch = this.eval().collate("test", torch.arange(3, 9).numpy())
        found = this(model, batch).predictions
    assert [bool(one["share"]) for one in found] == [True] * 3 + [False] * 3
    plain: Any = build(compose_node("task", "key_values"), "task", ["tasks"])
    plain.tokenizer, plain.head, plain.words, plain.spec = this.tokenizer, this.head, True, this.spec
    assert [one["words"] for one in found] == plain.generate(model, batch.source)
    one = found[1]
    ids = this.found(model, batch.source)[1].ids
    fed = torch.tensor([[this.tokenizer.specials.bos, *ids][:17]])
    length, end = fed.shape[1], int(batch.source.mask[1].sum())
    target = Sequences(values=fed, mask=fed >= 0)
    source = Sequences(values=batch.source.values[1:2, :end], mask=batch.source.mask[1:2, :end])
    norm_T = jacobian(model, source, target).square().sum((1, 2, 3)).detach()
    part = torch.arange(length) * 10 // length
    expected = [math.sqrt(float(norm_T[part == k].mean())) for k in range(10)]
    assert one["sensitivity"] == pytest.approx(expected, rel=0.15)  # of 400 draws
    share_T = model.source_share(source, target)[0]
    assert one["share"] == pytest.approx([float(share_T[part == k].mean()) for k in range(10)], abs=1e-5)
    output = this.train()(model.train(), batch)
    assert output.predictions == []


def test_a_tenth_has_the_root_of_its_mean_square_and_its_mean_share() -> None:
    """Of real positions alone: rows of a batch are not equally long."""
    this = task(looked_into=2, probes=1)
    model: Any = build(compose_node("encoder", "palm", changes=SMALL), "encoder", ["encoders"], spec=this.spec).eval()
    this.attach(model)
    eos = this.tokenizer.specials.eos
    found = [Hypothesis(ids=[eos + 1] * n, score=0.0, finished=True) for n in (11, 15)]
    x_RT = torch.arange(1.0, 17.0).expand(2, 16)
    with (
        mock.patch.object(this, "found", return_value=found),
        mock.patch.object(this, "_squares", return_value=x_RT**4),
        mock.patch.object(model, "source_share", return_value=x_RT),
    ):
        told = this.eval()(model, this.collate("test", torch.arange(2).numpy())).predictions
    for one, length in zip(told, (12, 16), strict=True):
        part_T = torch.arange(length) * 10 // length
        x_T = x_RT[0, :length]
        assert one["share"] == pytest.approx([float(x_T[part_T == k].mean()) for k in range(10)])
        assert one["sensitivity"] == pytest.approx([float((x_T[part_T == k] ** 4).mean().sqrt()) for k in range(10)])


def test_an_encoder_without_shares_or_without_a_table() -> None:
    this = task(looked_into=2, probes=1)
    model: Any = build(compose_node("encoder", "decoder_only", changes=SMALL), "encoder", ["encoders"], spec=this.spec)
    this.attach(model.eval())
    with torch.no_grad():
        found = this.eval()(model, this.collate("test", torch.arange(2).numpy())).predictions
    assert [one["share"] for one in found] == [[], []]
    assert all(len(one["sensitivity"]) == 10 for one in found)
    bare = build(
        compose_node("encoder", "lstm", changes={"dim": 8}),
        "encoder",
        ["encoders"],
        spec=InputSpec(max_length=9, channels=2),
    )
    with pytest.raises(ValueError, match="has no table of ids"):
        this.attach(bare)


def test_words_count_at_their_place_and_by_tenths() -> None:
    right = [f"w{i}" for i in range(20)]
    shifted, short = ["x", *right[:-1]], right[:10]
    metric = WordAccuracy()
    statistics = metric.statistics([right, {"words": short}, shifted], [right, right, right])
    assert metric.aggregate(statistics) == pytest.approx((20 + 10 + 0) / 60)
    assert metric.along(statistics) == pytest.approx([2 / 3] * 5 + [1 / 3] * 5)
    first, last = (kind().score([right, short], [right, right]) for kind in (FirstWordAccuracy, LastWordAccuracy))
    assert (first, last) == (1.0, 0.5)
    few = metric.statistics(["a b"], ["a c"])
    assert metric.aggregate(few) == 0.5
    assert [k for k, x in enumerate(metric.along(few)) if x == x] == [0, 5]


def test_what_is_kept_is_of_rows_that_tell() -> None:
    first = {"words": [], "share": [0.8, *[0.5] * 8, 0.2], "sensitivity": []}
    second = {"words": [], "share": [0.4, *[0.3] * 8, 0.4], "sensitivity": [2.0] * 10}
    diverged = {"words": [], "share": [], "sensitivity": [math.inf, *[1.0] * 9]}
    predictions, references = [first, second, {"words": [], "share": [], "sensitivity": []}, diverged], [[]] * 4
    share, sensitivity = SourceShareKept(), SensitivityKept()
    assert share.score(predictions, references) == pytest.approx((0.2 + 0.4) / (0.8 + 0.4))
    assert share.along(share.statistics(predictions, references)) == pytest.approx([0.6, *[0.4] * 8, 0.3])
    assert sensitivity.score(predictions, references) == pytest.approx(1.0)
    assert math.isnan(share.score([["a"]], [["a"]]))
