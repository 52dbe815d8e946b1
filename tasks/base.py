"""The contract of tasks: one column of a board, from examples to scores."""
# B batch, N examples of a split

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, part_losses
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.loading import WHOLE, Batching, Loader, Share, sample_rows
from tasks.metrics.base import Metric, Statistics

__all__ = ["Accounting", "Batch", "DataError", "Output", "Score", "Task"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a loader yields; each task kind adds its own named fields (source: Sequences; label: Tensor; ...)."""

    index: Tensor  # (B,) int64, row of the split: joins a prediction to its example

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(*args, **kwargs) for k, v in moved.items() if hasattr(v, "to")})


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What a task makes of a batch."""

    loss: Tensor  # (), mean over the items that count, auxiliary losses of the encoder added
    items: int  # how many (rows, tokens, steps): the weight, so that means add up exactly
    predictions: list[Any] = field(default_factory=list)  # one per row, in the data set's own terms; [] while training


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One metric over one split."""

    metric: Metric
    value: float
    n: int  # examples that it is over: all of the split, always
    statistics: Statistics  # per example, row i for example i


@dataclass(frozen=True, kw_only=True, slots=True)
class Accounting:
    """What became of a split's examples: nothing is cut or left out silently."""

    examples: int
    positions: int  # real positions fed to the encoder (targets included where they are fed)
    truncated: int  # examples that were cut to max_length
    dropped: int  # examples left out, always 0 outside training


class Task(nn.Module, ABC):
    """Data + head + loss + decoding + score of one board column. Knows encoders only as Encoder and Decoder.

    Life of one: constructed (reads nothing) -> check() -> setup() (reads, fits tokenisers on the training split,
    sets `spec`) -> attach(encoder) (makes the head) -> loader, forward, score.
    """

    version: ClassVar[int] = 1  # goes up whenever scores change
    needs: type[Encoder] = Encoder  # type: ignore[type-abstract]  # Decoder, for a task that generates
    needs_causal: ClassVar[bool] = False  # True, for language modelling
    needs_all_positions: ClassVar[bool] = False  # True where each position has its own target: no patches
    names_a_class: ClassVar[bool] = False  # True where a prediction is one of a few classes, the example's
    feeds_streams: ClassVar[bool] = False  # True where named streams of the data set reach the encoder
    rules: ClassVar[frozenset[str]] = frozenset()  # trivial predictors that `trivial` knows

    spec: InputSpec  # set by setup()

    def __init__(self, *, data: DataSet, metrics: Sequence[Metric]) -> None:
        super().__init__()
        if not metrics:
            raise ValueError("metrics: a task needs at least one; the first is its headline")
        if data.streams and not self.feeds_streams:
            raise ValueError(
                f"data: gives the streams {', '.join(sorted(data.streams))}, {type(self).__name__} feeds none;"
                " take them out of task.data"
            )
        self.data = data
        self.metrics = list(metrics)
        self.register_forward_hook(_with_part_losses)
        self.examples: dict[str, Sequence[Example]] = {}

    # -- before data ---------------------------------------------------------------------------------------------
    @abstractmethod
    def outline(self) -> InputSpec:
        """The spec as far as it is known without data; vocabulary, channels and lengths may be stand-ins.

        An encoder is built with it on torch's meta device, so that an unfit pair fails before data is read.
        """

    def check_encoder(self, encoder: Encoder) -> None:  # most have nothing to add
        """Raise ValueError, in one line, for an encoder that can't be read, beyond what `needs` and its like say.

        Called before data is read, of an encoder on the meta device; what data alone can tell, `attach` refuses.
        """

    @property
    def headline(self) -> Metric:
        """The metric that ranks, stops and selects."""
        return self.metrics[0]

    # -- with data -----------------------------------------------------------------------------------------------
    def setup(self, *, withhold: bool = False) -> None:
        """Read every split and prepare it. Raises DataError for an empty split and for what readers find.

        With `withhold` the test split is not read: the validation split stands in its place, and nobody scores it.
        """
        for split in SPLITS:
            if withhold and split == "test":
                self.examples[split] = self.examples["valid"]
                continue
            examples = self.data.read(split)
            if not len(examples):
                raise DataError(f"task.data: the {split} split has no examples")
            self.examples[split] = examples
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """From self.examples: fit on the training split, encode all three, set `spec`."""

    @abstractmethod
    def attach(self, encoder: Encoder) -> None:
        """Make the head, once the encoder's width (and causality, number of states) is known."""

    @abstractmethod
    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each row of the split, (N,): what batches are budgeted by."""

    @abstractmethod
    def collate(self, split: str, rows: NDArray[np.int64]) -> Batch:
        """The rows of the split as a padded batch on the CPU. A pure function, safe in worker processes."""

    @abstractmethod
    def accounting(self, split: str) -> Accounting:
        """Counts of what is fed and what was cut."""

    def loader(
        self, split: str, *, batching: Batching, seed: int, shuffle: bool, workers: int = 0, share: Share = WHOLE
    ) -> Loader:
        """Batches of the split, or this rank's share; shuffled in an order that is a pure function of (seed, epoch)."""
        return Loader(
            lengths=self.lengths(split),
            collate=_Collate(self, split),
            batching=batching,
            seed=seed,
            shuffle=shuffle,
            workers=workers,
            share=share,
        )

    # -- with an encoder -----------------------------------------------------------------------------------------
    @abstractmethod
    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Loss, the encoder's own terms (States.losses) in it; outside training (self.training False) predictions.

        The losses of the encoder's parts are added to what it returns, so that no encoder or task can forget them.
        """

    # -- without one ---------------------------------------------------------------------------------------------
    def references(self, split: str) -> list[Any]:
        """What predictions are compared with, one per example."""
        return [example.target for example in self.examples[split]]

    def score(self, split: str, predictions: dict[int, Any], *, limit: int | None = None) -> dict[str, Score]:
        """Scores by metric name, headline first. A pure function: no model, no device.

        `predictions` must hold every row of the split (with a limit: of `sample_rows(n, limit)`), else ValueError.
        """
        every = self.references(split)
        rows = sample_rows(len(every), limit).tolist()
        references = [every[row] for row in rows]
        missing = [row for row in rows if row not in predictions]
        if missing:
            raise ValueError(
                f"{split}: {len(missing)} of {len(references)} rows have no prediction, first {missing[0]}"
            )
        ordered = [predictions[row] for row in rows]
        scores = {}
        for metric in self.metrics:
            statistics = metric.statistics(ordered, references)
            value = metric.aggregate(statistics)
            scores[metric.name] = Score(metric=metric, value=value, n=len(references), statistics=statistics)
        return scores

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """Predictions by one of `rules`, learnt on the training split alone: the floor of a board."""
        raise ValueError(f"{type(self).__name__} has no trivial rule {rule!r}; it has {sorted(self.rules)}")


def _with_part_losses(task: nn.Module, given: tuple[Any, ...], output: Output) -> Output | None:
    """After forward(): the loss with those of the encoder's parts, which have some in training alone."""
    losses = part_losses(given[0]) if given[0].training else []
    return replace(output, loss=output.loss + sum(losses)) if losses else None


class _Collate:
    """A task's collate bound to a split (a class, so that worker processes can receive it)."""

    def __init__(self, task: Task, split: str) -> None:
        self.task, self.split = task, split

    def __call__(self, rows: NDArray[np.int64]) -> Batch:
        return self.task.collate(self.split, rows)
