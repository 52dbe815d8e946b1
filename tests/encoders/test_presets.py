"""The presets are BERT, RoBERTa, GPT-2, Llama, T5 and BART: with the library's weights, its states."""
# B batch, L positions, T target positions, D width

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from encoders.base import Decoder, Encoder, InputSpec, Sequences
from encoders.conversion import Names, bart_names, bert_names, convert, gpt2_names, llama_names, t5_names
from seqbench.composition.compose import CONFIGS
from seqbench.composition.nodes import compose_node
from tests.encoders.transformers_models import (
    LENGTH,
    TARGET,
    VOCABULARY,
    concatenated,
    hf,
    preset,
    rows,
    source,
    target,
    theirs,
)

NAMES: dict[str, Names] = {
    "bert": bert_names(prefix="bert.", offset=0),
    "roberta": bert_names(prefix="roberta.", offset=2),
    "gpt2": gpt2_names(),
    "llama": llama_names(),
    "t5": t5_names(gated=False, decoder=True),
    "bart": bart_names(),
}
IDS = InputSpec(max_length=LENGTH, vocab_size=VOCABULARY, target_length=TARGET)


def pair(name: str, spec: InputSpec = IDS, names: Names | None = None, **changes: Any) -> tuple[Any, Encoder]:
    """A model of theirs, and our preset with its weights; every weight of ours must have come from it."""
    model, ours = theirs(name, **changes.pop("theirs", {})), preset(name, spec, **changes)
    ours.load_state_dict(convert(model.state_dict(), names or NAMES[name], ours.state_dict()))
    return model, ours


def same(got: Tensor, expected: Tensor) -> None:
    assert_close(got, expected, atol=1e-5, rtol=1e-5)


def run(model: Any, batch: Sequences, **more: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=batch.values, attention_mask=batch.mask.long(), **more)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_states_are_theirs(name: str) -> None:
    model, ours = pair(name)
    batch = source()
    states = ours(batch)
    assert states.values.detach().std() > 0.1  # not all zeros on both sides
    same(states.values[batch.mask], run(model, batch).last_hidden_state[batch.mask])


def test_bert_token_types_are_a_stream() -> None:
    types = InputSpec(max_length=LENGTH, vocab_size=2)
    spec = InputSpec(max_length=LENGTH, vocab_size=VOCABULARY, streams={"type": types})
    model, ours = pair("bert", spec)
    batch = source()
    type_BL = (torch.arange(LENGTH) > 3).long().expand_as(batch.values)
    stream = Sequences(values=type_BL, mask=batch.mask)
    with_types = Sequences(values=batch.values, mask=batch.mask, streams={"type": stream})
    expected = run(model, batch, token_type_ids=type_BL).last_hidden_state
    same(ours(with_types).values[batch.mask], expected[batch.mask])
    assert not torch.allclose(expected, run(model, batch).last_hidden_state, atol=1e-2)  # types say something


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_steps_through_our_cache_are_their_states_of_the_concatenation(name: str) -> None:
    model, ours = pair(name)
    assert isinstance(ours, Decoder)
    states, made = ours.prefill(source()), []
    for step in range(TARGET):
        states = ours.decode(rows(target(), step, step + 1), states)
        made.append(states.values)
    made_BTD = torch.cat(made, dim=1)
    for row, ids in enumerate(concatenated(source(), target())):
        length = int(target().mask[row].sum())
        with torch.no_grad():
            expected = model(input_ids=ids[None]).last_hidden_state[0, -length:]
        same(made_BTD[row, :length], expected)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_prefill_and_decode_are_their_encoder_and_decoder(name: str) -> None:
    model, ours = pair(name)
    assert isinstance(ours, Decoder)
    expected = run(model, source(), decoder_input_ids=target().values, decoder_attention_mask=target().mask.long())
    before = ours.prefill(source())
    real_BL, real_BT = source().mask, target().mask
    same(before.values[real_BL], expected.encoder_last_hidden_state[real_BL])
    at_once = ours.decode(target(), before).values
    same(at_once[real_BT], expected.last_hidden_state[real_BT])
    made = []
    for start, stop in itertools.pairwise([0, 1, 2, 7, TARGET]):
        before = ours.decode(rows(target(), start, stop), before)
        made.append(before.values)
    same(torch.cat(made, dim=1)[real_BT], expected.last_hidden_state[real_BT])


def test_read_out_of_bart_is_its_decoder_over_the_source() -> None:
    model, ours = pair("bart")
    batch = source()
    embedded_BLD = model.shared(batch.values)
    expected = run(
        model, batch, decoder_inputs_embeds=embedded_BLD, decoder_attention_mask=batch.mask.long()
    ).last_hidden_state
    same(ours(batch).values[batch.mask], expected[batch.mask])


def test_gated_t5_is_t5_1_1() -> None:
    feed_forward = {"activation": "gelu_tanh", "gated": True}
    names = t5_names(gated=True, decoder=True)
    changes: dict[str, Any] = {"theirs": {"feed_forward_proj": "gated-gelu"}, "layer": {"feed_forward": feed_forward}}
    model, ours = pair("t5", names=names, **changes)
    assert isinstance(ours, Decoder)
    expected = run(model, source(), decoder_input_ids=target().values)
    states = ours.decode(target(), ours.prefill(source()))
    same(states.values[target().mask], expected.last_hidden_state[target().mask])


