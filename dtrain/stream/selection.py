"""Selection: which of a broker's topics and partitions a job reads."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition


def topics_of(spec: SourceSpec, existing: Iterable[str]) -> list[str]:
    """Those of `existing` that the spec names or its pattern matches; a pattern never means Kafka's own or the dead letters'."""
    if not spec.pattern:
        return [name for name in spec.named_topics if name in set(existing)]
    letters = spec.dead_letters.send_to if spec.dead_letters is not None else None
    pattern = re.compile(spec.pattern)
    return sorted(name for name in existing if name != letters and not name.startswith("__") and pattern.fullmatch(name))


def is_chosen(spec: SourceSpec, partition: Partition) -> bool:
    """Whether the spec wants this partition of a topic that it reads."""
    return not spec.partitions or partition.number in spec.partitions
