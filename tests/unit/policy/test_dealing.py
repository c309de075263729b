"""What is cut is dealt out as steps: every row once, wherever somebody begins anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.permutation import order_of
from dtrain.policy.cutting import Cutter
from dtrain.policy.dealing import Dealer, Dealt
from dtrain.steplog.entries import Entry, StepKind
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from tests.support.blocks import block

A, B = Partition("topic", 0), Partition("topic", 1)
Row = tuple[Partition, int]


@dataclass
class Job:
    """Two partitions of so many records; what was trained, by coordinate, in the order of training."""

    sizes: dict[Partition, int]
    rows: int
    span_rows: int
    is_strict: bool
    trained: list[Row] = field(default_factory=list)
    progress: Progress = field(default_factory=lambda: Progress(positions={A: Position(0), B: Position(0)}))

    def live(self, num_steps: int, *, block_rows: int) -> None:
        """A process of the job trains so many steps, of blocks of that size, and is gone."""
        progress = self.progress
        cutter = Cutter(
            positions=progress.positions,
            ends={partition: Position(size) for partition, size in self.sizes.items()},
            rows=self.span_rows,
            max_wait_s=60.0,
            is_strict=self.is_strict,
            step=progress.step + (progress.span.num_steps(self.rows) if progress.span else 0),
            step_rows=self.rows,
        )
        dealer = Dealer(cutter, seed=3, span=progress.span)
        blocks: dict[int, list[Row]] = {}
        if dealer.missing:
            assert dealer.deal(now_s=0.0) is None, "nothing else comes before its rows are there"
            blocks[0] = [row for item in dealer.missing for row in _rows_of(item)]
            dealer.reopen([(0, 0, len(blocks[0]))], exhausted=[0])
        for _ in range(num_steps):
            while (dealt := dealer.deal(now_s=0.0)) is None:
                if dealer.is_finished:
                    assert not blocks, "of blocks of which nothing is left, nothing is kept"
                    return
                partition = min(cutter.unread, key=lambda p: cutter.read_to[p].offset)
                first = cutter.read_to[partition].offset
                meta = block(partition, first, min(first + block_rows, self.sizes[partition]))
                number = 1 + max(blocks, default=len(self.trained) + 1)
                blocks[number] = [(partition, offset) for offset in meta.offsets]
                cutter.add(number, meta, now_s=0.0)
            self._train(dealt, blocks)

    def _train(self, dealt: Dealt, blocks: dict[int, list[Row]]) -> None:
        span = [row for number, first, stop in dealt.cut.pieces for row in blocks[number][first:stop]]
        part = dealt.part
        order = order_of(part)[part.start : part.start + dealt.num_rows] if part is not None else range(len(span))
        self.trained += [span[row] for row in order]
        entry = Entry(self.progress.plan_number + 1, StepKind.DATA, dealt.cut.ranges, dealt.num_rows, part=part)
        self.progress = self.progress.apply(entry)
        for number in dealt.cut.exhausted:
            del blocks[number]


def _rows_of(item: RowRange) -> list[Row]:
    return [(item.partition, offset) for offset in range(item.start.offset, item.end.offset)]


SIZES = st.fixed_dictionaries({A: st.integers(1, 60), B: st.integers(0, 60)})


@given(
    SIZES,
    st.integers(1, 7),
    st.integers(1, 6),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=6),
)
def test_every_row_is_trained_once_whoever_dies_wherever(
    sizes: dict[Partition, int], rows: int, parts: int, is_strict: bool, lives: list[tuple[int, int]]
) -> None:
    job = Job(sizes, rows, rows * parts, is_strict)
    for num_steps, block_rows in (*lives, (10_000, 4)):
        job.live(num_steps, block_rows=block_rows)
    assert Counter(job.trained) == Counter((p, offset) for p, size in sizes.items() for offset in range(size))
    assert (job.progress.span, job.progress.rows_trained) == (None, sum(sizes.values()))


@given(SIZES, st.integers(1, 7), st.integers(1, 6), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=6))
def test_strict_order_is_that_of_the_topic_and_the_seed_alone(
    sizes: dict[Partition, int], rows: int, parts: int, lives: list[tuple[int, int]]
) -> None:
    one, other = (Job(sizes, rows, rows * parts, is_strict=True) for _ in range(2))
    one.live(10_000, block_rows=10)
    for num_steps, block_rows in (*lives, (10_000, 3)):
        other.live(num_steps, block_rows=block_rows)
    assert one.trained == other.trained
    assert one.progress == other.progress


def _span(num_rows: int, *, rows: int) -> tuple[Cutter, Dealer]:
    cutter = Cutter(
        positions={A: Position(0)}, ends=None, rows=num_rows, max_wait_s=1.0, is_strict=False, step=0, step_rows=rows
    )
    cutter.add(1, block(A, 0, num_rows, newest_ms=77), now_s=0.0)
    return cutter, Dealer(cutter, seed=0, span=None)


def test_ranges_go_with_the_first_part_blocks_and_the_newest_time_with_the_last() -> None:
    cutter, dealer = _span(10, rows=4)
    parts = [dealer.deal(now_s=0.0) for _ in range(3)]
    told = [(len(p.cut.ranges), p.num_rows, p.part and p.part.start, p.cut.exhausted, p.cut.newest_ms) for p in parts if p]
    assert told == [(1, 4, 0, (), 0), (0, 4, 4, (), 0), (0, 2, 8, (1,), 77)]
    assert {p.at_risk for p in parts if p} == {parts[0].cut.ranges if parts[0] else ()}
    assert cutter.step == 3
    assert not dealer.is_open


def test_block_of_which_nothing_is_left_is_kept_while_a_part_may_need_it() -> None:
    _, dealer = _span(10, rows=4)
    assert dealer.withhold([8]) == (8,), "no span is open"
    dealer.deal(now_s=0.0)
    assert dealer.withhold([9]) == ()
    dealer.deal(now_s=0.0)
    last = dealer.deal(now_s=0.0)
    assert last is not None
    assert last.cut.exhausted == (1, 9)


def test_nothing_new_is_opened_where_the_job_is_to_end_and_what_is_open_comes_to_its_end() -> None:
    cutter, dealer = _span(8, rows=4)
    assert dealer.deal(now_s=0.0, may_open=False) is None
    assert dealer.deal(now_s=0.0) is not None
    cutter.add(2, block(A, 8, 16), now_s=0.0)
    assert dealer.deal(now_s=0.0, may_open=False) is not None
    assert dealer.deal(now_s=0.0, may_open=False) is None
    assert dealer.deal(now_s=0.0) is not None


def test_span_whose_rows_are_gone_is_dealt_as_lost_and_the_next_one_is_not() -> None:
    cutter, dealer = _span(8, rows=4)
    dealt = dealer.deal(now_s=0.0)
    assert dealt is not None
    progress = Progress(positions={A: Position(0)}).apply(
        Entry(1, StepKind.DATA, dealt.cut.ranges, dealt.num_rows, part=dealt.part)
    )
    again = Cutter(positions=progress.positions, ends=None, rows=8, max_wait_s=1.0, is_strict=False, step=2, step_rows=4)
    dealer = Dealer(again, seed=0, span=progress.span)
    assert dealer.missing == dealt.cut.ranges
    dealer.give_up()
    again.add(1, block(A, 8, 16), now_s=0.0)
    found = [dealer.deal(now_s=0.0) for _ in range(2)]
    assert [(d.is_lost, d.num_rows, len(d.cut.pieces)) for d in found if d] == [(True, 4, 0), (False, 4, 1)]
    assert cutter.step == 2
