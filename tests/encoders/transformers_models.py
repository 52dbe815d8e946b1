"""Small random models of the `transformers` library, of the sizes of our stand-in presets, and batches for them."""
# B batch, L positions, T target positions

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from encoders.base import Encoder, InputSpec, Sequences
from seqbench.build import build
from seqbench.composition.nodes import compose_node

VOCABULARY, LENGTH, TARGET = 50, 16, 12


def preset(name: str, spec: InputSpec, **changes: Any) -> Encoder:
    """The encoder of a config file, for evaluation. A change with a `_target_` replaces, another one is merged."""
    encoder = build(compose_node("encoder", name, changes=changes), "encoder", ["encoders"], spec=spec)
    assert isinstance(encoder, Encoder)
    return encoder.eval()


def hf() -> Any:
    """The library, imported when a test needs it: it takes seconds."""
    import transformers

    return transformers


def theirs(kind: str, **changes: Any) -> Any:
    """A model of the library with random weights, of the size of the preset of that name, for evaluation."""
    torch.manual_seed(0)
    bert: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    both = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in BART_SIDE.items()}
    model: Any
    if kind == "bert":
        config = hf().BertConfig(**bert, intermediate_size=512, max_position_embeddings=LENGTH + TARGET, **changes)
        model = hf().BertModel(config)
    elif kind == "roberta":
        changes = {"layer_norm_eps": 1e-5, "type_vocab_size": 1, **changes}
        config = hf().RobertaConfig(
            **bert, intermediate_size=512, max_position_embeddings=LENGTH + TARGET + 2, **changes
        )
        model = hf().RobertaModel(config)
    elif kind == "gpt2":
        sizes = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": LENGTH + TARGET}
        model = hf().GPT2Model(hf().GPT2Config(vocab_size=VOCABULARY, **sizes, **changes))
    elif kind == "llama":
        llama: dict[str, Any] = {"intermediate_size": 344, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}
        model = hf().LlamaModel(hf().LlamaConfig(**(bert | llama | changes)))
    elif kind == "t5":
        sizes = {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_heads": 4}
        model = hf().T5Model(hf().T5Config(vocab_size=VOCABULARY, **sizes, **changes))
    else:
        sizes = {"d_model": 128, "max_position_embeddings": LENGTH + TARGET}
        model = hf().BartModel(hf().BartConfig(vocab_size=VOCABULARY, **sizes, **both, **changes))
    return roughen(model).eval()


BART_SIDE = {"layers": 2, "attention_heads": 4, "ffn_dim": 512}


def roughen(model: Any) -> Any:
    """Biases and norms away from 0 and 1, so that a mistaken one is seen."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def source() -> Sequences:
    """Three rows of 11, 16 and 5 ids, none of which is a padding id of theirs."""
    return _batch([11, LENGTH, 5], LENGTH, seed=1)


def target() -> Sequences:
    """Three rows of 12, 3 and 7 ids."""
    return _batch([TARGET, 3, 7], TARGET, seed=2)


def _batch(lengths: list[int], width: int, *, seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    mask_BL = torch.arange(width) < torch.tensor(lengths)[:, None]
    values_BL = torch.randint(3, VOCABULARY, mask_BL.shape, generator=generator)
    return Sequences(values=values_BL.where(mask_BL, 1), mask=mask_BL)


def rows(batch: Sequences, start: int, stop: int) -> Sequences:
    """Positions start .. stop - 1 of all rows."""
    return Sequences(values=batch.values[:, start:stop], mask=batch.mask[:, start:stop])


def concatenated(first: Sequences, second: Sequences) -> list[Tensor]:
    """Each row's real positions of both, (L + T,): what prefix concatenation means."""
    pairs = zip(first.values, first.mask, second.values, second.mask, strict=True)
    return [torch.cat((a[m], b[n])) for a, m, b, n in pairs]
