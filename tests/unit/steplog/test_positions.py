from hypothesis import given
from hypothesis import strategies as st

from dtrain.steplog.positions import Partition, Position, after, positions_from_json, positions_to_json
from tests.support.steplogs import PARTITION, POSITION


@given(PARTITION)
def test_partition_parsed_is_what_was_written(partition: Partition) -> None:
    assert Partition.parse(str(partition)) == partition


@given(st.integers(0, 100), st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_after_visits_every_row_once_in_order_and_has_one_way_to_write_a_place(offset: int, sizes: list[int]) -> None:
    place = Position(offset)
    for index, size in enumerate(sizes):
        for row in range(size):
            assert place == (offset + index, row)
            place, before = after(place.offset, place.row, size), place
            assert place > before
    assert place == (offset + len(sizes), 0)


@given(st.dictionaries(PARTITION, POSITION))
def test_positions_read_are_what_was_written_in_any_order(positions: dict[Partition, Position]) -> None:
    written = positions_to_json(positions)
    assert positions_from_json(written) == positions
    assert list(written.items()) == list(positions_to_json(dict(reversed(positions.items()))).items())