def test_scaled_bart_scales() -> None:
    model, ours = pair("bart", theirs={"scale_embedding": True}, stem={"scaled": True})
    assert isinstance(ours, Decoder)
    expected = run(model, source(), decoder_input_ids=target().values)
    states = ours.decode(target(), ours.prefill(source()))
    same(states.values[target().mask], expected.last_hidden_state[target().mask])


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "bart"])
def test_gradients_are_theirs(name: str) -> None:
    """In training mode without dropout: what is learnt from one batch is the same, through the table of ids."""
    model, ours = pair(name)
    batch = source()
    mask = batch.mask.long()
    if isinstance(ours, Decoder) and name in ("t5", "bart"):
        output_BTD = model(input_ids=batch.values, attention_mask=mask, decoder_input_ids=target().values)[0]
        states = ours.decode(target(), ours.prefill(batch))
        real = target().mask
        table: Tensor = model.shared.weight
    else:
        output_BTD = model(input_ids=batch.values, attention_mask=mask)[0]
        states, real = ours(batch), batch.mask
        table = model.get_input_embeddings().weight
    weight_D = torch.linspace(-1, 1, ours.dim)
    torch.autograd.backward([(output_BTD[real] * weight_D).sum(), (states.values[real] * weight_D).sum()])
    assert ours.token_embedding is not None
    used = torch.arange(VOCABULARY) > 2  # the padding id's row has no gradient in some of theirs
    assert ours.token_embedding.grad is not None
    assert table.grad is not None
    scale = table.grad.abs().max().item()
    assert scale > 1e-3
    same(ours.token_embedding.grad[used] / scale, table.grad[used] / scale)


def _bert() -> Any:
    return hf().BertModel(hf().BertConfig(), add_pooling_layer=False)


def _roberta() -> Any:
    config = hf().RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    return hf().RobertaModel(config, add_pooling_layer=False)


def _gpt2() -> Any:
    return hf().GPT2Model(hf().GPT2Config())


def _llama() -> Any:
    sizes = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_key_value_heads": 4}
    return hf().LlamaModel(hf().LlamaConfig(**sizes))


def _t5() -> Any:
    return hf().T5Model(hf().T5Config())


def _bart(layers: int = 6, heads: int = 12, dim: int = 768, **more: int) -> Any:
    sizes = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * dim}
    both = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in sizes.items()}
    return hf().BartModel(hf().BartConfig(d_model=dim, **both, **more))


def _bart_large() -> Any:
    return _bart(12, 16, 1024)


PUBLISHED: dict[str, tuple[Callable[[], Any], InputSpec, int]] = {
    # their model, its spec, parameters of theirs that ours has no use for: two token types, or one and the positions
    # 0 and 1 of RoBERTa, or those of BART's two tables
    "bert_base": (_bert, InputSpec(max_length=512, vocab_size=30522), 2 * 768),
    "roberta_base": (_roberta, InputSpec(max_length=512, vocab_size=50265), 3 * 768),
    "gpt2_small": (_gpt2, InputSpec(max_length=1024, vocab_size=50257), 0),
    "llama_1b": (_llama, InputSpec(max_length=2048, vocab_size=32000), 0),
    "t5_small": (_t5, InputSpec(max_length=512, vocab_size=32128, target_length=512), 0),
    "bart_base": (_bart, InputSpec(max_length=1024, vocab_size=50265, target_length=1024), 4 * 768),
    "bart_large": (_bart_large, InputSpec(max_length=1024, vocab_size=50265, target_length=1024), 4 * 1024),
}


def test_every_published_size_is_tested() -> None:
    """Here, or among the tests of the system that it is of."""
    systems = "".join(file.read_text(encoding="utf-8") for file in (Path(__file__).parent / "systems").glob("*.py"))
    for file in (CONFIGS / "encoder" / "published").glob("*.yaml"):
        assert file.stem in PUBLISHED or f"published/{file.stem}" in systems, file.stem


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_published_parameters(name: str) -> None:
    make, spec, unused = PUBLISHED[name]
    with torch.device("meta"):
        ours, model = preset(f"published/{name}", spec), make()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in model.parameters()) - unused


@pytest.mark.parametrize("name", ["bart", "published/bart_base", "published/bart_large"])
def test_barts_are_set_as_their_checkpoints(name: str) -> None:
    """What neither states in evaluation nor a count of parameters tell."""
    node = compose_node("encoder", name)
    layer, stem = node["layer"], node["stem"]
    rates = (node["dropout"], layer["attention"]["dropout"], layer["feed_forward"]["dropout"])
    assert rates == (0.1, 0.1, 0.1)
    assert (layer["placement"], layer["norm"]["eps"], layer["feed_forward"]["activation"]) == ("post", 1e-5, "gelu")
    assert (stem["norm"], stem["scaled"], node["decoder_depth"]) == (True, False, None)


BARTS: list[tuple[str, InputSpec, dict[str, int], int]] = [  # and the parameters of the library's BartModel
    ("published/bart_base", PUBLISHED["bart_base"][1], {}, 139_420_416),
    ("published/bart_large", PUBLISHED["bart_large"][1], {}, 406_291_456),
    (
        "bart",
        InputSpec(max_length=128, vocab_size=1000, target_length=128),
        {"dim": 64, "depth": 2, "hidden": 256},
        314_368,
    ),
]


@pytest.mark.parametrize("name, spec, sizes, published", BARTS)
def test_barts_have_so_many_parameters(name: str, spec: InputSpec, sizes: dict[str, int], published: int) -> None:
    with torch.device("meta"):
        ours = preset(name, spec, **sizes)
    reserved = 2 * 2 * ours.dim  # positions 0 and 1 of both tables, which nothing reads
    assert sum(p.numel() for p in ours.parameters()) == published - reserved
