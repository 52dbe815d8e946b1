"""Checkpoints that the transformers library saved are read into our families, or refused in one line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from encoders.base import Decoder, Encoder, InputSpec
from encoders.blocks.attention import SelfAttention
from encoders.decoder_only import DecoderOnly
from encoders.encoder_decoder import EncoderDecoder
from encoders.encoder_only import EncoderOnly
from encoders.pretrained import pretrained
from tests.encoders.transformers_models import LENGTH, TARGET, VOCABULARY, hf, roughen, source, target, theirs

# the checkpoints of most tests here are weights alone
pytestmark = pytest.mark.filterwarnings("ignore:.*has no tokenizer.json; whether the task's ids mean:UserWarning")

IDS = InputSpec(max_length=LENGTH, vocab_size=VOCABULARY, target_length=TARGET)
FAMILIES = {
    "bert": EncoderOnly,
    "roberta": EncoderOnly,
    "gpt2": DecoderOnly,
    "llama": DecoderOnly,
    "t5": EncoderDecoder,
    "bart": EncoderDecoder,
}


def read(path: Path | str, spec: InputSpec = IDS, dropout: float | None = None) -> Encoder:
    return pretrained(path=str(path), revision=None, dropout=dropout, spec=spec).eval()


def assert_states_are_theirs(encoder: Encoder, model: Any) -> None:
    batch = source()
    inputs = {"input_ids": batch.values, "attention_mask": batch.mask.long()}
    with torch.no_grad():
        if isinstance(encoder, EncoderDecoder):
            expected = model(**inputs, decoder_input_ids=target().values).last_hidden_state
            states, real = encoder.decode(target(), encoder.prefill(batch)), target().mask
        else:
            expected, states, real = model(**inputs).last_hidden_state, encoder(batch), batch.mask
    assert_close(states.values[real], expected[real], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    theirs("bert").save_pretrained(folder)
    return folder


def edited(checkpoint: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a checkpoint with changes to its config.json."""
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_model_gives_its_states(name: str, tmp_path: Path) -> None:
    model = theirs(name)
    model.save_pretrained(tmp_path)
    encoder = read(tmp_path)
    assert type(encoder) is FAMILIES[name]
    assert isinstance(encoder, Decoder) == (name not in ("bert", "roberta"))
    assert_states_are_theirs(encoder, model)


def test_a_head_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"num_labels": 3, "max_position_embeddings": 40, "hidden_size": 32, "intermediate_size": 48}
    config = hf().BertConfig(vocab_size=VOCABULARY, num_hidden_layers=2, num_attention_heads=4, **sizes)
    model = roughen(hf().BertForSequenceClassification(config)).eval()
    model.save_pretrained(tmp_path)
    assert_states_are_theirs(read(tmp_path), model.bert)


def test_the_encoder_of_t5_alone_is_an_encoder_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    model = roughen(hf().T5EncoderModel(hf().T5Config(vocab_size=VOCABULARY, **sizes))).eval()
    model.save_pretrained(tmp_path)
    encoder = read(tmp_path)
    assert type(encoder) is EncoderOnly
    assert_states_are_theirs(encoder, model)


def test_a_smaller_vocabulary_takes_the_first_rows(bert: Path) -> None:
    whole, part = read(bert), read(bert, InputSpec(max_length=5, vocab_size=7))
    assert whole.token_embedding is not None
    assert part.token_embedding is not None
    assert_close(part.token_embedding, whole.token_embedding[:7], atol=0, rtol=0)


def test_half_precision_and_shards_become_one_float32(tmp_path: Path) -> None:
    model = theirs("gpt2")
    model.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="500KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    encoder = read(tmp_path)
    assert {weight.dtype for weight in encoder.state_dict().values()} == {torch.float32}
    assert_states_are_theirs(encoder, model.to(torch.float32))


