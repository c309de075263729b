import threading

import pytest
import torch

from dtrain.errors import UnavailableError
from dtrain.train.copier import StateCopier

NOTHING: dict[str, torch.Tensor] = {}


def tensors(value: float, *, rows: int = 3) -> dict[str, torch.Tensor]:
    return {"a": torch.full((rows, 2), value), "step": torch.tensor(value), "empty": torch.zeros(0)}


def test_copy_stays_as_it_was_when_the_tensors_change() -> None:
    copier, live, now = StateCopier(), tensors(1.0), {"buffer": torch.tensor([True])}
    copy = copier.copy(now, live)
    now["buffer"].logical_not_()
    copier.wait()
    for tensor in live.values():
        tensor.zero_()
    with copier.reading(copy):
        assert copy.keys() == {*live, "buffer"}
        assert all(torch.equal(copy[name], old) for name, old in tensors(1.0).items())
        assert bool(copy["buffer"])


def test_copy_while_another_is_read_takes_other_memory() -> None:
    copier = StateCopier()
    first = copier.copy(NOTHING, tensors(1.0))
    with copier.reading(first):
        for value in (2.0, 3.0):
            second = copier.copy(NOTHING, tensors(value))
            with copier.reading(second):
                assert float(second["a"].sum()) == 6 * value
        assert float(first["a"].sum()) == 6.0


def test_memory_is_used_again_until_the_shape_is_another() -> None:
    copier, seen = StateCopier(), []
    copier.reserve(tensors(0.0))
    for rows in (3, 3, 4, 4):
        copy = copier.copy(NOTHING, tensors(1.0, rows=rows))
        with copier.reading(copy):
            seen.append((copy["a"].data_ptr(), copy["step"].data_ptr()))
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert len({step for _, step in seen}) == 1


def test_copy_that_nobody_began_to_read_gives_its_place_to_the_next() -> None:
    copier = StateCopier()
    old, new = (copier.copy(NOTHING, tensors(value)) for value in (1.0, 2.0))
    with copier.reading(new):
        assert float(new["step"]) == 2.0
    with pytest.raises(UnavailableError, match="later snapshot"), copier.reading(old):
        pass


def test_reader_waits_for_the_copy_and_wait_for_no_reader() -> None:
    copier, read = StateCopier(), threading.Event()
    release = threading.Event()
    copier._thread.submit(release.wait, 10)
    threading.Timer(0.05, release.set).start()
    copy = copier.copy(NOTHING, tensors(5.0, rows=1000))

    def reader() -> None:
        with copier.reading(copy):
            read.set()
            release.wait(10)

    thread = threading.Thread(target=reader)
    thread.start()
    copier.wait()
    assert read.wait(10)
    assert float(copy["a"][-1, -1]) == 5.0
    thread.join()


def test_copy_that_fails_is_said_to_its_reader_and_frees_its_memory() -> None:
    copier = StateCopier()
    broken = copier.copy(NOTHING, {"a": torch.eye(2).to_sparse()})
    copier.wait()
    with pytest.raises(RuntimeError), copier.reading(broken):
        pass
    copy = copier.copy(NOTHING, tensors(1.0))
    with copier.reading(copy):
        assert float(copy["step"]) == 1.0


def test_memory_is_not_touched_any_more_once_it_holds_a_copy() -> None:
    copier = StateCopier()
    copy = copier.copy(NOTHING, tensors(1.0))
    with copier.reading(copy):
        copier.reserve(tensors(1.0))
        copier.copy(tensors(2.0), NOTHING)  # behind whatever runs in the background
        assert all(torch.equal(copy[name], old) for name, old in tensors(1.0).items())
