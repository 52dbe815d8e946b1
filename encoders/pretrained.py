"""Hugging Face checkpoints (BERT, RoBERTa, GPT-2, Llama, T5, BART) as encoders of the families here.

Reads config.json and safetensors: no pickle, no code of the checkpoint's, float32 whatever was saved.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field
from torch import Tensor

from encoders.base import Encoder, InputSpec
from encoders.blocks.attention import AttentionOptions
from encoders.blocks.feed_forward import FeedForwardOptions
from encoders.blocks.layer import LayerOptions
from encoders.blocks.norms import LayerNorm, RMSNorm
from encoders.blocks.positions import Learned, RelativeBias, Rotary
from encoders.blocks.stack import StemOptions
from encoders.conversion import Names, bart_names, bert_names, convert, gpt2_names, llama_names, t5_names
from encoders.decoder_only import DecoderOnly
from encoders.encoder_decoder import EncoderDecoder
from encoders.encoder_only import EncoderOnly

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

OTHER_TOKENIZERS = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")  # what is read
COMMIT = re.compile(r"[0-9a-f]{40}")

Config = dict[str, Any]
Value = TypeVar("Value", bool, int, float, str)
Made = tuple[Encoder, Names]


def pretrained(
    *, path: str, revision: str | None, dropout: Annotated[float, Field(ge=0, lt=1)] | None, spec: InputSpec
) -> Encoder:
    """The encoder of a checkpoint: an EncoderOnly, a DecoderOnly or an EncoderDecoder, by its model_type.

    path: a directory with config.json and model.safetensors (or its sharded index), or a name on the hub, of which
    `revision`, a commit's 40 hexadecimal digits, is fetched. dropout: null keeps the checkpoint's rates, a number
    replaces them all. On the meta device everything is checked but the weights, which are not read.
    Raises ValueError for what can't be read as one of the families, for a task with more ids or positions than the
    checkpoint has and for ids that are not of the tokenizer.json beside the weights; where there is another tokeniser's
    file alone, too, and where there is none, warns.
    """
    folder = _folder(path, revision)
    config = _read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in MODELS:
        raise ValueError(f"path: {path} is of model_type {kind!r}; one of {', '.join(MODELS)} can be read")
    if spec.vocab_size is None:
        raise ValueError(f"path: {path} reads ids; this task feeds channels")
    files = _weight_files(folder)
    _check_vocabulary(config, spec)
    encoder, names = MODELS[kind](config, dropout, spec)
    if not any(weight.is_meta for weight in encoder.parameters()):
        _check_ids(folder / "tokenizer.json", spec)
        encoder.load_state_dict(convert(_read_weights(files), names, encoder.state_dict()))
    return encoder


pretrained.paths = {"path": FILES}  # type: ignore[attr-defined]  # a run's id hashes these, not the place


# -- a config.json as arguments of a family --------------------------------------------------------------------------
def _bert(config: Config, dropout: float | None, spec: InputSpec) -> Made:
    roberta = config["model_type"] == "roberta"
    offset = _get(config, "pad_token_id", 1) + 1 if roberta else 0
    _refuse(config, position_embedding_type="absolute", is_decoder=False)
    _check_positions(_get(config, "max_position_embeddings", 512) - offset, spec.max_length)
    encoder = EncoderOnly(
        dim=_get(config, "hidden_size", 768),
        depth=_get(config, "num_hidden_layers", 12),
        heads=_get(config, "num_attention_heads", 12),
        hidden=_get(config, "intermediate_size", 3072),
        dropout=_rate(dropout, config, "hidden_dropout_prob", 0.1),
        patch=1,
        position=Learned(),
        stem=StemOptions(scaled=False, norm=True),
        layer=LayerOptions(
            placement="post",
            norm=LayerNorm(eps=_get(config, "layer_norm_eps", 1e-12)),
            attention=_attention(dropout=_rate(dropout, config, "attention_probs_dropout_prob", 0.1)),
            feed_forward=_feed_forward(_get(config, "hidden_act", "gelu"), dropout=dropout or 0.0),
        ),
        spec=spec,
    )
    return encoder, bert_names(prefix="roberta." if roberta else "bert.", offset=offset)


def _gpt2(config: Config, dropout: float | None, spec: InputSpec) -> Made:
    _refuse(config, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    _check_positions(_get(config, "n_positions", 1024), spec.max_length + spec.target_length)
    dim = _get(config, "n_embd", 768)
    encoder = DecoderOnly(
        dim=dim,
        depth=_get(config, "n_layer", 12),
        heads=_get(config, "n_head", 12),
        hidden=_get(config, "n_inner", 4 * dim),
        dropout=_rate(dropout, config, "resid_pdrop", 0.1),
        patch=1,
        position=Learned(),
        stem=StemOptions(scaled=False, norm=False),
        layer=LayerOptions(
            placement="pre",
            norm=LayerNorm(eps=_get(config, "layer_norm_epsilon", 1e-5)),
            attention=_attention(dropout=_rate(dropout, config, "attn_pdrop", 0.1)),
            feed_forward=_feed_forward(_get(config, "activation_function", "gelu_new"), dropout=dropout or 0.0),
        ),
        spec=spec,
    )
    return encoder, gpt2_names()


def _llama(config: Config, dropout: float | None, spec: InputSpec) -> Made:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling != "default":
        raise ValueError(f"path: rotary scaling {scaling!r} can't be read; only unscaled rotary positions can")
    if _get(config, "attention_bias", False) or _get(config, "mlp_bias", False):
        raise ValueError("path: a Llama with attention_bias or mlp_bias can't be read")
    dim, heads = _get(config, "hidden_size", 4096), _get(config, "num_attention_heads", 32)
    encoder = DecoderOnly(
        dim=dim,
        depth=_get(config, "num_hidden_layers", 32),
        heads=heads,
        hidden=_get(config, "intermediate_size", 11008),
        dropout=dropout or 0.0,
        patch=1,
        position=Rotary(base=_get(rope, "rope_theta", _get(config, "rope_theta", 10000.0))),
        stem=StemOptions(scaled=False, norm=False),
        layer=LayerOptions(
            placement="pre",
            norm=RMSNorm(eps=_get(config, "rms_norm_eps", 1e-6)),
            attention=_attention(
                dropout=_rate(dropout, config, "attention_dropout", 0.0),
                kv_heads=_get(config, "num_key_value_heads", heads),
                head_dim=_get(config, "head_dim", dim // heads),
                bias=False,
            ),
            feed_forward=_feed_forward(
                _get(config, "hidden_act", "silu"), dropout=dropout or 0.0, gated=True, bias=False
            ),
        ),
        spec=spec,
    )
    return encoder, llama_names()


def _t5(config: Config, dropout: float | None, spec: InputSpec) -> Made:
    projection = _get(config, "feed_forward_proj", "relu")
    gated = projection.startswith("gated-")
    activation = "gelu_new" if projection == "gated-gelu" else projection.removeprefix("gated-")
    rate = _rate(dropout, config, "dropout_rate", 0.1)
    arguments: dict[str, Any] = {
        "dim": _get(config, "d_model", 512),
        "depth": _get(config, "num_layers", 6),
        "heads": _get(config, "num_heads", 8),
        "hidden": _get(config, "d_ff", 2048),
        "dropout": rate,
        "patch": 1,
        "position": RelativeBias(
            buckets=_get(config, "relative_attention_num_buckets", 32),
            max_distance=_get(config, "relative_attention_max_distance", 128),
        ),
        "stem": StemOptions(scaled=False, norm=False),
        "layer": LayerOptions(
            placement="pre",
            norm=RMSNorm(eps=_get(config, "layer_norm_epsilon", 1e-6)),
            attention=_attention(dropout=rate, head_dim=_get(config, "d_kv", 64), bias=False, scaled=False),
            feed_forward=_feed_forward(activation, dropout=rate, gated=gated, bias=False),
        ),
        "spec": spec,
    }
    if config.get("architectures") == ["T5EncoderModel"]:
        return EncoderOnly(**arguments), t5_names(gated=gated, decoder=False)
    encoder = EncoderDecoder(**arguments, decoder_depth=_get(config, "num_decoder_layers", arguments["depth"]))
    return encoder, t5_names(gated=gated, decoder=True)


def _bart(config: Config, dropout: float | None, spec: InputSpec) -> Made:
    _refuse(config, normalize_before=False, add_final_layer_norm=False, normalize_embedding=True)
    for name, default in (("attention_heads", 16), ("ffn_dim", 4096)):
        sides = [_get(config, f"{side}_{name}", default) for side in ("encoder", "decoder")]
        if sides[0] != sides[1]:
            raise ValueError(f"path: {name} of encoder {sides[0]} and decoder {sides[1]} must be equal")
    _check_positions(_get(config, "max_position_embeddings", 1024), max(spec.max_length, spec.target_length))
    encoder = EncoderDecoder(
        dim=_get(config, "d_model", 1024),
        depth=_get(config, "encoder_layers", 12),
        decoder_depth=_get(config, "decoder_layers", 12),
        heads=_get(config, "encoder_attention_heads", 16),
        hidden=_get(config, "encoder_ffn_dim", 4096),
        dropout=_rate(dropout, config, "dropout", 0.1),
        patch=1,
        position=Learned(),
        stem=StemOptions(scaled=_get(config, "scale_embedding", False), norm=True),
        layer=LayerOptions(
            placement="post",
            norm=LayerNorm(eps=1e-5),
            attention=_attention(dropout=_rate(dropout, config, "attention_dropout", 0.0)),
            feed_forward=_feed_forward(
                _get(config, "activation_function", "gelu"), dropout=_rate(dropout, config, "activation_dropout", 0.0)
            ),
        ),
        spec=spec,
    )
    return encoder, bart_names()


MODELS: dict[str, Callable[[Config, float | None, InputSpec], Made]] = {
    "bert": _bert,
    "roberta": _bert,
    "gpt2": _gpt2,
    "llama": _llama,
    "t5": _t5,
    "bart": _bart,
}


def _attention(
    *, dropout: float, kv_heads: int | None = None, head_dim: int | None = None, bias: bool = True, scaled: bool = True
) -> AttentionOptions:
    return AttentionOptions(kv_heads=kv_heads, head_dim=head_dim, bias=bias, scaled=scaled, dropout=dropout)


def _feed_forward(activation: str, *, dropout: float, gated: bool = False, bias: bool = True) -> FeedForwardOptions:
    if activation not in ACTIVATIONS:
        raise ValueError(f"path: activation {activation!r} can't be read; one of {', '.join(ACTIVATIONS)} can")
    ours: Any = ACTIVATIONS[activation]
    return FeedForwardOptions(activation=ours, gated=gated, bias=bias, dropout=dropout)


def _rate(dropout: float | None, config: Config, key: str, default: float) -> float:
    return _get(config, key, default) if dropout is None else dropout


def _get(config: Config, key: str, default: Value) -> Value:
    """A setting of the checkpoint; where there is none, the default of the `transformers` library."""
    value = config.get(key)
    if value is None:
        return default
    if isinstance(default, float) and isinstance(value, int):
        value = float(value)
    if not isinstance(value, type(default)):
        raise ValueError(f"path: {key} in config.json should be of type {type(default).__name__}, it is {value!r}")
    return value


def _refuse(config: Config, **only: object) -> None:
    """Settings that change the computation and that the families have in one form alone."""
    for key, value in only.items():
        if config.get(key, value) != value:
            raise ValueError(f"path: a checkpoint with {key} {config[key]!r} can't be read; only {value!r} can")


def _check_vocabulary(config: Config, spec: InputSpec) -> None:
    known = _get(config, "vocab_size", 0)
    if known and spec.vocab_size is not None and spec.vocab_size > known:
        raise ValueError(
            f"path: the task has {spec.vocab_size} ids, the checkpoint {known}; "
            "tokenise the task with the checkpoint's own tokeniser: tokenizer=pretrained"
        )


def _check_ids(file: Path, spec: InputSpec) -> None:
    if not file.is_file():
        others = [name for name in OTHER_TOKENIZERS if (file.parent / name).is_file()]
        if others:
            raise ValueError(
                f"path: {file.parent} has {', '.join(others)} but no tokenizer.json, so its ids can't be held against"
                " the task's; save one (transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR))"
            )
        warnings.warn(
            f"encoder.path: {file.parent} has no tokenizer.json; whether the task's ids mean to the checkpoint what"
            " they mean to the task is not known",
            stacklevel=2,
        )
        return
    if hashlib.sha256(file.read_bytes()).hexdigest() != spec.vocabulary:
        raise ValueError(
            f"path: the task's ids are not those of {file}, so that they would mean nothing to the checkpoint; "
            "add tokenizer=pretrained"
        )


def _check_positions(known: int, needed: int) -> None:
    if needed > known:
        raise ValueError(
            f"path: the task needs {needed} positions, the checkpoint has {known}; lower the task's max_length"
        )


# -- files ---------------------------------------------------------------------------------------------------------
def _folder(path: str, revision: str | None) -> Path:
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ValueError(f"path: there is no directory {path}")
    if not COMMIT.fullmatch(revision or ""):
        raise ValueError(
            f"revision: {revision}; there is no directory {path}, and a name on the hub needs the 40 digits of a "
            "commit, since a branch can move"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(path, revision=revision, allow_patterns=[*FILES, "tokenizer.json", *OTHER_TOKENIZERS])
        )
    except (OSError, ValueError) as error:  # no such name, no network, offline and not in the cache
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"path: no directory {path}, and the hub did not give it: {reason}") from None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"path: {path.parent} has no {path.name}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"path: {path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"path: {path} holds no object")
    return content


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if (folder / "model.safetensors.index.json").is_file():
        index = _read_json(folder / "model.safetensors.index.json").get("weight_map", {})
        files = [folder / Path(name).name for name in sorted(set(index.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing or not files:
            raise ValueError(f"path: {folder} lacks {', '.join(missing) or 'weights'}")
        return files
    if list(folder.glob("*.bin")):
        raise ValueError(
            f"path: {folder} holds pickled weights alone, which are not read; "
            "save them as model.safetensors (save_pretrained does)"
        )
    raise ValueError(f"path: {folder} has no model.safetensors")


def _read_weights(files: list[Path]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            weights |= load_file(file)
        except SafetensorError as error:
            raise ValueError(f"path: {file} can't be read: {error}") from None
    return {name: weight for name, weight in weights.items() if weight.dtype.is_floating_point}
