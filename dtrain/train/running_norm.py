"""Running normalisation: features brought to mean 0 and variance 1 by all the rows so far, the same for any number of workers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class RunningNorm(nn.Module):
    """`(x - mean) / sqrt(variance + eps)`, over every row of the steps before this one.

    Unlike batch normalisation it looks at no other row of its step: a row comes out the same however rows are spread over workers, in
    training as in evaluation. What a step adds is summed over all workers and taken up when the step is applied (Chan, Golub,
    LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances"). The first step only says where the
    values lie, so that nothing cancels; rows count from the second step on, and until then everything comes out as 0.

    Args:
        num_features: of x [rows, ..., num_features].
        eps: added to the variance.
        clip: largest absolute value that comes out, so that an outlier moves the weights no more than that.
    """

    summed_buffers: ClassVar[tuple[str, ...]] = ("step_rows", "step_sum", "step_squares")
    """Buffers whose changes are added over a step's rows; of other buffers' changes the mean over rows is taken."""

    count: Tensor
    steps: Tensor
    mean: Tensor
    variance: Tensor
    step_rows: Tensor
    step_sum: Tensor
    step_squares: Tensor

    def __init__(self, num_features: int, *, eps: float = 1e-5, clip: float = 10.0) -> None:
        super().__init__()
        self.eps = eps
        self.clip = clip
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("variance", torch.ones(num_features))
        self.register_buffer("step_rows", torch.zeros(()))
        self.register_buffer("step_sum", torch.zeros(num_features))
        self.register_buffer("step_squares", torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """x [rows, ..., num_features], normalised by what was known before this step."""
        apart = x.to(self.mean.dtype) - self.mean
        if self.training:
            with torch.no_grad():
                flat = apart.reshape(-1, apart.shape[-1])
                self.step_rows += flat.shape[0]
                self.step_sum += flat.sum(dim=0)
                self.step_squares += flat.square().sum(dim=0)
        scaled = (apart * torch.rsqrt(self.variance + self.eps)).clamp(-self.clip, self.clip)
        return torch.where(self.count > 0, scaled, torch.zeros_like(scaled)).to(x.dtype)

    @torch.no_grad()
    def fold_step_(self) -> None:
        """What a step has added, summed over all its rows, is part of mean and variance; the next one begins with nothing."""
        if self.step_rows > 0:
            shift = self.step_sum / self.step_rows
            if self.steps > 0:
                spread = (self.step_squares / self.step_rows - shift.square()).clamp_min(0)
                share = self.step_rows / (self.count + self.step_rows)
                self.variance.mul_(1 - share).add_(share * spread + share * (1 - share) * shift.square())
                self.mean += share * shift
                self.count += self.step_rows.to(self.count.dtype)
            else:
                self.mean += shift
            self.steps += 1
        for name in self.summed_buffers:
            getattr(self, name).zero_()
