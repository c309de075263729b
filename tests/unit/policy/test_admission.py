from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from dtrain.job.protocols import Resources
from dtrain.policy.admission import BEHIND, Waiting, admit

needs = st.lists(st.builds(Resources, cpus=st.integers(1, 6), gpus=st.integers(0, 2)), max_size=8)


def waiting(*cpus: float) -> list[Waiting]:
    return [Waiting(f"job-{number}", Resources(cpus=amount)) for number, amount in enumerate(cpus)]


@given(needs=needs, taken=st.integers(0, 8))
def test_those_admitted_are_the_front_of_the_queue_and_fit_together(needs: list[Resources], taken: int) -> None:
    queue = [Waiting(f"job-{number}", need) for number, need in enumerate(needs)]
    found = admit(queue, capacity=Resources(cpus=8, gpus=2), taken=Resources(cpus=taken))
    assert list(found.admitted) == [job.job_id for job in queue[: len(found.admitted)]]
    used = [job.need for job in queue[: len(found.admitted)]]
    assert sum(need.cpus for need in used) <= 8 - taken or not used
    assert sum(need.gpus for need in used) <= 2
    assert set(found.pending) == {job.job_id for job in queue[len(found.admitted) :]}


def test_small_job_does_not_overtake_a_large_one() -> None:
    found = admit(waiting(3, 1), capacity=Resources(cpus=4), taken=Resources(cpus=2))
    assert found.admitted == ()
    assert found.pending["job-0"] == "waits for room: needs 3 CPUs, and 2 CPUs of 4 CPUs is free"
    assert found.pending["job-1"] == BEHIND


def test_job_larger_than_the_cluster_is_told_so() -> None:
    found = admit([Waiting("huge", Resources(cpus=9, gpus=1))], capacity=Resources(cpus=4), taken=Resources())
    assert "needs 9 CPUs and 1 GPUs, but the whole cluster has 4 CPUs" in found.pending["huge"]


def test_cluster_that_shrank_below_what_is_taken_admits_nobody() -> None:
    assert admit(waiting(1), capacity=Resources(cpus=2), taken=Resources(cpus=4)).admitted == ()
