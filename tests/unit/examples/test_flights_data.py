from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from examples.flights import data
from examples.flights.flights import NUM_IDS, DelayTask
from examples.flights.produce import MESSAGE_ROWS, NUM_PARTITIONS, end_offsets, messages

FLIGHT = {
    "year": 2013, "month": 3, "day": 2, "sched_dep_time": 1745, "sched_arr_time": 10, "arr_delay": 3,
    "carrier": "UA", "flight": 7, "origin": "EWR", "dest": "IAH", "distance": 1400,
}  # fmt: skip


def encoded(**changes: object) -> dict[str, object]:
    raw = pa.Table.from_pylist(
        [FLIGHT | changes],
        schema=pa.schema([(k, pa.string() if isinstance(v, str) else pa.int64()) for k, v in FLIGHT.items()]),
    )
    row: dict[str, object] = data.encode(raw).to_pylist()[0]
    return row


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    return data.flights()


def test_flights_are_all_there_in_the_order_of_the_schedule(flights: pa.Table) -> None:
    schedule = data.schedule()
    when = (
        schedule["month"].to_numpy() * 1_000_000 + schedule["day"].to_numpy() * 10_000 + schedule["sched_dep_time"].to_numpy()
    )
    assert flights.num_rows == 336_776
    assert (np.diff(when) >= 0).all()
    assert (flights["row"].to_numpy() == np.arange(336_776)).all()


def test_flights_hold_what_the_task_asks_for_and_nothing_missing(flights: pa.Table) -> None:
    for field in DelayTask.features.fields:
        assert (
            flights[field.name].type == pa.list_(pa.float32(), *field.shape)
            if field.shape
            else flights[field.name].type == field.arrow_type
        )
    assert all(column.null_count == 0 for column in flights.columns)


def test_ids_fit_the_embeddings_of_the_task(flights: pa.Table) -> None:
    assert data.BUCKETS == NUM_IDS
    assert all(flights[name].to_numpy().min() >= 0 and flights[name].to_numpy().max() < size for name, size in NUM_IDS.items())


@pytest.mark.parametrize(("delay", "late"), [(15, 0.0), (16, 1.0), (-20, 0.0), (None, 1.0)])
def test_label_is_late_when_more_than_15_minutes_or_never_arrived(delay: int | None, late: float) -> None:
    assert encoded(arr_delay=delay)["late"] == late


def test_features_do_not_depend_on_what_is_known_only_later() -> None:
    before, later = encoded(arr_delay=3), encoded(arr_delay=None)
    assert {k: v for k, v in before.items() if k != "late"} == {k: v for k, v in later.items() if k != "late"}


def test_weekday_of_a_saturday_is_5() -> None:
    assert encoded(month=3, day=2)["weekday"] == 5


@pytest.mark.parametrize("num_rows", [1, MESSAGE_ROWS, MESSAGE_ROWS + 1, 5 * MESSAGE_ROWS + 3])
def test_messages_hold_every_row_once_and_end_where_end_offsets_says(num_rows: int) -> None:
    rows, sent = [], dict.fromkeys(range(NUM_PARTITIONS), 0)
    for partition, count, value in messages(pa.table({"row": pa.array(range(num_rows))})):
        read = pa.ipc.open_stream(value).read_all()["row"].to_pylist()
        assert len(read) == count
        rows += read
        sent[partition] += 1
    assert rows == list(range(num_rows))
    assert sent == end_offsets(num_rows)
