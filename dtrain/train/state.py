"""The state of a replica as named tensors, text and progress: what a checkpoint holds and what `Replica.adopt` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dtrain.errors import DriftError
from dtrain.steplog.progress import Progress
from dtrain.steplog.tail import LogTail
from dtrain.train import plain


@dataclass(frozen=True, slots=True)
class State:
    """A replica's state. Its source may be a checkpoint or a peer.

    Args:
        tensors: `model/…` weights and buffers, `optimizer/index/…`, `scores/…`; on the CPU, owned by the state.
        notes: JSON texts: the optimizer's groups, the schedule.
        progress: where the replica stood.
        tail: the entries that no segment of `progress` holds; None for a checkpoint's state, which has none.
    """

    tensors: Mapping[str, Tensor]
    notes: Mapping[str, str]
    progress: Progress
    tail: LogTail | None = None


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights and all buffers, those that a `state_dict` leaves out too: forwards change them."""
    return {f"model/{name}": tensor.detach() for name, tensor in _named(model).items()}


def load_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights and buffers into `model`, in place.

    Raises:
        DriftError: names or shapes differ: this is another model. Nothing was changed.
    """
    given = {name.removeprefix("model/"): tensor for name, tensor in tensors.items() if name.startswith("model/")}
    own = _named(model)
    differing = sorted(set(given) ^ set(own)) or [name for name in own if own[name].shape != given[name].shape]
    if differing:
        raise DriftError(
            f"the task's model is not the checkpoint's: {', '.join(differing[:5])} differ(s)",
            fix="restore the code and `params` that the job began with, or submit a new job",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])


def _named(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], str]:
    """The optimizer's tensors, and the rest of its state as JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    rest: dict[int, dict[str, Any]] = {}
    for index, slots in state["state"].items():
        for key, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value.detach()
            else:
                rest.setdefault(index, {})[key] = value
    return tensors, plain.write({"groups": state["param_groups"], "slots": rest}, what="the optimizer")


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], notes: str) -> None:
    """Give `optimizer` the state that `optimizer_tensors` took.

    Raises:
        DriftError: it has other parameter groups: this is another optimizer or model.
    """
    saved = plain.read(notes)
    slots: dict[int, dict[str, Any]] = {index: dict(values) for index, values in saved["slots"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            slots.setdefault(int(index), {})[key] = tensor.clone()
    try:
        optimizer.load_state_dict({"state": slots, "param_groups": saved["groups"]})
    except ValueError as error:
        raise DriftError(
            f"the task's optimizer is not the checkpoint's: {error}",
            fix="restore the code and `params` that the job began with, or submit a new job",
        ) from error
    _put_back_types(optimizer, slots)


def _put_back_types(optimizer: torch.optim.Optimizer, slots: Mapping[int, Mapping[str, Any]]) -> None:
    """The optimizer's tensors have the types that were saved.

    Why: `load_state_dict` gives them their parameter's, so that a counter in int64 would be a float32, a scalar in float32 a
    bfloat16, and whoever adopts would not go on as those do who had that state all along.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, saved in slots.items():
        state = optimizer.state[parameters[index]]
        for key, value in saved.items():
            if isinstance(value, Tensor) and key in state and state[key].dtype != value.dtype:
                state[key] = value.to(state[key].device)
