"""The peer's side of the text benchmark: `transformers.Trainer` on the same ids, with a model of the same weights."""
# B batch, L positions, T target positions, D width, K classes, V vocabulary

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from seqbench.benchmark.base import Settings

hf: Any = transformers  # which is typed in part
Sampling = Literal["random", "group_by_length"]
HEAD = "head.safetensors"


class Classifier(nn.Module):
    """The library's BertModel, the mean of its real states, a linear layer: what our task makes of ours."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.bert = hf.BertModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
        head = load_file(folder / HEAD)
        outputs, dim = head["head.weight"].shape
        self.head = nn.Linear(dim, outputs)
        self.head.load_state_dict({key.removeprefix("head."): value for key, value in head.items()})
        self.tokens = 0  # real positions given to forward

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy over rows."""
        self.tokens += int(attention_mask.sum())
        x_BLD = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask_BL1 = attention_mask.unsqueeze(-1)
        logits_BK = self.head((x_BLD * mask_BL1).sum(1) / mask_BL1.sum(1))
        return {"loss": F.cross_entropy(logits_BK, labels), "logits": logits_BK}


class Translator(nn.Module):
    """The library's BartForConditionalGeneration, as it is."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.bart = hf.BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.tokens = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **rest: Tensor) -> Any:
        """Mean cross-entropy over target tokens."""
        self.tokens += int(attention_mask.sum()) + int((labels != -100).sum())
        return self.bart(input_ids=input_ids, attention_mask=attention_mask, labels=labels, use_cache=False, **rest)


def save(name: str, folder: Path, *, vocab_size: int, positions: int, special: dict[str, int]) -> None:
    """A checkpoint of random weights, of the size of our preset (configs/encoder/bert.yaml, bart.yaml)."""
    torch.manual_seed(0)
    if name == "sst2":
        bert = hf.BertConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=positions,
        )
        hf.BertModel(bert, add_pooling_layer=False).save_pretrained(folder)
        return
    sides = {
        f"{side}_{key}": n
        for side in ("encoder", "decoder")
        for key, n in {"layers": 2, "attention_heads": 4, "ffn_dim": 512}.items()
    }
    bart = hf.BartConfig(
        vocab_size=vocab_size,
        d_model=128,
        max_position_embeddings=positions,
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.1,
        decoder_start_token_id=special["bos"],
        bos_token_id=special["bos"],
        eos_token_id=special["eos"],
        pad_token_id=special["pad"],
        forced_eos_token_id=None,
        **sides,
    )
    hf.BartForConditionalGeneration(bart).save_pretrained(folder)


class Peer:
    """One data set as the Trainer takes it; each training begins anew with the weights in `folder`."""

    def __init__(self, name: str, folder: Path, *, features: Sequence[dict[str, Any]], pad: int, rows: int) -> None:
        from tokenizers import Tokenizer, models

        words = {"[PAD]" if i == pad else f"w{i}": i for i in range(pad + 2)}
        backend = Tokenizer(models.WordLevel(words, unk_token="[PAD]"))
        self.tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
        assert self.tokenizer.pad_token_id == pad
        self.name, self.folder, self.features, self.rows = name, folder, list(features), rows

    def model(self) -> Any:
        """A new one, with the weights in the folder."""
        return Classifier(self.folder) if self.name == "sst2" else Translator(self.folder)

    def collator(self, model: Any) -> Any:
        """The library's own, padding to the longest of a batch."""
        if self.name == "sst2":
            return hf.DataCollatorWithPadding(self.tokenizer)
        return hf.DataCollatorForSeq2Seq(self.tokenizer, model=model.bart)

    def train(self, settings: Settings, *, steps: int, seed: int, sampling: Sampling) -> tuple[int, float]:
        """Real positions trained on after the first step, and the seconds of it."""
        model = self.model()
        watch = _Clock(model, settings, steps)
        hf.utils.logging.set_verbosity_error()
        with tempfile.TemporaryDirectory() as folder:
            trainer = hf.Trainer(
                model=model,
                args=hf.TrainingArguments(
                    output_dir=folder,
                    per_device_train_batch_size=self.rows,
                    max_steps=steps,
                    learning_rate=1e-3,
                    weight_decay=0.0,
                    adam_beta2=0.98,
                    lr_scheduler_type="constant",
                    max_grad_norm=1.0,
                    train_sampling_strategy=sampling,
                    seed=seed,
                    use_cpu=True,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                ),
                train_dataset=self.features,  # whatever has a length and rows by number
                data_collator=self.collator(model),
                callbacks=[watch],
            )
            trainer.remove_callback(hf.PrinterCallback)
            trainer.train()
        return watch.tokens, watch.seconds


class _Clock(transformers.TrainerCallback):
    """Positions and seconds from the end of the first step to that of the last."""

    def __init__(self, model: Any, settings: Settings, steps: int) -> None:
        self.model, self.settings, self.steps = model, settings, steps

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Look at the clock."""
        if state.global_step == 1:
            self.tokens, self.seconds = -self.model.tokens, -self.settings.now()
        elif state.global_step == self.steps:
            self.tokens += self.model.tokens
            self.seconds += self.settings.now()
