"""Classification: one class per sequence, read out of the states by pooling and a linear layer."""
# B batch, N examples, D width, K classes

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Decoder, Encoder, InputSpec, Sequences
from tasks import sources
from tasks.base import Accounting, Batch, Output, Task
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.metrics.base import Metric
from tasks.readout import auxiliary, linear, pool, resolve
from tasks.streams import Streams
from tasks.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledSequences(Batch):
    """Sources with their classes."""

    source: Sequences
    label: Tensor  # (B,) int64, place of the class in `classes`


class Classification(Task):
    """Cross-entropy over the classes of the training split, sorted by name. A prediction is a class name.

    `tokenizer: null` for sources of channels (L, C). Sources longer than `max_length` positions are cut and counted. A
    pair of texts is read as one sequence, "left SEP right", of which the longer side is cut first.
    `readout`: `auto` is the last real state of a causal encoder and the mean over real states of any other. `echo` is
    of a Decoder, as BART is read (Lewis et al. 2020, arXiv 1910.13461, section 3.1): the text, ended by EOS, is the
    source and the target as well; the state that is to tell EOS goes through a layer with tanh, as in its code.
    `label_smoothing` (Szegedy et al. 2016, arXiv 1512.00567, section 7) in [0, 1), in training alone. Raises DataError
    for a class that training does not have, and for a training split of one class.
    """

    names_a_class = True
    feeds_streams = True
    rules = frozenset({"majority", "random"})

    def __init__(
        self,
        *,
        data: DataSet,
        tokenizer: Tokenizer | None,
        max_length: Annotated[int, Field(gt=0)],
        readout: Literal["auto", "mean", "max", "first", "last", "echo"],
        label_smoothing: Annotated[float, Field(ge=0, lt=1)],
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        if readout == "echo" and (tokenizer is None or data.streams):
            raise ValueError("readout: echo tells a text again: it needs a tokenizer, and data without streams")
        if readout == "echo":
            self.needs = Decoder  # type: ignore[type-abstract]
        self.tokenizer, self.max_length = tokenizer, max_length
        self.readout, self.label_smoothing = readout, label_smoothing
        self.streams = Streams(data.streams, max_length)
        self.classes: list[Any] = []
        self.sources: dict[str, sources.Sources] = {}
        self.labels: dict[str, NDArray[np.int64]] = {}

    def outline(self) -> InputSpec:
        """Length as configured; vocabulary or channels are stand-ins."""
        spec = sources.outline(self.tokenizer, self.max_length, self.streams, self.data.graph)
        return replace(spec, target_length=self.max_length) if self.readout == "echo" else spec

    def prepare(self) -> None:
        """Vocabulary and classes from the training split; ids and labels of all three."""
        end: int | None = None
        if self.tokenizer is not None:
            self.tokenizer.fit([text for example in self.examples["train"] for text in sources.texts(example.source)])
            end = self.tokenizer.specials.eos if self.readout == "echo" else None
        self.classes = class_names(self.examples["train"])
        self.streams.fit(self.examples["train"])
        places = {name: k for k, name in enumerate(self.classes)}
        for split in SPLITS:
            self.sources[split] = sources.encode(
                self.examples[split], self.tokenizer, self.max_length, split, self.streams, end=end
            )
            labels = np.zeros(len(self.examples[split]), dtype=np.int64)
            for row, example in enumerate(self.examples[split]):
                if example.target not in places:
                    raise DataError(_unseen(example.target, self.classes, example.place(split, row)))
                labels[row] = places[example.target]
            self.labels[split] = labels
        self.spec = sources.spec(self.tokenizer, self.max_length, self.sources["train"], self.streams, self.data.graph)
        if self.readout == "echo":
            self.spec = replace(self.spec, target_length=self.max_length)

    def attach(self, encoder: Encoder) -> None:
        """A linear layer (D -> K) over the pooled states; of an echo another one (D -> D) with tanh before it."""
        self.head: nn.Module = linear(encoder.dim, len(self.classes))
        if self.readout == "echo":
            self.head = nn.Sequential(nn.Linear(encoder.dim, encoder.dim), nn.Tanh(), self.head)
        else:
            self.pooling = resolve(self.readout, encoder)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each source, (N,), and of its echo."""
        lengths = self.sources[split].rows.lengths
        return 2 * lengths - self._given if self.readout == "echo" else lengths

    def collate(self, split: str, rows: NDArray[np.int64]) -> LabelledSequences:
        """Sources padded, and labels."""
        return LabelledSequences(
            index=torch.from_numpy(rows),
            source=self.sources[split].sequences(rows),
            label=torch.from_numpy(self.labels[split][rows]),
        )

    def accounting(self, split: str) -> Accounting:
        """Counts of positions and of sources cut to `max_length`."""
        return Accounting(
            examples=len(self.examples[split]),
            positions=int(self.lengths(split).sum()),
            truncated=self.sources[split].truncated,
            dropped=0,
        )

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean cross-entropy over rows; the class of the highest logit."""
        assert isinstance(batch, LabelledSequences)
        if self.readout == "echo":
            assert isinstance(encoder, Decoder)
            before = encoder.prefill(batch.source)
            states = encoder.decode(self._echo(batch.source), before)
            charged, pooled_BD = [before, states], pool(states, "last")
        else:
            states = encoder(batch.source)
            charged, pooled_BD = [states], pool(states, self.pooling)
        logits_BK = self.head(pooled_BD).float()
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits_BK, batch.label, label_smoothing=smoothing)
        predictions = [] if self.training else [self.classes[k] for k in logits_BK.argmax(1).tolist()]
        for called in charged:
            loss = auxiliary(loss, called)
        return Output(loss=loss, items=len(batch.label), predictions=predictions)

    @property
    def _given(self) -> bool:
        """Whether a row begins with what a decoder begins with, by its tokeniser's own frame."""
        assert self.tokenizer is not None
        parts = 2 if isinstance(self.examples["train"][0].source, tuple) else 1
        return self.tokenizer.frame(parts).before[:1] == (self.tokenizer.specials.bos,)

    def _echo(self, source: Sequences) -> Sequences:
        """What the decoder reads of a source: all but its EOS, after what a decoder begins with."""
        ids_BL, mask_BL = source.values, source.mask
        if self._given:
            return Sequences(values=ids_BL[:, :-1] * mask_BL[:, 1:], mask=mask_BL[:, 1:])
        assert self.tokenizer is not None
        begin_B1 = torch.full_like(ids_BL[:, :1], self.tokenizer.specials.bos)
        return Sequences(values=torch.cat([begin_B1, ids_BL[:, :-1]], 1) * mask_BL, mask=mask_BL)

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: the most frequent class (ties: the first name). `random`: uniform over classes, by seed."""
        rows = len(self.examples[split])
        if rule == "majority":
            counts = Counter(self.labels["train"].tolist())
            k = min(counts, key=lambda k: (-counts[k], k))
            return dict.fromkeys(range(rows), self.classes[k])
        if rule == "random":
            drawn = np.random.default_rng([seed, SPLITS.index(split)]).integers(len(self.classes), size=rows)
            return {row: self.classes[k] for row, k in enumerate(drawn.tolist())}
        return super().trivial(rule, split, seed)


def _unseen(target: Any, classes: list[Any], where: str) -> str:
    """What to say of a class that training lacks."""
    near = difflib.get_close_matches(str(target), [str(name) for name in classes], n=1)
    known = ", ".join(map(repr, classes[:8])) + (f", ... ({len(classes)} in all)" if len(classes) > 8 else "")
    return (
        f"{where}: class {target!r} is not in the training split, whose classes are {known}"
        f"{f'; did you mean {near[0]!r}?' if near else ''}\n"
        "Correct the value, take the row out, or give training rows of this class (of shares: by another"
        " task.data.split_seed)"
    )


def class_names(examples: Sequence[Example]) -> list[Any]:
    """Sorted names, all str, all int or all bool. Raises DataError for other types and for fewer than two classes."""
    targets = [example.target for example in examples]
    kinds = {type(target) for target in targets}
    if len(kinds) != 1 or not kinds <= {str, int, bool}:
        raise DataError(
            f"{examples[0].place('train', 0)} and others: classes must be all text, all whole numbers or all true and"
            f" false, found {', '.join(sorted(k.__name__ for k in kinds))}; own data: task.data.target_type=text"
        )
    names = sorted(set(targets))
    if len(names) < 2:
        place = examples[0].place("train", 0)
        raise DataError(
            f"{place} and all other training rows: the class is {names[0]!r}; classification needs two classes or more"
        )
    return names
