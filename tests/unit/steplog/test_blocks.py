"""Block descriptors against a model that counts row by row."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from dtrain.steplog.blocks import BlockMeta, merge, merge_adjoining
from dtrain.steplog.fates import Fate, LeftOut
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import Reject, RowRange, advance

PARTITION = Partition("t", 0)


@dataclass
class Model:
    """A stretch of a partition, row by row: (coordinate, fate), and every way to write a place in it."""

    meta: BlockMeta
    rows: list[tuple[Position, Fate]]
    places: list[Position]
    crcs: dict[int, int]

    def of(self, fate: Fate, start: Position, end: Position) -> list[Position]:
        return [at for at, found in self.rows if start <= at < end and found is fate]

    def good(self, start: Position, end: Position) -> int:
        return len(self.of(Fate.TRAINED, start, end))

    def last_touched(self, start: Position, end: Position) -> int:
        """The last record of which the range holds a row, or holds all, be it without rows."""
        held = [offset for offset in self.crcs if start.offset <= offset and Position(offset, 0) < end and start < end]
        return max(held, default=-1)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Records of 0 to 5 rows, some bad or left out, with gaps between and behind; the block may start and end in mid-record."""
    fates = st.sampled_from(list(Fate) if draw(st.booleans()) else [Fate.TRAINED, Fate.REJECTED])
    sizes = draw(st.lists(st.lists(fates, max_size=5), max_size=6))
    gaps = draw(st.lists(st.integers(0, 3), min_size=len(sizes) + 1, max_size=len(sizes) + 1))
    offset, offsets, places, rows = 10, [], [Position(10)], []
    for gap, size in zip(gaps, sizes, strict=False):
        offset += gap
        places += [Position(offset - i) for i in range(gap)]
        offsets.append(offset)
        rows += [(Position(offset, row), fate) for row, fate in enumerate(size)]
        places += [Position(offset, row) for row in range(len(size))]
        offset += 1
        places.append(Position(offset))
    places = sorted({*places, Position(offset + gaps[-1])})
    start, end = sorted(draw(st.tuples(st.sampled_from(places), st.sampled_from(places))))
    kept = [i for i, o in enumerate(offsets) if start.offset <= o and Position(o) < end]
    inside = [(at, fate) for at, fate in rows if start <= at < end]
    has_left_out = any(fate > Fate.REJECTED for _, fate in inside)
    meta = BlockMeta(
        partition=PARTITION,
        start=start,
        end=end,
        offsets=array("q", [offsets[i] for i in kept]),
        raw_rows=array("q", [len(sizes[i]) for i in kept]),
        crcs=array("q", [offsets[i] * 7 for i in kept]),
        rejects=tuple(Reject(at.offset, at.row, "bad") for at, fate in inside if fate is Fate.REJECTED),
        fates=bytes(fate for _, fate in inside) if has_left_out else b"",
    )
    return Model(meta, inside, [p for p in places if start <= p <= end], {offsets[i]: offsets[i] * 7 for i in kept})


def check(model: Model, found: RowRange, start: Position, end: Position) -> None:
    assert (found.start, found.end) == (start, end)
    assert found.num_rows == model.good(start, end)
    assert [Position(r.offset, r.row) for r in found.rejects] == model.of(Fate.REJECTED, start, end)
    left_out = (Fate.FILTERED, Fate.DUPLICATE, Fate.HELD_OUT)
    assert found.left_out == LeftOut(*(len(model.of(fate, start, end)) for fate in left_out))
    assert found.last_offset == model.last_touched(start, end)
    assert found.last_crc == model.crcs.get(found.last_offset, 0)


@given(models())
def test_num_rows_is_the_count_of_good_rows(model: Model) -> None:
    assert model.meta.num_rows == model.good(model.meta.start, model.meta.end)


@given(models())
def test_rows_before_counts_good_rows_at_every_place(model: Model) -> None:
    for place in [Position(0), *model.places, Position(10**9)]:
        assert model.meta.rows_before(place) == model.good(Position(0), place)


@given(models())
def test_held_out_between_are_the_rows_behind_the_good_ones_at_every_two_places(model: Model) -> None:
    for start in model.places:
        for end in (place for place in model.places if place >= start):
            first, stop = model.meta.held_out_between(start, end)
            assert stop - first == len(model.of(Fate.HELD_OUT, start, end))
            if stop > first:
                assert first == model.meta.num_rows + len(model.of(Fate.HELD_OUT, Position(0), start))


@given(models())
def test_num_raw_rows_is_the_count_of_all(model: Model) -> None:
    assert model.meta.num_raw_rows == len(model.rows)


@given(models())
def test_range_to_end_holds_all_that_is_left_at_every_place(model: Model) -> None:
    for start in model.places:
        check(model, model.meta.range_to_end(start), start, model.meta.end)


@given(models())
def test_range_to_is_the_shortest_that_holds_the_rows(model: Model) -> None:
    good = [at for at, fate in model.rows if fate is Fate.TRAINED]
    for start in model.places:
        for stop_row in range(model.meta.rows_before(start) + 1, len(good) + 1):
            found = model.meta.range_to(start, stop_row)
            check(model, found, start, min(p for p in model.places if p > good[stop_row - 1]))
            assert found.num_rows == stop_row - model.meta.rows_before(start)


@given(models(), st.data())
def test_cutting_a_block_in_any_way_tiles_it_and_merges_back(model: Model, data: st.DataObject) -> None:
    meta, at, ranges = model.meta, model.meta.start, []
    while (done := meta.rows_before(at)) < meta.num_rows:
        ranges.append(meta.range_to(at, data.draw(st.integers(done + 1, meta.num_rows))))
        at = ranges[-1].end
    ranges.append(meta.range_to_end(at))
    assert advance({PARTITION: meta.start}, ranges) == {PARTITION: meta.end}
    assert merge_adjoining(ranges) == (meta.range_to_end(meta.start),)


@given(models(), st.data())
def test_merge_of_two_parts_is_the_range_over_both(model: Model, data: st.DataObject) -> None:
    start, middle = sorted(data.draw(st.tuples(st.sampled_from(model.places), st.sampled_from(model.places))))
    first = model.meta._range(start, middle)
    assert merge(first, model.meta.range_to_end(middle)) == model.meta.range_to_end(start)


def test_merge_adjoining_keeps_apart_what_does_not_adjoin() -> None:
    ranges = [
        RowRange(PARTITION, Position(0), Position(1), 1),
        RowRange(Partition("t", 1), Position(1), Position(2), 1),
        RowRange(PARTITION, Position(1), Position(2), 1),
        RowRange(PARTITION, Position(3), Position(4), 1),
    ]
    assert merge_adjoining(ranges) == tuple(ranges)


def test_range_over_nothing_touches_no_record() -> None:
    meta = BlockMeta(PARTITION, Position(5, 1), Position(6), array("q", [5]), array("q", [3]), array("q", [9]))
    assert meta.range_to(Position(5, 1), 1).last_offset == 5
    assert meta._range(Position(5, 2), Position(5, 2)).last_offset == -1
