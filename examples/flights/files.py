"""The flights as files, one a month: `python -m examples.flights.files build/flights` writes 2013-01.parquet … 2013-12.parquet."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq

from examples.flights.data import flights, month_starts


def write(folder: Path, *, months: int = 12) -> int:
    """The first `months` months are files in `folder`; how many rows they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    table = flights()
    starts = [*month_starts(), table.num_rows][: months + 1]
    for month, (first, stop) in enumerate(pairwise(starts), 1):
        pq.write_table(table.slice(first, stop - first), folder / f"2013-{month:02}.parquet", row_group_size=8192)
    return starts[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--months", type=int, default=12, help="How many, from January on.")
    args = parser.parse_args()
    print(f"{write(args.folder, months=args.months)} flights in {args.folder}")


if __name__ == "__main__":
    main()
