"""Forecasting: from a window of a series its next `horizon` rows, over every window of a split."""
# B windows, W window, H horizon, C channels, L' states, D encoder.dim, R rows of all series of a split, N windows

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences
from tasks.base import Accounting, Batch, DataError, Output, Task
from tasks.data.base import SPLITS, DataSet, Example
from tasks.metrics.base import Metric

EPSILON = 1e-5  # added to a window's variance, as RevIN has it


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastBatch(Batch):
    """Windows and what comes after them."""

    source: Sequences  # (B * C, W, 1) where channels are independent, else (B, W, C)
    target: Tensor  # (B, H, C) float32, standardised


class Forecasting(Task):
    """Forecast `horizon` rows from `window` rows, by one linear map of all states of the window.

    An encoder whose states are those of the horizon (`Encoder.ahead`) is read by one linear map of each state.

    A data set gives series: `source` the rows before a split (empty for training), `target` the split's own rows, both
    (rows, C). A window's forecast lies in the split's own rows, and its input may look back into the rows before; every
    such window counts, one a row, in evaluation as in training. Rows are standardised with mean and standard deviation
    of the training rows, and scores are on that scale: the protocol of Zhou et al. 2021, arXiv 2012.07436, as the
    official code of Zeng et al. 2023 (arXiv 2205.13504) has it, whose last batch of a split is not dropped.

    `channel_independent`: each channel is a sequence of its own under shared weights (Nie et al. 2023,
    arXiv 2211.14730, section 3.1); otherwise the channels of a row are one input vector. `normalise`: `last` subtracts
    a window's last value and adds it back (NLinear, arXiv 2205.13504, section 4); `instance` also divides by the
    window's standard deviation, after subtracting its mean (RevIN without its affine map, Kim et al. 2022).

    Streams of numbers that a data set gives for the rows of a series, those before the split first (calendar features,
    say), are fed as they are, for the window and for the horizon: what they say must be known ahead.

    Predictions are (horizon, C) float32 arrays on the standardised scale. The head has L' D H weights, times C^2 / C
    where channels are not independent. Raises DataError for a split that has no whole window.
    """

    feeds_streams = True
    rules = frozenset({"majority", "random", "repeat_last"})

    def __init__(
        self,
        *,
        data: DataSet,
        metrics: list[Metric],
        window: Annotated[int, Field(gt=0)],
        horizon: Annotated[int, Field(gt=0)],
        channel_independent: bool,
        normalise: Literal["none", "last", "instance"],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        self.declared = {name: stream.channels for name, stream in data.streams.items()}
        if not all(self.declared.values()):
            raise ValueError(f"task.data: Forecasting feeds streams of numbers; of {sorted(self.declared)} not all are")
        self.window, self.horizon = window, horizon
        self.channel_independent, self.normalise = channel_independent, normalise
        self.rows: dict[str, NDArray[np.float32]] = {}  # split -> (R, C), standardised, its series after one another
        self.beside: dict[str, dict[str, NDArray[np.float32]]] = {}  # split -> stream -> (R, S), rows as in self.rows
        self.starts: dict[str, NDArray[np.int64]] = {}  # split -> (N,), row where the window begins
        self.mean: NDArray[np.float64]  # (C,)
        self.std: NDArray[np.float64]  # (C,)

    def outline(self) -> InputSpec:
        """One channel, or a stand-in of two."""
        return self._spec(2)

    def _spec(self, channels: int) -> InputSpec:
        channels = 1 if self.channel_independent else channels
        both = self.window + self.horizon
        streams = {name: InputSpec(max_length=both, channels=number) for name, number in self.declared.items()}
        return InputSpec(max_length=self.window, channels=channels, target_length=self.horizon, streams=streams)

    # -- data ----------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Standardise by the training rows and list the windows."""
        train = np.concatenate([np.asarray(example.target, dtype=np.float64) for example in self.examples["train"]])
        if train.ndim != 2:
            raise DataError(f"task.data: a series is rows by channels, this one has {train.ndim} axes")
        self.mean, std = train.mean(axis=0), train.std(axis=0)
        self.std = np.where(std > 0, std, 1.0)  # a constant channel becomes 0
        for split in SPLITS:
            self._window(split)
        self.channels = train.shape[1]
        self.spec = self._spec(self.channels)

    def _window(self, split: str) -> None:
        rows: list[NDArray[np.float32]] = []
        starts: list[NDArray[np.int64]] = []
        beside: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.declared}
        before = 0
        for example in self.examples[split]:
            own = np.asarray(example.target, dtype=np.float64)
            if not np.isfinite(own).all():
                raise DataError(f"task.data: the {split} split has missing or infinite values")
            back = np.asarray(example.source, dtype=np.float64)[-self.window :].reshape(-1, own.shape[1])
            series = (np.concatenate([back, own]) - self.mean) / self.std
            count = max(0, len(series) - self.window - self.horizon + 1)
            starts.append(before + np.arange(count, dtype=np.int64))
            rows.append(series.astype(np.float32))
            for name, values in beside.items():
                values.append(self._stream(name, example, split)[-len(series) :])
            before += len(series)
        self.beside[split] = {name: np.concatenate(values) for name, values in beside.items()}
        self.rows[split], self.starts[split] = np.concatenate(rows), np.concatenate(starts)
        if not len(self.starts[split]):
            raise DataError(
                f"task.window: {self.window} rows and task.horizon: {self.horizon} rows do not fit into the {split}"
                f" split, whose longest series has {max(map(len, rows))}"
            )

    def _stream(self, name: str, example: Example, split: str) -> NDArray[np.float32]:
        """A stream of a series: a row for each of those before the split and of its own."""
        shape = (len(example.source) + len(example.target), self.declared[name])
        values = np.asarray(example.streams.get(name, ()), dtype=np.float32)
        if values.shape != shape or not np.isfinite(values).all():
            raise DataError(f"task.data: stream {name} of the {split} split: {values.shape}, {shape} finite is right")
        return values

    def windows(self, split: str) -> NDArray[np.float32]:
        """A view, no copy: at each row of the split the C x (window + horizon) rows that begin there."""
        return sliding_window_view(self.rows[split], self.window + self.horizon, axis=0)

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions that a window feeds: `window`, by channel where each is a sequence of its own."""
        fed = self.window * (self.channels if self.channel_independent else 1)
        return np.full(len(self.starts[split]), fed, dtype=np.int64)

    def accounting(self, split: str) -> Accounting:
        """Every window, whole."""
        positions = int(self.lengths(split).sum())
        return Accounting(examples=len(self.starts[split]), positions=positions, truncated=0, dropped=0)

    def collate(self, split: str, rows: NDArray[np.int64]) -> ForecastBatch:
        """Windows by number."""
        both_BCL = self.windows(split)[self.starts[split][rows]]
        values_BCW = torch.from_numpy(np.ascontiguousarray(both_BCL[:, :, : self.window]))
        if self.channel_independent:
            values = values_BCW.flatten(0, 1).unsqueeze(-1)
        else:
            values = values_BCW.transpose(1, 2).contiguous()
        target_BHC = torch.from_numpy(np.ascontiguousarray(both_BCL[:, :, self.window :].transpose(0, 2, 1)))
        streams = {name: self._beside(split, name, rows) for name in self.declared}
        return ForecastBatch(
            index=torch.from_numpy(rows),
            source=Sequences(values=values, mask=torch.ones(values.shape[:2], dtype=torch.bool), streams=streams),
            target=target_BHC,
        )

    def _beside(self, split: str, name: str, rows: NDArray[np.int64]) -> Sequences:
        """A stream of window and horizon, (B', W + H, S), for each channel where they are independent."""
        both = sliding_window_view(self.beside[split][name], self.window + self.horizon, axis=0)
        values_BLS = torch.from_numpy(np.ascontiguousarray(both[self.starts[split][rows]].transpose(0, 2, 1)))
        if self.channel_independent:
            values_BLS = values_BLS.repeat_interleave(self.channels, 0)
        return Sequences(values=values_BLS, mask=torch.ones(values_BLS.shape[:2], dtype=torch.bool))

    # -- with an encoder -----------------------------------------------------------------------------------------
    def attach(self, encoder: Encoder) -> None:
        """One linear map from all states of a window to its forecast, or from each state ahead to its row."""
        channels = 1 if self.channel_independent else self.channels
        if encoder.ahead:
            self.head = nn.Linear(encoder.dim, channels)
        else:
            self.head = nn.Linear(encoder.num_states(self.window) * encoder.dim, self.horizon * channels)

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean squared error over windows, horizon and channels."""
        assert isinstance(batch, ForecastBatch)
        source, shift, scale = self._normalised(batch.source)
        states = encoder(source)
        y = self.head(states.values if encoder.ahead else states.values.flatten(1)).flatten(1)
        if self.channel_independent:
            y_BHC = (y.unsqueeze(-1) * scale + shift).squeeze(-1).unflatten(0, (len(batch.index), -1)).transpose(1, 2)
        else:
            y_BHC = y.unflatten(1, (self.horizon, self.channels)) * scale + shift
        loss = sum(states.losses.values(), F.mse_loss(y_BHC, batch.target))
        predictions = [] if self.training else list(y_BHC.detach().float().cpu().numpy().copy())
        return Output(loss=loss, items=len(batch.index), predictions=predictions)

    def _normalised(self, source: Sequences) -> tuple[Sequences, Tensor, Tensor]:
        """The windows as they are fed, and shift and scale (B', 1, C') that bring a forecast back."""
        values = source.values
        shift, scale = torch.zeros_like(values[:, :1]), torch.ones_like(values[:, :1])
        if self.normalise == "last":
            shift = values[:, -1:]
        elif self.normalise == "instance":
            shift = values.mean(dim=1, keepdim=True)
            scale = (values.var(dim=1, keepdim=True, unbiased=False) + EPSILON).sqrt()
        if self.normalise != "none":
            source = replace(source, values=(values - shift) / scale)
        return source, shift, scale

    # -- scores --------------------------------------------------------------------------------------------------
    def references(self, split: str) -> list[Any]:
        """What follows each window, (horizon, C) views."""
        rows = self.rows[split]
        first = self.starts[split] + self.window
        return [rows[start : start + self.horizon] for start in first]

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`repeat_last` the window's last row; `majority` the training mean; `random` noise of its mean and spread."""
        if rule not in self.rules:
            return super().trivial(rule, split, seed)
        count, shape = len(self.starts[split]), (self.horizon, self.channels)
        if rule == "repeat_last":
            last = self.rows[split][self.starts[split] + self.window - 1]
            return {row: np.broadcast_to(last[row], shape) for row in range(count)}
        if rule == "majority":
            mean = np.zeros(shape, dtype=np.float32)
            return dict.fromkeys(range(count), mean)
        generator = np.random.default_rng(seed)
        return {row: generator.standard_normal(shape, dtype=np.float32) for row in range(count)}
