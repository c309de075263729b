"""Losses: where a topic is not what a job that goes on needs. Said by partition and range, with the place at which records are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtrain.clock import Clock
from dtrain.errors import DataLossError
from dtrain.steplog.moves import Move
from dtrain.steplog.positions import Mark, Partition, Position, Positions
from dtrain.stream.log import Bounds, Identity, Log

GRACE_S = 3.0
"""How long a broker may take after its return to show again all that it had, before that counts as lost."""

WAYS_OUT = "go on from where records are left, which is logged: dtrain resume JOB --allow-gap; or start a new job"
NOT_ALL_THERE = "begin with a later checkpoint, behind which all rows are there"

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Loss:
    """What is wrong in one partition.

    Args:
        move: how a job gets past it.
        words: what is told to a person.
        may_heal: a broker that has just returned may seem to have lost this.
    """

    move: Move
    words: str
    may_heal: bool = False


def find_losses(
    log: Log,
    positions: Positions,
    *,
    topic_ids: Mapping[str, str],
    stops: Positions | None = None,
    now: Identity | None = None,
    clock: Clock,
) -> list[Loss]:
    """Where not everything at and behind `positions` can be read, in a topic of these ids, and is there up to `stops`; `now`: what the
    log was just described as, where that is known.

    Blocking: for `GRACE_S` more, where a broker that just returned may seem to have lost something.
    """
    deadline_s = clock.monotonic_s() + GRACE_S
    while True:
        ids = (now or log.describe()).topic_ids if positions else {}
        found = _find(log, positions, ids=ids, topic_ids=topic_ids, stops=stops or positions) if positions else []
        now = None
        if not all(loss.may_heal for loss in found) or not found or clock.monotonic_s() > deadline_s:
            return found
        clock.sleep(0.2)


def changed(partition: Partition, place: Position, mark: Mark, crcs: Mapping[int, int]) -> Loss | None:
    """What is wrong where the record at the mark is another one; that it is gone is no wrong."""
    if crcs.get(mark.offset, mark.crc) == mark.crc:
        return None
    words = f"{partition}: the record at offset {mark.offset} is another one than the job read"
    return Loss(Move(partition, place, place, "changed"), words)


def begun(partition: Partition, place: Position, crcs: Mapping[int, int]) -> Loss | None:
    """What is wrong where the record is gone in whose middle the position stands."""
    if place.offset in crcs:
        return None
    words = f"{partition}: the record at offset {place.offset} is gone, and its rows from {place.row} on are not trained"
    return Loss(Move(partition, place, Position(place.offset + 1), "deleted"), words)


def check(losses: Sequence[Loss], *, fix: str) -> None:
    """Return if there are none.

    Raises:
        DataLossError: names partitions and ranges.
    """
    if losses:
        words = [loss.words for loss in losses[:_SHOWN]]
        if len(losses) > _SHOWN:
            words.append(f"and {len(losses) - _SHOWN} more partitions")
        raise DataLossError("; ".join(words), fix=fix)


def _find(
    log: Log, positions: Positions, *, ids: Mapping[str, str], topic_ids: Mapping[str, str], stops: Positions
) -> list[Loss]:
    bounds = log.bounds(positions)
    found = [_gone(p, positions[p]) for p in sorted(positions) if p.topic not in ids]
    for partition in sorted(p for p in positions if p.topic in ids):
        position, bound = positions[partition], bounds.get(partition)
        known, now = topic_ids.get(partition.topic), ids[partition.topic]
        if known not in (None, now):
            found.append(_recreated(partition, position, bound, words=f"made anew (id {now}, not {known})"))
        elif bound is None:
            words = f"{partition}: the topic has no such partition any more"
            found.append(Loss(Move(partition, position, None, "gone"), words, may_heal=True))
        elif position.offset < bound.begin:
            words = (
                f"{partition}: records from offset {position.offset} to {bound.begin - 1} were deleted before they were trained"
            )
            found.append(Loss(Move(partition, position, Position(bound.begin), "deleted"), words))
        elif (stop := stops[partition]).offset > bound.end:
            words = f"{partition}: the job was at offset {stop.offset}, but the topic ends at {bound.end}: it was cut short"
            found.append(Loss(Move(partition, position, Position(bound.end), "truncated"), words, may_heal=True))
    return found


def _gone(partition: Partition, position: Position) -> Loss:
    words = f"{partition}: the topic was deleted; the job was at offset {position.offset}"
    return Loss(Move(partition, position, None, "gone"), words, may_heal=True)


def _recreated(partition: Partition, position: Position, bound: Bounds | None, *, words: str) -> Loss:
    end = Position(bound.begin) if bound else None
    move = Move(partition, position, end, "recreated")
    return Loss(move, f"{partition}: the topic is not the one that the job read up to offset {position.offset}: it was {words}")
