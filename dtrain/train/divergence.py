"""Divergence: whether the replicas of all ranks are the same, bit by bit."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dtrain.errors import DivergenceError
from dtrain.train.collective import Collective

Part = tuple[str, Sequence[object]]
"""What it is called, and tensors or plain values. As many on every rank, whatever is in them."""


def parts_of(model: nn.Module, optimizer: Optimizer) -> Iterator[Part]:
    """Weights and module buffers, then the optimizer's state of each parameter, then its settings."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        yield name, [tensor]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        state = optimizer.state.get(parameter, {})
        yield f"the optimizer's state of {names.get(id(parameter), 'a parameter')}", [state[key] for key in sorted(state)]
    settings = [value for group in optimizer.param_groups for key, value in sorted(group.items()) if key != "params"]
    yield "the optimizer's settings", settings


def check_same(group: Collective, parts: Sequence[Part], *, step: int, device: torch.device) -> None:
    """Every rank has the same bits in all of `parts`.

    A CRC-32 of each part is summed into a table with a row for every rank. Measured: 0.2 ms for 19 thousand parameters with AdamW,
    21 ms for a million, 125 ms for ten, once in `train.check_every` steps.

    Collective: every rank calls this behind the same steps.

    Args:
        group: whose ranks are compared.
        parts: of this rank.
        step: the last one applied.
        device: on which the group sums.

    Raises:
        DivergenceError: they differ; on every rank, and names the first part that does.
        CollectiveError: a rank was lost.
    """
    table = torch.zeros(group.world_size, len(parts), dtype=torch.int64)
    table[group.rank] = torch.tensor([_crc(values) for _, values in parts])
    table = table.to(device)
    group.all_reduce_(table)
    differing = [name for (name, _), same in zip(parts, (table == table[0]).all(dim=0).tolist(), strict=True) if not same]
    if differing:
        first = [name for name, _ in parts].index(differing[0])
        raise DivergenceError(
            f"behind step {step}, {_odd_ones(table[:, first].tolist())} other bits in {differing[0]} than the rest"
            f" ({len(differing)} of {len(parts)} tensors differ)",
            fix="let the task depend on its rows, its module and torch's random numbers alone, and resume",
        )


def _crc(values: Sequence[object]) -> int:
    crc = 0
    for value in values:
        crc = zlib.crc32(_bytes(value) if isinstance(value, Tensor) else repr(value).encode(), crc)
    return crc


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _odd_ones(digests: Sequence[int]) -> str:
    """The ranks that are not with the most; where there are no most, all."""
    (usual, count), *_ = Counter(digests).most_common()
    odd = [rank for rank, digest in enumerate(digests) if digest != usual or 2 * count <= len(digests)]
    names = ", ".join(map(str, odd[:8]))
    return f"rank {names} of {len(digests)} has" if len(odd) == 1 else f"ranks {names} of {len(digests)} have each"