def test_names_of_the_oldest_checkpoints(bert: Path, tmp_path: Path) -> None:
    edited(bert, tmp_path)
    weights = load_file(bert / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new_name, old_name in old.items():
        weights = {name.replace(new_name, old_name): weight for name, weight in weights.items()}
    assert any("gamma" in name for name in weights)
    save_file({f"bert.{name}": weight for name, weight in weights.items()}, tmp_path / "model.safetensors")
    assert_states_are_theirs(read(tmp_path), theirs("bert"))


def test_roberta_s_one_token_type_serves_both_parts_of_a_pair(tmp_path: Path) -> None:
    theirs("roberta").save_pretrained(tmp_path)
    spec = InputSpec(
        max_length=LENGTH, vocab_size=VOCABULARY, streams={"type": InputSpec(max_length=LENGTH, vocab_size=2)}
    )
    types_KD = read(tmp_path, spec).get_parameter("embed.streams.stream_type.weight")
    assert len(types_KD) == 2
    assert_close(types_KD[0], types_KD[1], atol=0, rtol=0)


def test_on_the_meta_device_weights_are_not_read(bert: Path, tmp_path: Path) -> None:
    edited(bert, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    with torch.device("meta"):
        encoder = read(tmp_path)
    assert all(weight.is_meta for weight in encoder.parameters())
    with pytest.raises(ValueError, match=r"^path: .*model\.safetensors can't be read"):
        read(tmp_path)


def test_dropout_is_the_checkpoint_s_or_one_for_all(bert: Path) -> None:
    def rates(encoder: Encoder) -> set[float]:
        dropouts = {module.p for module in encoder.modules() if isinstance(module, nn.Dropout)}
        return dropouts | {module.dropout for module in encoder.modules() if isinstance(module, SelfAttention)}

    assert rates(read(bert)) == {0.1, 0.0}  # BERT has none within the feed-forward
    assert rates(read(bert, dropout=0.3)) == {0.3}
    assert rates(read(bert, dropout=0.0)) == {0.0}


@pytest.mark.parametrize(
    "spec, message",
    [
        (InputSpec(max_length=8, vocab_size=51), r"^path: the task has 51 ids, the checkpoint 50; tokenise"),
        (InputSpec(max_length=29, vocab_size=50), r"^path: the task needs 29 positions, the checkpoint has 28"),
        (InputSpec(max_length=8, channels=2), r"^path: .* reads ids; this task feeds channels$"),
        (
            InputSpec(max_length=8, vocab_size=50, streams={"type": InputSpec(max_length=8, vocab_size=3)}),
            r"^path: the checkpoint has 2 token types, this task needs 3$",
        ),
    ],
)
def test_unfit_tasks_are_refused(bert: Path, spec: InputSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(bert, spec)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "mamba"}, r"is of model_type 'mamba'; one of bert, roberta, gpt2, llama, t5, bart can be read"),
        ({"position_embedding_type": "relative_key"}, r"position_embedding_type 'relative_key' can't be read"),
        ({"is_decoder": True}, r"is_decoder True can't be read; only False can"),
        ({"hidden_act": "mish"}, r"activation 'mish' can't be read"),
        ({"hidden_size": "large"}, r"hidden_size in config.json should be of type int, it is 'large'"),
        ({"num_hidden_layers": 5}, r"the checkpoint lacks encoder\.layer\.4\."),
        ({"num_attention_heads": 3}, r"heads: dim 128 can't be divided by 3 heads; use heads 2"),
        (
            {"hidden_size": 64},
            r"embed\.table\.weight of the checkpoint is \(50, 128\), its config\.json says \(50, 64\)",
        ),
    ],
)
def test_unreadable_checkpoints_are_refused(bert: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(edited(bert, tmp_path, **changes))


def test_scaled_rotary_positions_are_refused(tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="rotary scaling 'yarn' can't be read"):
        read(tmp_path)


def test_a_pickle_is_never_opened(bert: Path, tmp_path: Path) -> None:
    edited(bert, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"^path: .* has no model\.safetensors$"):
        read(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match="holds pickled weights alone, which are not read"):
        read(tmp_path)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_shard_that_is_not_there(tmp_path: Path) -> None:
    theirs("gpt2").save_pretrained(tmp_path, max_shard_size="500KB")
    next(iter(sorted(tmp_path.glob("*.safetensors")))).unlink()
    with pytest.raises(ValueError, match=r"^path: .* lacks model-00001-of-"):
        read(tmp_path)


@pytest.mark.parametrize(
    "path, message",
    [
        ("/no/such/folder", r"^path: there is no directory /no/such/folder$"),
        ("./nothing", r"^path: there is no directory \./nothing$"),
        ("nobody/nothing", r"^revision: None; there is no directory nobody/nothing, and a name on the hub needs"),
        ("nobody/nothing@" + "a" * 40, r"^path: no directory nobody/nothing, and the hub did not give it: "),
        ("not a name@" + "a" * 40, r"^path: no directory not a name, and the hub did not give it: "),
    ],
)
def test_nothing_there(path: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    name, _, revision = path.partition("@")
    with pytest.raises(ValueError, match=message) as caught:
        pretrained(path=name, revision=revision or None, dropout=None, spec=IDS)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text, message", [("{", "is no JSON"), ("[1]", "holds no object")])
def test_a_broken_config(bert: Path, tmp_path: Path, text: str, message: str) -> None:
    edited(bert, tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"^path: .*config\.json {message}"):
        read(tmp_path)


@pytest.mark.filterwarnings("default:.*has no tokenizer.json")
def test_ids_that_cannot_be_checked_are_told(bert: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"^encoder\.path: .* has no tokenizer\.json; whether the task's ids mean"):
        read(bert)
    edited(bert, tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    with pytest.raises(ValueError, match=r"has vocab\.txt but no tokenizer\.json.*save one"):
        read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"the task's ids are not those of .*tokenizer\.json"):
        read(tmp_path)
