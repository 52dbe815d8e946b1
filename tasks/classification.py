"""Classification: one class per sequence, read out of the states by pooling and a linear layer."""
# B batch, N examples, D width, K classes

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from encoders.base import Encoder, InputSpec, Sequences
from tasks import sources
from tasks.base import Accounting, Batch, Output, Task
from tasks.data.base import SPLITS, DataError, DataSet
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
    `readout`: `auto` is the last real state of a causal encoder and the mean over real states of any other.
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
        readout: Literal["auto", "mean", "max", "first", "last"],
        label_smoothing: Annotated[float, Field(ge=0, lt=1)],
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        self.tokenizer, self.max_length = tokenizer, max_length
        self.readout, self.label_smoothing = readout, label_smoothing
        self.streams = Streams(data.streams, max_length)
        self.classes: list[Any] = []
        self.sources: dict[str, sources.Sources] = {}
        self.labels: dict[str, NDArray[np.int64]] = {}

    def outline(self) -> InputSpec:
        """Length as configured; vocabulary or channels are stand-ins."""
        return sources.outline(self.tokenizer, self.max_length, self.streams, self.data.graph)

    def prepare(self) -> None:
        """Vocabulary and classes from the training split; ids and labels of all three."""
        if self.tokenizer is not None:
            self.tokenizer.fit([text for example in self.examples["train"] for text in sources.texts(example.source)])
        self.classes = class_names([example.target for example in self.examples["train"]])
        self.streams.fit(self.examples["train"])
        places = {name: k for k, name in enumerate(self.classes)}
        for split in SPLITS:
            self.sources[split] = sources.encode(
                self.examples[split], self.tokenizer, self.max_length, split, self.streams
            )
            labels = np.zeros(len(self.examples[split]), dtype=np.int64)
            for row, example in enumerate(self.examples[split]):
                if example.target not in places:
                    raise DataError(_unseen(example.target, self.classes, example.place(split, row)))
                labels[row] = places[example.target]
            self.labels[split] = labels
        self.spec = sources.spec(self.tokenizer, self.max_length, self.sources["train"], self.streams, self.data.graph)

    def attach(self, encoder: Encoder) -> None:
        """A linear layer (D -> K) over the pooled states."""
        self.pooling = resolve(self.readout, encoder)
        self.head = linear(encoder.dim, len(self.classes))

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each source, (N,)."""
        return self.sources[split].rows.lengths

    def collate(self, split: str, rows: NDArray[np.int64]) -> LabelledSequences:
        """Sources padded, and labels."""
        return LabelledSequences(
            index=torch.from_numpy(rows),
            source=self.sources[split].sequences(rows),
            label=torch.from_numpy(self.labels[split][rows]),
        )

    def accounting(self, split: str) -> Accounting:
        """Counts of positions and of sources cut to `max_length`."""
        rows = self.sources[split].rows
        return Accounting(
            examples=len(rows),
            positions=int(rows.lengths.sum()),
            truncated=self.sources[split].truncated,
            dropped=0,
        )

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean cross-entropy over rows; the class of the highest logit."""
        assert isinstance(batch, LabelledSequences)
        states = encoder(batch.source)
        logits_BK = self.head(pool(states, self.pooling)).float()
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits_BK, batch.label, label_smoothing=smoothing)
        predictions = [] if self.training else [self.classes[k] for k in logits_BK.argmax(1).tolist()]
        return Output(loss=auxiliary(loss, states), items=len(batch.label), predictions=predictions)

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


def class_names(targets: list[Any]) -> list[Any]:
    """Sorted names, all str, all int or all bool. Raises DataError for other types and for fewer than two classes."""
    kinds = {type(target) for target in targets}
    if len(kinds) != 1 or not kinds <= {str, int, bool}:
        raise DataError(
            "train: classes must be all text, all whole numbers or all true and false,"
            f" found {', '.join(sorted(k.__name__ for k in kinds))}"
        )
    names = sorted(set(targets))
    if len(names) < 2:
        raise DataError(f"train: classification needs two classes or more, found only {names}")
    return names
