"""Running normalisation by itself; over ranks it is in tests/numerics."""

from __future__ import annotations

import torch
from torch import Tensor

from dtrain.train.running_norm import RunningNorm


def fed(*steps: Tensor, **options: float) -> RunningNorm:
    """A norm behind these steps."""
    norm = RunningNorm(steps[0].shape[-1], **options)
    for x in steps:
        norm(x)
        norm.fold_step_()
    return norm


def test_running_norm_gives_zero_until_a_step_has_counted() -> None:
    x = torch.randn(8, 3) + 100
    assert torch.equal(RunningNorm(3)(x), torch.zeros(8, 3))
    assert torch.equal(fed(x)(x), torch.zeros(8, 3))
    assert fed(x, x)(x).abs().max() > 0.1


def test_running_norm_brings_what_is_like_before_to_mean_0_and_variance_1() -> None:
    torch.manual_seed(1)
    x = torch.randn(4000, 2) * torch.tensor([5.0, 0.01]) + torch.tensor([300.0, -2.0])
    out = fed(*x.split(100))(x)
    assert torch.allclose(out.mean(dim=0), torch.zeros(2), atol=0.05)
    assert torch.allclose(out.std(dim=0), torch.ones(2), atol=0.05)


def test_running_norm_takes_a_row_as_it_takes_it_alone() -> None:
    norm = fed(torch.randn(20, 3), torch.randn(20, 3))
    x = torch.randn(5, 3)
    assert torch.equal(norm(x), torch.cat([norm(row) for row in x.split(1)]))


def test_running_norm_in_evaluation_learns_nothing() -> None:
    norm = fed(torch.randn(20, 3), torch.randn(20, 3))
    before = [buffer.clone() for buffer in norm.buffers()]
    norm.eval()(torch.randn(5, 3) + 9)
    norm.fold_step_()
    assert all(torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True))


def test_running_norm_clips_outliers_and_keeps_type_and_shape() -> None:
    norm = fed(torch.randn(20, 3), torch.randn(20, 3), clip=2.0)
    out = norm(torch.full((2, 4, 3), 1e6, dtype=torch.float64))
    assert torch.equal(out, torch.full((2, 4, 3), 2.0, dtype=torch.float64))


def test_running_norm_lets_gradients_through() -> None:
    norm = fed(torch.randn(20, 3), torch.randn(20, 3))
    x = torch.randn(5, 3, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None
    assert (x.grad > 0).all()
