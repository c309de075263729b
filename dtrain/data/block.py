"""A block with its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from dtrain.steplog.blocks import BlockMeta


class RawRecord(NamedTuple):
    """One Kafka record as it came, before decoding."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Block:
    """Decoded rows and their coordinates: `batch` has the task's schema and `meta.num_rows` rows."""

    meta: BlockMeta
    batch: pa.RecordBatch
