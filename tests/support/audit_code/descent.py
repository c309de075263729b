"""Gradient descent, written out: each of torch's optimizers imports torch's compiler, which costs a new process two seconds of a core."""

import torch
from torch.optim import Optimizer

for _name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
    _eager = getattr(Optimizer, _name).__wrapped__
    vars(_eager)["__dynamo_disable"] = _eager  # what the wrapper would ask the compiler for: nothing here is compiled


class Descent(Optimizer):
    """SGD with rate 1."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 1.0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=group["lr"])
