"""Forecasting: windows, standardisation, normalisation, and the head by independent computation."""
# B windows, W window, H horizon, C channels

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encoders.base import Encoder, Sequences, States
from tasks.data.base import DataError, DataSet, Example, FileFact, Stream
from tasks.data.ett import ETT, read_ett
from tasks.data.ett_calendar import ETTCalendar, calendar
from tasks.data.pinned import card
from tasks.forecasting import ForecastBatch, Forecasting
from tasks.metrics.errors import MAE, MSE

W, H = 6, 3


class Series(DataSet):
    """Given series, cut at two borders."""

    modality = "time series"

    def __init__(self, *series: NDArray[np.float64], borders: tuple[int, int] = (40, 60)) -> None:
        self.series, self.borders = series, borders

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None:
        return None

    def read(self, split: str) -> Sequence[Example]:
        a, b = self.borders
        begin, end = {"train": (0, a), "valid": (a, b), "test": (b, None)}[split]
        return [Example(source=rows[:begin], target=rows[begin:end]) for rows in self.series]


class Identity(Encoder):
    """The input is its states."""

    causal = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, source: Sequences) -> States:
        return States(values=source.values, mask=source.mask)


class Ahead(Encoder):
    """A state of the last row for each row that follows, times its number."""

    causal = True
    ahead = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, source: Sequences) -> States:
        number_H = torch.arange(1.0, H + 1)
        values = source.values[:, -1:] * number_H.view(1, -1, 1)
        return States(values=values, mask=source.mask.new_ones(values.shape[:2]))

    def num_states(self, length: int) -> int:
        return H


