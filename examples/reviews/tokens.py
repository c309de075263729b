"""From a review's text to the ids of its words: the decoder that makes rows of messages in the reader's process."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from dtrain.data.block import RawRecord

NUM_WORDS = 8192
LENGTH = 48
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[!?]")


def decode(records: Sequence[RawRecord]) -> pa.RecordBatch:
    """A row of each record, whose value is `{"review": text, "recommended": 0 or 1}`. What raises becomes a bad record."""
    reviews = [json.loads(record.value or b"") for record in records]
    labels = pa.array([float(review["recommended"]) for review in reviews], pa.float32())
    return pa.RecordBatch.from_arrays(
        [words_of(review["review"] for review in reviews), labels], names=["words", "recommended"]
    )


def words_of(texts: Iterable[str]) -> pa.FixedSizeListArray:
    """The first words of each text as ids from 1 to NUM_WORDS - 1, the rest zeros: [texts, LENGTH].

    An id is a hash, CRC-32, so that no vocabulary has to be known before the stream is; two words may share one.
    """
    rows = [
        [1 + zlib.crc32(word.encode()) % (NUM_WORDS - 1) for word in _WORD.findall(text.lower())[:LENGTH]] for text in texts
    ]
    ids = np.zeros((len(rows), LENGTH), np.int64)
    for row, words in zip(ids, rows, strict=True):
        row[: len(words)] = words
    return pa.FixedSizeListArray.from_arrays(pa.array(ids.reshape(-1)), LENGTH)
