"""Recognition: the sequence that is said in a longer one of frames, by CTC, by a transducer, or by both at once."""
# B batch, L frames, T states, U symbols of a row, V symbols of the vocabulary; output V is blank

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences
from tasks import sources
from tasks.base import Accounting, Batch, DataError, Output, Task
from tasks.data.base import SPLITS, DataSet
from tasks.metrics.base import Metric
from tasks.padding import Ragged
from tasks.tokenizers import Tokenizer
from tasks.transducer import Transducer
from tasks.transducer_loss import transducer_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class RecognitionBatch(Batch):
    """Frames and what is said in them, in order, without times."""

    source: Sequences  # (B, L, C) channels
    label: Tensor  # (B, U) int64, right-padded
    symbols: Tensor  # (B,) int64, of each row


class Recognition(Task):
    """Any encoder whose states are frames, in their order: of L frames num_states(L) states, each with outputs.

    `loss`: `ctc` (Graves et al. 2006, torch.nn.functional.ctc_loss), `transducer` (transducer_loss.py; an LSTM of
    width `predictor` reads the symbols so far), or `hybrid`, ctc_weight * ctc + (1 - ctc_weight) * transducer over the
    same states (Noroozi et al. 2024, arXiv 2312.17279). It is -ln P by symbol, the sum over rows by the sum of their
    symbols. `decoding` is greedy, of the one or the other (`auto`: the transducer's where there is one): CTC drops
    repetitions, then blanks; the transducer emits at most `most` symbols a state. Both go on state by state, so an
    encoder that streams has a recogniser that does.

    Symbols are the tokeniser's ids of targets (text or lists of words), fitted on the training split; predictions have
    the form of targets. References are never cut; a source beyond `max_length` is, and counted. CTC needs a state for
    each symbol and one between equal ones: ValueError where a training row has fewer; rows of other splits have loss 0.
    """

    rules = frozenset({"majority", "random"})

    def __init__(
        self,
        *,
        data: DataSet,
        metrics: list[Metric],
        tokenizer: Tokenizer,
        max_length: Annotated[int, Field(gt=0)],
        loss: Literal["ctc", "transducer", "hybrid"],
        ctc_weight: Annotated[float, Field(gt=0, lt=1)],
        decoding: Literal["auto", "ctc", "transducer"],
        predictor: Annotated[int, Field(gt=0)],
        joint: Annotated[int, Field(gt=0)],
        fast_emit: Annotated[float, Field(ge=0)],
        most: Annotated[int, Field(gt=0)],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        if decoding not in ("auto", loss) and loss != "hybrid":
            raise ValueError(f"task.decoding: {decoding}, with task.loss {loss}; use auto, or loss=hybrid")
        self.tokenizer, self.max_length = tokenizer, max_length
        self.weight = {"ctc": 1.0, "transducer": 0.0, "hybrid": ctc_weight}[loss]
        self.decoding = ("ctc" if loss == "ctc" else "transducer") if decoding == "auto" else decoding
        self.predictor, self.joint, self.fast_emit, self.most = predictor, joint, fast_emit, most
        self.sources: dict[str, sources.Sources] = {}
        self.labels: dict[str, Ragged] = {}

    def outline(self) -> InputSpec:
        """The spec with a stand-in for the channels."""
        return sources.outline(None, self.max_length)

    # -- data ----------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Fit the tokeniser on the training split's targets, encode all."""
        train = self.examples["train"]
        self.words = isinstance(train[0].target, list)
        for split in SPLITS:
            for row, example in enumerate(self.examples[split]):
                if not isinstance(example.target, list if self.words else str):
                    raise DataError(
                        f"{example.place(split, row)}: a target is text or words here, the same in every row,"
                        f" not {example.target!r:.40}"
                    )
        self.tokenizer.fit([example.target for example in train])
        for split in SPLITS:
            examples = self.examples[split]
            self.sources[split] = sources.encode(examples, None, self.max_length, split)
            encoded = self.tokenizer.encode([example.target for example in examples])
            self.labels[split] = Ragged((one.ids for one in encoded), np.int64)
        self.spec = sources.spec(None, self.max_length, self.sources["train"])

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Frames of each source, (N,)."""
        return self.sources[split].rows.lengths

    def collate(self, split: str, rows: NDArray[np.int64]) -> RecognitionBatch:
        """Rows by number."""
        return RecognitionBatch(
            index=torch.from_numpy(np.asarray(rows, dtype=np.int64)),
            source=self.sources[split].sequences(rows),
            label=self.labels[split].tensor(rows),
            symbols=torch.from_numpy(self.labels[split].lengths[rows]),
        )

    def accounting(self, split: str) -> Accounting:
        """Counts of frames and of sources that were cut."""
        lengths = self.lengths(split)
        cut = self.sources[split].truncated
        return Accounting(examples=len(lengths), positions=int(lengths.sum()), truncated=cut, dropped=0)

    # -- with an encoder -----------------------------------------------------------------------------------------
    def attach(self, encoder: Encoder) -> None:
        """A linear map to symbols and blank, a transducer, or both."""
        self.blank = self.tokenizer.vocab_size
        if self.weight:
            self._check_room(encoder)
            self.head = nn.Linear(encoder.dim, self.blank + 1)
        if self.weight < 1:
            self.transducer = Transducer(
                dim=encoder.dim, outputs=self.blank + 1, predictor=self.predictor, joint=self.joint
            )

    def _check_room(self, encoder: Encoder) -> None:
        labels, frames = self.labels["train"], self.lengths("train")
        states = {length: encoder.num_states(length) for length in np.unique(frames).tolist()}
        for row in range(len(labels)):
            ids, there = labels[row], states[int(frames[row])]
            needed = len(ids) + int((ids[1:] == ids[:-1]).sum())
            if needed > there:
                raise ValueError(
                    f"task.loss: CTC needs {needed} states for the {len(ids)} symbols of training row {row}, which has"
                    f" {there}; let the encoder merge fewer frames, or use loss=transducer"
                )

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """-ln P by symbol, in nats; outside training what is recognised."""
        assert isinstance(batch, RecognitionBatch)
        states = encoder(batch.source)
        frames_B, items = states.mask.sum(1), int(batch.symbols.sum())
        total = torch.zeros((), device=frames_B.device)
        logits_BTV = self.head(states.values) if self.weight else None
        if logits_BTV is not None:
            total = total + self.weight * ctc(logits_BTV, batch.label, frames_B, batch.symbols, blank=self.blank).sum()
        if self.weight < 1:
            nll_B = transducer_loss(
                self.transducer(states.values, batch.label),
                batch.label,
                frames_B,
                batch.symbols,
                blank=self.blank,
                fast_emit=self.fast_emit,
            )
            total = total + (1 - self.weight) * nll_B.sum()
        loss = sum(states.losses.values(), total / max(1, items))
        if self.training:
            return Output(loss=loss, items=items)
        if self.decoding == "ctc":
            assert logits_BTV is not None
            found = collapsed(logits_BTV, frames_B, blank=self.blank)
        else:
            found = self.transducer.greedy(states.values, frames_B, most=self.most)
        texts = [self.tokenizer.decode(ids) for ids in found]
        return Output(loss=loss, items=items, predictions=[text.split() for text in texts] if self.words else texts)

    # -- without one ---------------------------------------------------------------------------------------------
    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: the most frequent training target (of equals the first); `random`: a training target each."""
        targets = [example.target for example in self.examples["train"]]
        number = len(self.examples[split])
        if rule == "majority":
            keys = [tuple(target) if self.words else target for target in targets]
            return dict.fromkeys(range(number), targets[keys.index(Counter(keys).most_common(1)[0][0])])
        if rule == "random":
            picks = np.random.default_rng([seed, SPLITS.index(split)]).integers(len(targets), size=number)
            return {row: targets[pick] for row, pick in enumerate(picks)}
        return super().trivial(rule, split, seed)


def ctc(logits_BTV: Tensor, label_BU: Tensor, frames_B: Tensor, symbols_B: Tensor, *, blank: int) -> Tensor:
    """-ln P of each row, (B,) float32; 0 where no alignment is possible. On the CPU: CUDA's gradient varies in bits."""
    p_TBV = F.log_softmax(logits_BTV.float(), -1).transpose(0, 1).cpu()
    nll_B = F.ctc_loss(
        p_TBV, label_BU.cpu(), frames_B.cpu(), symbols_B.cpu(), blank=blank, reduction="none", zero_infinity=True
    )
    return nll_B.to(logits_BTV.device)


def collapsed(logits_BTV: Tensor, frames_B: Tensor, *, blank: int) -> list[list[int]]:
    """Greedy CTC: the likeliest output of each state, repetitions dropped, then blanks."""
    best_BT = logits_BTV.argmax(-1)
    new_BT = torch.ones_like(best_BT, dtype=torch.bool)
    new_BT[:, 1:] = best_BT[:, 1:] != best_BT[:, :-1]
    inside_BT = torch.arange(best_BT.shape[1], device=best_BT.device) < frames_B[:, None]
    kept_BT = new_BT & inside_BT & (best_BT != blank)
    return [best_T[kept_T].tolist() for best_T, kept_T in zip(best_BT.cpu(), kept_BT.cpu(), strict=True)]
