"""BERT4Rec: parameters by the sheet's formula, logits of another code with the same weights, what sees what, starts."""
# B batch, L positions, D width, V vocabulary

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from encoders.base import Encoder, InputSpec, Sequences
from encoders.conversion import bert_names, convert
from seqbench.build import build, build_task
from seqbench.composition.nodes import compose_node
from seqbench.studies.study import plan
from tasks.heads import VocabularyHead
from tasks.next_item import FIRST, NextItem
from tests.encoders.transformers_models import hf, preset

VOCABULARY, LENGTH = 60, 12
SPEC = InputSpec(max_length=LENGTH, vocab_size=VOCABULARY)
HIDDEN = 4  # an id that stands for what is asked for


def make(spec: InputSpec = SPEC, **changes: Any) -> tuple[Encoder, VocabularyHead]:
    torch.manual_seed(0)
    encoder = preset("bert4rec", spec, **changes)
    assert spec.vocab_size is not None
    return encoder, VocabularyHead(encoder=encoder, vocab_size=spec.vocab_size, tie=True)


def rows(lengths: tuple[int, ...] = (12, 7, 1)) -> Sequences:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return Sequences(values=torch.randint(5, VOCABULARY, mask.shape), mask=mask)


@pytest.mark.parametrize(
    "vocabulary, length, parameters", [(3420, 200, 339_612), (54_546, 50, 3_653_202)], ids=["ml-1m", "beauty"]
)
def test_published_parameters(vocabulary: int, length: int, parameters: int) -> None:
    """Counts of the official graph, encoder and output together."""
    with torch.device("meta"):
        encoder = preset("published/bert4rec", InputSpec(max_length=length, vocab_size=vocabulary))
        head = VocabularyHead(encoder=encoder, vocab_size=vocabulary, tie=True)
    found = sum(p.numel() for part in (encoder, head) for p in part.parameters())
    d, layers = 64, 2
    embeddings = vocabulary * d + length * d + 2 * d + 2 * d
    blocks = layers * (4 * (d * d + d) + 2 * d + d * 4 * d + 4 * d + 4 * d * d + d + 2 * d)
    output = d * d + d + 2 * d + vocabulary
    assert found == embeddings + blocks + output == parameters


@pytest.mark.parametrize("causal", [False, True])
def test_logits_are_those_of_another_bert_with_the_same_weights(causal: bool) -> None:
    """The official code is TensorFlow 1.12, and its model is BERT's of google-research, of which transformers'
    BertForMaskedLM is a port, output included. Same weights, made large, both directions: logits, of deviation 1.6,
    were the same to the bit with torch 2.13.
    """
    config = hf().BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        max_position_embeddings=LENGTH,
        type_vocab_size=2,
        is_decoder=causal,
    )
    model = hf().BertForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    theirs = model.state_dict()
    encoder, head = make(causal=causal)
    weights = convert(theirs, bert_names(prefix="bert.", offset=0), encoder.state_dict())
    transform = "cls.predictions.transform"
    for end in ("weight", "bias"):
        weights[f"project.{end}"] = theirs[f"{transform}.dense.{end}"]
        weights[f"project_norm.{end}"] = theirs[f"{transform}.LayerNorm.{end}"]
    for our, their in (("embed.table", "word"), ("token_type", "token_type")):
        weights[f"{our}.weight"] = theirs[f"bert.embeddings.{their}_embeddings.weight"]
    encoder.load_state_dict(weights)
    head.load_state_dict({"bias": theirs["cls.predictions.bias"]})
    batch = rows()
    with torch.no_grad():
        expected = model(input_ids=batch.values, attention_mask=batch.mask.long()).logits[batch.mask]
        found = head(encoder(batch).values, encoder)[batch.mask]
    assert expected.std() > 1
    assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_an_item_right_of_the_mask_moves_its_logits_in_both_directions_alone(causal: bool) -> None:
    encoder, head = make(causal=causal)
    batch = rows((9,))
    batch.values[0, 4] = HIDDEN
    right, left = batch.values.clone(), batch.values.clone()
    right[0, 6] = (right[0, 6] - 5 + 1) % (VOCABULARY - 5) + 5
    left[0, 2] = (left[0, 2] - 5 + 1) % (VOCABULARY - 5) + 5
    assert encoder.causal is causal
    with torch.no_grad():
        here, after, before = (
            head(encoder(Sequences(values=v, mask=batch.mask)).values, encoder)[0, 4]
            for v in (batch.values, right, left)
        )
    assert bool((after != here).any()) is not causal
    assert (before - here).abs().max() > 1e-5


def test_order_of_users_and_width_of_padding_change_nothing() -> None:
    encoder, head = make()
    batch, order = rows((7, 5, 2)), torch.tensor([2, 0, 1])
    wide = Sequences(
        values=torch.nn.functional.pad(batch.values, (0, 4), value=9), mask=torch.nn.functional.pad(batch.mask, (0, 4))
    )
    turned = Sequences(values=batch.values[order], mask=batch.mask[order])
    with torch.no_grad():
        plain, padded, other = (head(encoder(b).values, encoder) for b in (batch, wide, turned))
    assert_close(padded[:, :7][batch.mask], plain[batch.mask], atol=1e-5, rtol=0)
    assert_close(other[batch.mask[order]], plain[order][batch.mask[order]], atol=1e-5, rtol=0)