def series(rows: int = 80, channels: int = 2, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(3.0, 2.0, size=(rows, channels)).cumsum(axis=0)


def forecasting(data: DataSet, **changes: Any) -> Forecasting:
    arguments = {"window": W, "horizon": H, "channel_independent": True, "normalise": "none", **changes}
    task = Forecasting(data=data, metrics=[MSE(), MAE()], **arguments)
    task.setup()
    return task


def whole(task: Forecasting, split: str) -> ForecastBatch:
    return task.collate(split, np.arange(len(task.lengths(split))))


def predict(task: Forecasting, encoder: Encoder, split: str) -> list[Any]:
    task.eval()
    with torch.no_grad():
        return task(encoder, whole(task, split)).predictions


def test_windows_are_those_of_a_slow_loop_and_do_not_cross_series() -> None:
    one, two = series(seed=1), series(rows=70, seed=2)
    task = forecasting(Series(one, two))
    train = np.concatenate([one[:40], two[:40]])
    for split, begin in (("train", W), ("valid", 40), ("test", 60)):
        expected = []
        for rows in (one, two):
            end = {"train": 40, "valid": 60, "test": len(rows)}[split]
            scaled = (rows - train.mean(0)) / train.std(0)
            expected += [(scaled[t - W : t], scaled[t : t + H]) for t in range(begin, end - H + 1)]
        batch = whole(task, split)
        source = batch.source.values.unflatten(0, (-1, 2)).squeeze(-1).transpose(1, 2)
        np.testing.assert_allclose(source, np.stack([x for x, _ in expected]), atol=1e-5)
        np.testing.assert_allclose(batch.target, np.stack([y for _, y in expected]), atol=1e-5)
        np.testing.assert_array_equal(np.stack(task.references(split)), batch.target)
        assert task.accounting(split).examples == len(expected)
        assert task.lengths(split).tolist() == [2 * W] * len(expected)


def test_nothing_beyond_training_reaches_the_scale() -> None:
    rows = series()
    other = rows.copy()
    other[40:] *= 100
    a, b = forecasting(Series(rows)), forecasting(Series(other))
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(a.std, b.std)
    np.testing.assert_array_equal(a.rows["train"], b.rows["train"])


def test_a_constant_channel_becomes_zero() -> None:
    rows = series()
    rows[:, 1] = 7.0
    assert (forecasting(Series(rows)).rows["test"][:, 1] == 0).all()


def test_windows_are_views() -> None:
    task = forecasting(Series(series()))
    assert np.shares_memory(task.windows("train"), task.rows["train"])
    assert all(np.shares_memory(reference, task.rows["test"]) for reference in task.references("test"))


def test_the_head_is_one_linear_map_of_all_states_shared_by_channels() -> None:
    torch.manual_seed(0)
    task = forecasting(Series(series()))
    encoder = Identity(1)
    task.attach(encoder)
    assert task.head.weight.shape == (H, W)
    weight, bias = task.head.weight.detach().numpy(), task.head.bias.detach().numpy()
    begin = task.starts["test"][2]
    expected = weight @ task.rows["test"][begin : begin + W] + bias[:, None]
    np.testing.assert_allclose(predict(task, encoder, "test")[2], expected, atol=1e-6)


def test_channels_together_have_one_head_for_all() -> None:
    task = forecasting(Series(series()), channel_independent=False)
    encoder = Identity(2)
    task.attach(encoder)
    assert task.spec.channels == 2
    batch = whole(task, "test")
    np.testing.assert_array_equal(batch.source.values[:, -1], [r[0] for r in _before(task, "test")])
    assert task.head.weight.shape == (H * 2, W * 2)
    with torch.no_grad():
        output = task.eval()(encoder, batch)
        expected = task.head(batch.source.values.flatten(1)).unflatten(1, (H, 2))
    np.testing.assert_allclose(np.stack(output.predictions), expected, atol=1e-6)


@pytest.mark.parametrize("independent", [True, False])
def test_states_ahead_are_read_each_by_itself(independent: bool) -> None:
    torch.manual_seed(0)
    task = forecasting(Series(series()), channel_independent=independent)
    channels = 1 if independent else 2
    assert task.spec.target_length == task.outline().target_length == H
    encoder = Ahead(channels)
    task.attach(encoder)
    assert task.head.weight.shape == (channels, channels)
    weight, bias = task.head.weight.detach().numpy(), task.head.bias.detach().numpy()
    last = task.rows["test"][task.starts["test"][2] + W - 1]
    expected = [(t + 1) * (last * weight[0, 0] if independent else weight @ last) + bias for t in range(H)]
    np.testing.assert_allclose(predict(task, encoder, "test")[2], np.stack(expected), atol=1e-5)


def _before(task: Forecasting, split: str) -> list[NDArray[np.float32]]:
    return [task.rows[split][start + W - 1 : start + W] for start in task.starts[split]]


@pytest.mark.parametrize("independent", [True, False])
def test_loss_is_the_metric_and_the_mean_over_every_number(independent: bool) -> None:
    task = forecasting(Series(series()), channel_independent=independent)
    encoder = Identity(1 if independent else 2)
    task.attach(encoder)
    task.eval()
    with torch.no_grad():
        output = task(encoder, whole(task, "test"))
    score = task.score("test", dict(enumerate(output.predictions)))
    assert score["mse"].value == pytest.approx(float(output.loss), rel=1e-5)
    assert score["mse"].n == output.items == len(task.lengths("test"))


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("normalise", ["last", "instance"])
def test_a_shifted_window_gives_a_shifted_forecast(normalise: Literal["last", "instance"], independent: bool) -> None:
    task = forecasting(Series(series()), normalise=normalise, channel_independent=independent)
    encoder = Identity(1 if independent else 2)
    task.attach(encoder)
    before = np.stack(predict(task, encoder, "test"))
    shift = np.array([2.0, -1.0], dtype=np.float32)
    task.rows["test"] = task.rows["test"] + shift
    np.testing.assert_allclose(np.stack(predict(task, encoder, "test")), before + shift, atol=1e-4)
    task.rows["test"] = task.rows["test"] * 5
    if normalise == "instance":  # the scale goes through as well, but for the epsilon
        np.testing.assert_allclose(np.stack(predict(task, encoder, "test")), 5 * (before + shift), rtol=1e-2, atol=1e-2)


def test_a_head_of_zeros_repeats_the_last_value_or_the_mean() -> None:
    for normalise, expected in (("last", lambda x: x[-1]), ("instance", lambda x: x.mean(0))):
        task = forecasting(Series(series()), normalise=normalise)
        task.attach(Identity(1))
        torch.nn.init.zeros_(task.head.weight)
        torch.nn.init.zeros_(task.head.bias)
        begin = task.starts["test"][1]
        row = expected(task.rows["test"][begin : begin + W])
        np.testing.assert_allclose(predict(task, Identity(1), "test")[1], np.tile(row, (H, 1)), atol=1e-5)


def test_trivial_rules() -> None:
    task = forecasting(Series(series()))
    last = np.stack([r[0] for r in _before(task, "test")])
    truth = np.stack(task.references("test"))
    mse = {r: task.score("test", task.trivial(r, "test", 0))["mse"].value for r in sorted(task.rules)}
    assert mse["repeat_last"] == pytest.approx(((last[:, None] - truth) ** 2).mean(), rel=1e-5)
    assert mse["majority"] == pytest.approx((truth**2).mean(), rel=1e-5)
    assert mse["random"] == pytest.approx((truth**2).mean() + 1, rel=0.5)
    random = [task.trivial("random", "test", seed)[0].tolist() for seed in (0, 0, 1)]
    assert random[0] == random[1] != random[2]


@pytest.mark.parametrize("window, horizon", [(38, 3), (6, 21)])
def test_a_split_without_a_window_is_refused(window: int, horizon: int) -> None:
    with pytest.raises(DataError, match=rf"task\.window: {window} rows and task\.horizon: {horizon} rows do not fit"):
        forecasting(Series(series()), window=window, horizon=horizon)


def test_missing_values_are_refused() -> None:
    rows = series()
    rows[65, 1] = np.nan
    with pytest.raises(DataError, match="test split"):
        forecasting(Series(rows))


@pytest.mark.parametrize("line", ["2016-07-01 00:00:00,1,2,3,4,5,6,x", "2016-07-01 00:00:00,1,2,3"])
def test_a_broken_file_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ETTh1.csv"
    path.write_text("date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT\n2016-07-01 00:00:00,1,2,3,4,5,6,7\n" + line + "\n")
    with pytest.raises(DataError, match=r"ETTh1\.csv"):
        read_ett(path)
    path.write_text("date,OT\n")
    with pytest.raises(DataError, match="expected date,HUFL"):
        read_ett(path)


class Numbered(Series):
    """Series whose stream says the number of each row, twice."""

    streams: Mapping[str, Stream] = MappingProxyType({"time": Stream(channels=2)})
    shift = 0

    def read(self, split: str) -> Sequence[Example]:
        found = []
        for example in super().read(split):
            number_R = np.arange(len(example.source) + len(example.target) + self.shift)
            found.append(replace(example, streams={"time": np.stack([number_R, -number_R], 1)}))
        return found


@pytest.mark.parametrize("independent", [True, False])
def test_streams_are_those_of_window_and_horizon(independent: bool) -> None:
    task = forecasting(Numbered(series(seed=1), series(rows=70, seed=2)), channel_independent=independent)
    for outlined in (task.outline(), task.spec):
        assert outlined.streams["time"].channels == 2
        assert outlined.streams["time"].max_length == W + H
    for split, begin in (("train", W), ("valid", 40), ("test", 60)):
        ends = {"train": (40, 40), "valid": (60, 60), "test": (80, 70)}[split]
        first = [t - W for end in ends for t in range(begin, end - H + 1)]
        time = whole(task, split).source.streams["time"]
        expected = np.array(first)[:, None] + np.arange(W + H)
        if independent:
            expected = expected.repeat(2, axis=0)
        np.testing.assert_array_equal(time.values, np.stack([expected, -expected], 2))
        assert time.mask.all()


@pytest.mark.parametrize("normalise", ["none", "last", "instance"])
def test_streams_reach_the_encoder_as_they_are(normalise: str) -> None:
    task = forecasting(Numbered(series()), normalise=normalise, channel_independent=False)
    encoder = Identity(2)
    task.attach(encoder)
    fed: list[Sequences] = []
    encoder.register_forward_hook(lambda module, given, out: fed.append(given[0]))
    predict(task, encoder, "test")
    assert torch.equal(fed[0].streams["time"].values, whole(task, "test").source.streams["time"].values)


def test_streams_of_another_length_or_of_names_are_refused() -> None:
    data = Numbered(series())
    data.shift = 1
    with pytest.raises(DataError, match=r"stream time of the train split: \(41, 2\), \(40, 2\) finite is right"):
        forecasting(data)
    data.streams = {"time": Stream()}
    with pytest.raises(ValueError, match=r"Forecasting feeds streams of numbers; of \['time'\] not all are"):
        forecasting(data)


def test_the_calendar_is_that_of_the_standard_library() -> None:
    first = datetime(2016, 2, 28, 21)
    times = [first + timedelta(hours=i) for i in range(0, 400 * 24, 7)]
    expected = [(t.hour / 23, t.weekday() / 6, (t.day - 1) / 30, (t.timetuple().tm_yday - 1) / 365) for t in times]
    found = calendar(np.array([t.isoformat(sep=" ") for t in times], dtype="datetime64[s]"))
    np.testing.assert_allclose(found, np.array(expected) - 0.5, atol=1e-12)


@pytest.mark.data
def test_times_of_etth1_are_those_of_its_rows(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    plain, timed = ETT(series="ETTh1"), ETTCalendar(series="ETTh1")
    assert timed.identity() == plain.identity()
    for split, start, end in (("train", 0, 8640), ("valid", 8640, 11520), ("test", 11520, 14400)):
        (one,), (other,) = plain.read(split), timed.read(split)
        np.testing.assert_array_equal(one.source, other.source)
        np.testing.assert_array_equal(one.target, other.target)
        time = other.streams["time"]
        assert time.shape == (end, 4)
        at = datetime(2016, 7, 1) + timedelta(hours=start)  # the first row's, no hour missing
        expected = (at.hour / 23, at.weekday() / 6, (at.day - 1) / 30, (at.timetuple().tm_yday - 1) / 365)
        assert time[start].tolist() == pytest.approx([x - 0.5 for x in expected])


@pytest.mark.data
@pytest.mark.parametrize(
    "horizon, windows, mse, mae",
    [
        (24, 2857, 1.222, 0.671),
        (48, 2833, 1.267, 0.695),
        (96, 2785, 1.294, 0.713),
        (168, 2713, 1.325, 0.730),
        (336, 2545, 1.330, 0.746),
        (720, 2161, 1.335, 0.755),
    ],
)
def test_repeating_the_last_row_scores_as_published(
    horizon: int, windows: int, mse: float, mae: float, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeng et al. 2023, Table 2, has 1.295 and 0.713 for 96; the others are of a program of our own."""
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    task = forecasting(ETT(series="ETTh1"), window=96, horizon=horizon)
    means = [7.9377, 2.0210, 5.0798, 0.7462, 2.7818, 0.7885, 17.1283]
    np.testing.assert_allclose(task.mean, means, atol=6e-5)
    np.testing.assert_allclose(task.std, [5.8127, 2.0901, 5.5188, 1.9264, 1.0235, 0.6302, 9.1765], atol=6e-5)
    scores = task.score("test", task.trivial("repeat_last", "test", 0))
    assert scores["mse"].n == windows
    assert scores["mse"].value == pytest.approx(mse, abs=6e-4)
    assert scores["mae"].value == pytest.approx(mae, abs=6e-4)


@pytest.mark.data
@pytest.mark.parametrize("horizon, mse, mae", [(24, 0.424, 0.389), (96, 0.512, 0.433)])
def test_repeating_the_last_day_scores_as_counted_by_another_program(
    horizon: int, mse: float, mae: float, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    task = forecasting(ETT(series="ETTh1"), window=96, horizon=horizon)
    rows, ends = task.rows["test"], task.starts["test"] + 96
    days = {i: np.tile(rows[end - 24 : end], (horizon // 24, 1)) for i, end in enumerate(ends.tolist())}
    scores = task.score("test", days)
    assert scores["mse"].value == pytest.approx(mse, abs=6e-4)
    assert scores["mae"].value == pytest.approx(mae, abs=6e-4)
    if horizon == 96:  # the mean of training, which is 0
        zero = task.score("test", task.trivial("majority", "test", 0))
        assert zero["mse"].value == pytest.approx(1.110, abs=6e-4)


@pytest.mark.data
def test_etth1_is_cut_as_published(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    data = ETT(series="ETTh1")
    rows = read_ett(data_cache / "ett-small" / "ETTh1.csv")
    assert rows.shape == (17420, 7)
    assert rows[0].tolist() == pytest.approx([5.827, 2.009, 1.599, 0.462, 4.203, 1.340, 30.531], abs=1e-3)
    assert [len(data.read(split)) for split in ("train", "valid", "test")] == list(card("ett-small").splits.values())
    for horizon in (96, 720):
        task = forecasting(data, window=336, horizon=horizon)
        # as the official code counts: len(rows[border1:border2]) - window - horizon + 1, border1 = start - window
        assert [len(task.lengths(s)) for s in ("train", "valid", "test")] == [
            8640 - 336 - horizon + 1,
            2880 - horizon + 1,
            2880 - horizon + 1,
        ]
    scaled = (rows - rows[:8640].mean(0)) / rows[:8640].std(0)
    batch = task.collate("test", np.array([0, 2160]))
    np.testing.assert_allclose(batch.source.values[:7, :, 0].T, scaled[11520 - 336 : 11520], atol=1e-5)
    np.testing.assert_allclose(batch.target[1], scaled[11520 + 2160 : 14400], atol=1e-5)


@pytest.mark.data
@pytest.mark.slow
def test_memory_is_not_one_window_a_row(data_cache: Path) -> None:
    """All 8,209 windows of 432 x 7 numbers as copies would be 99 MB."""
    program = (
        "import tracemalloc; from tasks.data.ett import ETT; from tasks.forecasting import Forecasting;"
        "from tasks.metrics.errors import MSE; tracemalloc.start();"
        "t = Forecasting(data=ETT(series='ETTh1'), metrics=[MSE()], window=336, horizon=96,"
        " channel_independent=True, normalise='none'); t.setup(); t.references('train');"
        "print(tracemalloc.get_traced_memory()[0])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={"SEQBENCH_DATA": str(data_cache), "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(found.stdout) < 20e6
