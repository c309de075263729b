"""A replica that receives a peer's state over gloo is that peer, and goes on as it would."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from dtrain.train.group import TorchCollective
from dtrain.train.handover import receive_state, send_state
from dtrain.train.state import State
from tests.support.ranks import groups, new_replica, spec, steps, train


def handed_over(state: State, *, receivers: int) -> list[State]:
    channels = [group for group in groups(1 + receivers) if isinstance(group, TorchCollective)]
    with ThreadPoolExecutor(receivers) as pool:
        coming = [pool.submit(receive_state, channel) for channel in channels[1:]]
        send_state(state, channels[0])
        return [receiving.result(timeout=60) for receiving in coming]


def test_replica_that_received_a_state_trains_on_to_the_same_bits() -> None:
    job = spec(numerics="exact", with_norm=True)
    plans = list(steps(12))
    source = new_replica(job)
    train(job, [source], plans[:7])
    newcomers = [new_replica(job) for _ in range(2)]
    for newcomer, state in zip(newcomers, handed_over(source.present(), receivers=2), strict=True):
        newcomer.adopt(state)
        assert (newcomer.progress, list(newcomer.tail)) == (source.progress, list(source.tail))
    for replica in (source, *newcomers):
        train(job, [replica], plans)
    expected = source.state().tensors
    for newcomer in newcomers:
        found = newcomer.state().tensors
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_tensors_of_every_kind_and_size_arrive() -> None:
    tensors = {
        "flag": torch.tensor(True),
        "half": torch.randn(3, 5).to(torch.bfloat16),
        "count": torch.tensor([7, -7]),
        "none": torch.empty(0, 4),
        "large": torch.randn(700, 700),
        "turned": torch.randn(600, 500).T,
    }
    job = spec(numerics="fast")
    (received,) = handed_over(State(tensors, {"optimizer": "{}"}, new_replica(job).progress), receivers=1)
    assert received.tensors.keys() == tensors.keys()
    assert all(torch.equal(received.tensors[name], tensor) for name, tensor in tensors.items())
    assert {name: tensor.dtype for name, tensor in received.tensors.items()} == {n: t.dtype for n, t in tensors.items()}