def test_a_hidden_label_gets_its_gradient_through_the_output_alone() -> None:
    """The label's row of the table: by the softmax, (p - 1) z and nothing else; as an input it isn't there."""
    encoder, head = make()
    batch = rows((9,))
    batch.values[batch.values == 30] = 31
    batch.values[0, 4] = HIDDEN
    z_D = encoder(batch).values[0, 4]
    logits_V = head(z_D, encoder)
    torch.nn.functional.cross_entropy(logits_V, torch.tensor(30)).backward()
    table = encoder.token_embedding
    assert table is not None
    assert table.grad is not None
    p_V = logits_V.detach().softmax(0)
    assert_close(table.grad[30], (p_V[30] - 1) * z_D.detach(), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(table.grad[int(batch.values[0, 2])], p_V[int(batch.values[0, 2])] * z_D.detach())


def test_the_switch_has_the_same_weights_and_the_start_is_a_cut_normal() -> None:
    spec = InputSpec(max_length=200, vocab_size=3000)
    (encoder, _), (twin, _) = make(spec), make(spec, causal=True)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), twin.parameters(), strict=True))
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 1:
            norm = "norm" in name and name.endswith("weight")
            assert torch.equal(parameter, torch.ones_like(parameter) if norm else torch.zeros_like(parameter)), name
            continue
        assert float(parameter.detach().abs().max()) <= 0.04
        if parameter.numel() > 4000:  # a normal cut at two deviations has 0.87963 of its deviation
            assert float(parameter.detach().std()) == pytest.approx(0.87963 * 0.02, rel=0.04), name


@pytest.mark.parametrize("study, cells", [("bert4rec", 36), ("bert4rec_gpu", 36)])
def test_rows_of_a_study_differ_in_direction_objective_and_loss_alone(study: str, cells: int) -> None:
    """Of one data set and budget: the same encoder but for its mask, the same task but for what is trained."""
    found = plan(study)
    assert (len(found.cells), found.left_out) == (cells, [])
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in found.cells:
        config = cell.config
        kept = {"encoder": dict(config.encoder), "task": dict(config.task), "rest": config.optimizer}
        own = (kept["encoder"].pop("causal"), *(kept["task"].pop(key) for key in ("objective", "loss")))
        if config.task["mask_most"] == 1:  # table 3 of the paper
            continue
        rows.setdefault((cell.names.task, config.seed, config.budget.steps, config.budget.seconds), []).append(
            {**kept, "own": own}
        )
    corners = {(False, "cloze", "full"), (True, "next", "sampled"), (True, "next", "full")}
    more = {(True, "cloze", "full"), (False, "cloze", "sampled")} if study == "bert4rec_gpu" else set()
    for row in rows.values():
        assert {one.pop("own") for one in row} == corners | more
        assert all(one == row[0] for one in row)
    assert len(rows) == (6 if more else 12)


def test_the_published_run_builds() -> None:
    config = plan("bert4rec_gpu", ["task=amazon_video_games", "seed=0"]).cells[0].config
    task = build_task(config)
    assert isinstance(task, NextItem)
    assert (config.budget.steps, config.budget.batch_size, task.mask_share, task.mask_most) == (400_000, 256, 0.6, 30)
    assert round(config.budget.steps * config.schedule.warmup) == 100
    with torch.device("meta"):
        encoder = build(config.encoder, "encoder", ["encoders"], spec=task.outline())
        head = VocabularyHead(encoder=encoder, vocab_size=FIRST + 23_715, tie=task.tie)
    found = sum(p.numel() for part in (encoder, head) for p in part.parameters())
    assert found == (FIRST + 23_715) * 65 + 50 * 64 + 2 * 64 + 2 * 64 + 99_968 + 64 * 64 + 64 + 2 * 64


@pytest.mark.parametrize("name", ["bert4rec", "published/bert4rec"])
def test_presets_are_set_as_in_the_official_code(name: str) -> None:
    """What no count of parameters tells: rates of dropout, norms, the activation, nothing scaled."""
    node = compose_node("encoder", name)
    sizes = {"dim": 64, "depth": 2, "heads": 2, "hidden": 256, "dropout": 0.2, "causal": False}
    assert {key: node[key] for key in sizes} == sizes
    layer, stem = node["layer"], node["stem"]
    assert (layer["placement"], layer["norm"]["eps"], layer["attention"]["dropout"]) == ("post", 1e-12, 0.2)
    assert (layer["feed_forward"]["activation"], layer["feed_forward"]["dropout"]) == ("gelu", 0.0)
    assert (stem["norm"], stem["scaled"]) == (True, False)


def test_embeddings_are_dropped_after_their_norm() -> None:
    encoder, _ = make(dropout=0.5)
    entered: list[torch.Tensor] = []
    encoder.get_submodule("stack.layers.0").register_forward_pre_hook(lambda module, given: entered.append(given[0]))
    encoder.train()(rows((12,) * 20))
    share = float((entered[0] == 0).float().mean())  # before the norm, dropped ones would not stay 0
    assert share == pytest.approx(0.5, abs=0.03)
