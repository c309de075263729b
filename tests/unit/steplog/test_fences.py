import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.steplog.fences import Fence, ManifestRef, counts, history

REF = st.builds(ManifestRef, st.integers(1, 8), st.integers(0, 12))
FENCE = st.one_of(
    st.builds(Fence, st.integers(1, 8), st.just(1)),
    st.builds(Fence, st.integers(1, 8), st.just(1), is_void=st.just(True)),
    st.builds(Fence, st.integers(1, 8), st.just(1), is_named=st.just(True), parent=st.none() | REF),
)
FENCES = st.lists(FENCE, unique_by=lambda fence: fence.attempt).map(lambda fences: {fence.attempt: fence for fence in fences})


@given(st.integers(1, 10**10), st.integers(0, 10**14))
def test_name_parsed_is_what_was_written(attempt: int, plan_number: int) -> None:
    ref = ManifestRef(attempt, plan_number)
    assert ManifestRef.parse(ref.name) == ref


@given(REF, REF)
def test_names_sort_by_plan_number(first: ManifestRef, second: ManifestRef) -> None:
    assert (first.name < second.name) == ((first.plan_number, first.attempt) < (second.plan_number, second.attempt))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "p1-a1",
        "p000000000001",
        "p000000000001-a00000001 ",
        "p+00000000001-a00000001",
        "p00000000000_-a00000001",
        "p0000000000001-a00000001",
        "P000000000001-a00000001",
        "p٠٠٠٠٠٠٠٠٠٠٠١-a00000001",
        "p000000000001-a00000001-b",
    ],
)
def test_parse_of_another_spelling_is_an_error(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        ManifestRef.parse(name)


@given(REF, FENCES)
def test_manifest_counts_if_it_is_not_later_than_the_parent_of_every_later_named_fence(
    ref: ManifestRef, fences: dict[int, Fence]
) -> None:
    bounds = [
        -1 if f.parent is None else f.parent.plan_number for f in fences.values() if f.is_named and f.attempt > ref.attempt
    ]
    assert counts(ref, fences.values()) == all(ref.plan_number <= bound for bound in bounds)


@given(REF, FENCES, FENCE)
def test_manifest_that_does_not_count_never_counts_again(ref: ManifestRef, fences: dict[int, Fence], new: Fence) -> None:
    if not counts(ref, fences.values()):
        assert not counts(ref, {new.attempt: new, **fences}.values())


@given(st.sets(REF), FENCES)
def test_history_is_what_counts_oldest_first(refs: set[ManifestRef], fences: dict[int, Fence]) -> None:
    line = history(refs, fences)
    assert set(line) == {ref for ref in refs if counts(ref, fences.values())}
    assert line == sorted(line, key=lambda ref: ref.plan_number)


def test_fence_without_a_parent_yet_or_void_bounds_nothing() -> None:
    for fence in (Fence(2, 1), Fence(2, 1, is_void=True)):
        assert counts(ManifestRef(1, 9), [fence])
    assert not counts(ManifestRef(1, 0), [Fence(2, 1, is_named=True, parent=None)])
