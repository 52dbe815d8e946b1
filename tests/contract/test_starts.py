"""What training begins with, for each configured encoder: initial spreads of the published models, dropouts by count.

A preset at its published width has the published deviation (0.02 of BERT, RoBERTa, GPT-2, Llama and BART); at other
widths, and for what writes into the residual stream, a formula says it. Numbers are of the papers, not of the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from encoders.base import Decoder, InputSpec
from encoders.blocks.stack import Stack
from tests.contract.cases import Case
from tests.contract.dropout_checks import RATE, applied, made, rates
from tests.contract.test_encoders import NODES
from tests.encoders.transformers_models import preset

IDS = InputSpec(max_length=256, vocab_size=500, target_length=8)
SAMPLE = 0.03  # of a deviation that is estimated from 2e4 draws or more
OWN = {"bert4rec", "seqpe"}  # starts of systems that differ from these formulas are tested with the system
FAMILIES = {name: node for name, (node, _) in NODES.items() if "layer" in node and name not in OWN}


def spread(module: nn.Linear | nn.Embedding) -> float:
    return float(module.weight.detach().double().square().mean().sqrt())  # about a mean of 0


@pytest.mark.parametrize("dim, published", [(768, 0.02), (192, 0.04)])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_initial_weights(name: str, dim: int, published: float) -> None:
    torch.manual_seed(0)
    heads = 2 * (FAMILIES[name]["layer"]["attention"]["kv_heads"] or 2)
    encoder = preset(name, IDS, dim=dim, depth=2, heads=heads, hidden=2 * dim)
    stacks = [module for module in encoder.modules() if isinstance(module, Stack)]
    assert len(stacks) == (2 if "decoder_depth" in FAMILIES[name] else 1)
    seen, wanted = set(), {"qkv", "out", "up", "down"}
    for stack in stacks:
        crossed = sum(layer.cross is not None for layer in stack.layers)  # type: ignore[union-attr]
        wanted |= {"query", "key_value"} if crossed else set()
        residual = published / math.sqrt(2 * len(stack.layers) + crossed)  # GPT-2, section 2.3
        for part, module in stack.named_modules():
            if isinstance(module, nn.Linear):
                into = part.endswith((".out", ".down"))
                assert spread(module) == pytest.approx(residual if into else published, rel=SAMPLE), part
                assert module.bias is None or not module.bias.any(), part
                seen.add(part.rpartition(".")[2])
            elif isinstance(module, nn.Embedding) and module.weight.numel() > 10_000:  # T5's buckets are few
                assert spread(module) == pytest.approx(published, rel=SAMPLE), part
            elif hasattr(module, "eps"):
                assert torch.equal(module.weight, torch.ones(dim)), part  # type: ignore[arg-type]
    assert seen == wanted
    table = encoder.token_embedding
    assert table is not None
    expected = dim**-0.5 if FAMILIES[name]["stem"]["scaled"] else published  # unit variance
    assert float(table.detach().double().std()) == pytest.approx(expected, rel=SAMPLE)


def stacked(node: dict[str, Any]) -> int:
    """The embedding; of each layer two residuals and the feed-forward's own; attention weights."""
    return 1 + 4 * int(node["depth"])


COUNTS: dict[str, Callable[[dict[str, Any]], int]] = {
    "EncoderOnly": stacked,
    "DecoderOnly": stacked,
    "EncoderDecoder": lambda node: stacked(node) + 1 + 6 * int(node["decoder_depth"] or node["depth"]),  # and cross
    "BERT4Rec": stacked,
    "Recurrent": lambda node: 2,  # of the input and of the last output; those between layers are nn.LSTM's own
    "Bidirectional": lambda node: int(node["depth"]) + 1,
    "TCN": lambda node: 2 * int(node["depth"]),
    "CentredTCN": lambda node: 2 * int(node["depth"]),
    "S4D": lambda node: 2 * int(node["depth"]),
    "Bag": lambda node: int(node["depth"]),
}
COUNTED = {
    name: node
    for name, (node, _) in NODES.items()
    if node["_target_"].rpartition(".")[2] in COUNTS and name != "seqpe"  # its positions have a stack of their own
}


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_dropouts_are_as_many_as_the_architecture_has(name: str) -> None:
    node = COUNTED[name]
    case = Case(node, "ids")
    encoder = made(case, dict.fromkeys(rates(node), RATE)).train()
    with applied() as found:
        encoder(case.draw([7, 5]))
    assert len(found) == COUNTS[node["_target_"].rpartition(".")[2]](node)
    if isinstance(encoder, Decoder) and encoder.causal:  # reading in order to continue is training, too
        with applied() as read:
            before = encoder.prefill(case.draw([7, 5]))
        with applied() as decoded:
            encoder.decode(case.draw([3, 3]), before)
        assert len(read) == len(decoded) == len(found)
    assert all(layer.dropout == RATE for layer in encoder.modules() if isinstance(layer, nn.RNNBase) and deep(layer))


def deep(layer: nn.RNNBase) -> bool:
    return layer.num_layers > 1
