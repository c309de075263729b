"""Hypothesis strategies for the words of the step log."""

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from dtrain.steplog.entries import Entry, StepKind
from dtrain.steplog.moves import Move
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import Reject, RowRange
from dtrain.steplog.spans import Part

TEXT = st.text(st.characters(), max_size=12)
"""Half characters included: a bad record may hold them."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda x: st.lists(x) | st.dictionaries(TEXT, x),
    max_leaves=8,
)
PARTITION = st.builds(Partition, st.text("abc.:-_", min_size=1, max_size=4), st.integers(0, 3))
POSITION = st.builds(Position, st.integers(0, 2**62), st.integers(0, 5))
REJECT = st.builds(Reject, st.integers(0, 2**62), st.integers(0, 9), st.text(st.characters(exclude_categories=()), max_size=12))


@st.composite
def ranges(draw: st.DrawFn, partition: Partition | None = None, start: Position | None = None) -> RowRange:
    """A range from `start`, or from anywhere."""
    first = draw(POSITION) if start is None else start
    end = max(first, Position(first.offset + draw(st.integers(0, 5)), draw(st.integers(0, 3))))
    rejects = tuple(draw(st.lists(REJECT, max_size=2)))
    last = draw(st.sampled_from((-1, first.offset)))
    return RowRange(
        partition or draw(PARTITION), first, end, draw(st.integers(0, 9)), rejects, last, draw(st.integers(0, 2**32 - 1))
    )


RANGE = ranges()
MOVE = st.builds(
    Move,
    PARTITION,
    st.none() | POSITION,
    st.none() | POSITION,
    st.sampled_from(("added", "deleted", "truncated", "changed", "recreated", "gone", "lag")),
)
ENTRY = st.builds(
    Entry,
    st.integers(1, 10**6),
    st.sampled_from(StepKind),
    st.lists(RANGE, max_size=3).map(tuple),
    st.integers(0, 10**6),
    st.sampled_from(("", "non_finite")),
    st.lists(MOVE, max_size=2).map(tuple),
    st.lists(st.tuples(TEXT, TEXT), max_size=1).map(tuple),
    st.none() | st.builds(Part, *(st.integers(0, 2**40) for _ in range(4))),
)
LOG = st.builds(
    lambda first, entries: [replace(e, number=first + i) for i, e in enumerate(entries)],
    st.integers(1, 1000),
    st.lists(ENTRY, min_size=1, max_size=4),
)
"""Consecutive entries."""


def chains() -> st.SearchStrategy[list[Position]]:
    """Positions that never go back."""
    return st.lists(st.builds(Position, st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=5).map(sorted)


@dataclass(frozen=True)
class Run:
    """A job's beginning and its entries from number 1, which tile its partitions."""

    start: dict[Partition, Position]
    entries: list[Entry]


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """A job of a few steps over a few partitions."""
    start = draw(st.dictionaries(PARTITION, st.builds(Position, st.integers(0, 99)), min_size=1, max_size=3))
    at, entries = dict(start), []
    for number in range(1, draw(st.integers(0, 5)) + 1):
        taken = []
        for partition in draw(st.lists(st.sampled_from(sorted(at)), max_size=3)):
            taken.append(draw(ranges(partition, at[partition])))
            at[partition] = taken[-1].end
        kind = StepKind.DATA if sum(r.num_rows for r in taken) else StepKind.CHECKPOINT
        skipped = draw(st.sampled_from(("", "non_finite"))) if kind is StepKind.DATA else ""
        entries.append(Entry(number, kind, tuple(taken), sum(r.num_rows for r in taken), skipped))
    return Run(start, entries)


RUN = runs()
