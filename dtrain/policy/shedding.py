"""Shedding: what is passed over when training cannot keep up."""

from __future__ import annotations

from collections.abc import Mapping

from dtrain.policy.cutting import Cutter
from dtrain.steplog.moves import Change, Move
from dtrain.steplog.positions import Partition, Position


def shed(cutter: Cutter, *, end_offsets: Mapping[Partition, int], over_s: float, now_s: float) -> Change:
    """To the end of each partition of which a whole block has waited for too long.

    Args:
        cutter: what has come and waits.
        end_offsets: newest known ends.
        over_s: how old a record may get, by its timestamp.
        now_s: wall time.
    """
    late = {p: head for p, head in sorted(cutter.heads.items()) if 0 < head.newest_ms < (now_s - over_s) * 1000}
    ends = {p: max(head.end, Position(end_offsets.get(p, 0))) for p, head in late.items()}
    return Change(tuple(Move(p, cutter.positions[p], end, "lag") for p, end in ends.items()))
