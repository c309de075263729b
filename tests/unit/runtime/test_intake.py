"""From where readers follow, and what they look at first."""

from __future__ import annotations

from dataclasses import replace

from dtrain.checkpoint.store import CheckpointStore
from dtrain.policy.blocking import Size
from dtrain.policy.cutting import Cutter
from dtrain.runtime.intake import Reading
from dtrain.runtime.planner import Planner
from dtrain.steplog.positions import Mark, Position
from dtrain.stream.log import Identity
from tests.support.blocks import block
from tests.support.checkpoints import BEGIN, PARTITIONS, make_manifest
from tests.support.memory_files import MemoryFiles

HERE, THERE = PARTITIONS


def test_following_checks_the_last_records_that_came_in_this_attempt() -> None:
    """Not those that its checkpoint knows: a topic may be cut short and grow again behind those, while nobody looks."""
    cutter = Cutter(positions=BEGIN.positions, ends=None, rows=100, max_wait_s=1.0, is_strict=False, step=0)
    planner = Planner(cutter, progress=BEGIN, budget=None, buffer=Size(100, 1 << 20))
    manifest = replace(make_manifest(CheckpointStore(MemoryFiles()), 1, BEGIN), identity=Identity({"events": "x"}).to_json())
    reading = Reading(planner, manifest, on_blocks=print, on_change=print, on_error=print)
    planner.add_blocks([block(HERE, 0, 7), block(THERE, 0, 5)], "rows", now_s=0.0)
    following = reading.following([HERE])
    assert following.positions == {HERE: Position(7)}
    assert following.marks == {HERE: Mark(6, 6)}
