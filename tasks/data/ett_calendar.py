"""ETT with the calendar: what hour, weekday and day each row is of, known ahead of a forecast."""
# R rows

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.data.base import DataError, DataSet, Example, FileFact, Stream
from tasks.data.ett import BORDERS, ETT
from tasks.data.pinned import check_files


class ETTCalendar(DataSet):
    """ETT whose examples have a stream `time` of 4 numbers for each row, those before a split first, then its own.

    Hour of the day, day of the week, of the month and of the year, each in [-0.5, 0.5]: the features of hourly rows of
    Zhou et al. 2021 (arXiv 2012.07436; `timeF` of the official code).
    """

    modality = "time series"
    streams: Mapping[str, Stream] = MappingProxyType({"time": Stream(channels=4)})

    def __init__(self, *, series: Literal["ETTh1", "ETTh2"]) -> None:
        self.series = ETT(series=series)

    def identity(self) -> list[FileFact]:
        """The one file of the series."""
        return self.series.identity()

    def check(self) -> None:
        """Fetch or check the file."""
        self.series.check()

    def read(self, split: str) -> Sequence[Example]:
        """The split as ETT has it, with the times of its rows and of all before."""
        name = f"{self.series.series}.csv"
        with check_files("ett-small", only=[name])[name].open(encoding="utf-8", newline="") as file:
            dates = [row[0] for row in csv.reader(file)][1 : BORDERS[split][1] + 1]
        try:
            times_R = np.array(dates, dtype="datetime64[s]")
        except ValueError as error:
            raise DataError(f"ett-small: {name}: {error}") from None
        return [replace(example, streams={"time": calendar(times_R)}) for example in self.series.read(split)]


def calendar(times_R: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Hour, weekday (Monday first), day of month, day of year of each time, (R, 4), each scaled to [-0.5, 0.5]."""
    day_R = times_R.astype("datetime64[D]")
    hour_R = (times_R - day_R) // np.timedelta64(1, "h")
    weekday_R = (day_R.astype(np.int64) + 3) % 7  # 1970 began on a Thursday
    of_month_R, of_year_R = (day_R - day_R.astype(f"datetime64[{unit}]") for unit in "MY")
    parts = ((hour_R, 23), (weekday_R, 6), (of_month_R, 30), (of_year_R, 365))
    return np.stack([part_R.astype(np.int64) / most - 0.5 for part_R, most in parts], axis=1)
