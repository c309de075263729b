"""The flat buffer: everything that ranks sum in a step, in one piece of memory, for one collective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dtrain.errors import TaskError

_ALIGNMENT = 16  # numbers: 64 bytes in float32


@dataclass(frozen=True, slots=True)
class BufferSlot:
    """Where a module keeps one of its buffers, and the tensor that belongs there: user code may put another in its place."""

    module: nn.Module
    name: str
    tensor: Tensor

    @property
    def is_summed(self) -> bool:
        """Whether its changes are added over a step's rows; otherwise their mean is taken."""
        return self.name in getattr(self.module, "summed_buffers", ())

    def now(self) -> Tensor:
        """What stands there at present."""
        found = self.module._buffers[self.name]
        return self.tensor if found is None else found

    def put_back(self, values: Tensor) -> None:
        """The tensor that belongs there stands there, with `values`."""
        self.module._buffers[self.name] = self.tensor
        self.tensor.copy_(values)


@dataclass(frozen=True, slots=True)
class FlatRow:
    """Views of one row of the flat buffer: gradients and changes of module buffers in their shapes."""

    scores: Tensor
    touched: Tensor
    held_out: Tensor
    gradients: list[Tensor]
    changes: list[Tensor]


@dataclass(frozen=True, slots=True)
class FlatBuffer:
    """What ranks sum: `tensor` [rows, width], its rows, and the row in which they are added up: the only one, where it is one."""

    tensor: Tensor
    rows: list[FlatRow]
    total: FlatRow
    total_tensor: Tensor

    def add_up(self) -> FlatRow:
        """The sum of all rows, in their order, whatever the ranks."""
        if len(self.rows) > 1:
            torch.sum(self.tensor, dim=0, out=self.total_tensor)
        return self.total


class FlatLayout:
    """Where each parameter's gradient, buffer's change and score stands in a row of the flat buffer.

    A row is [width]: score sums, one `touched` flag per parameter, gradients, changes of module buffers times rows, score sums of
    held-out rows. `fast` has one row; `exact` has one per slice, so that slices can be added in their order whatever the ranks.

    Args:
        model: whose parameters and module buffers.
        score_size: numbers in a step's score sums.
        has_held_out: whether rows are scored that are not trained.
    """

    def __init__(self, model: nn.Module, *, score_size: int, has_held_out: bool = False) -> None:
        lazy = [name for name, p in model.named_parameters() if is_lazy(p)]
        if lazy:
            raise TaskError(f"{', '.join(lazy[:5])} have no shape yet", fix="give lazy modules their sizes in `model`")
        _check_embeddings(model)
        self._model = model
        self._built = _members(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.slots = _slots(model)
        self.buffers = [slot.tensor for slot in self.slots]
        self.has_held_out = has_held_out
        members = [t.numel() for t in (*self.parameters, *self.buffers)]
        sizes = [score_size, len(self.parameters), *members, score_size * has_held_out]
        starts = [0, *accumulate(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)]
        spans = [slice(start, start + size) for start, size in zip(starts, sizes, strict=False)]
        self.width = starts[-1]
        self._scores, self._touched = spans[0], spans[1]
        self._gradients = spans[2 : 2 + len(self.parameters)]
        self._changes = spans[2 + len(self.parameters) : -1]
        self._held_out = spans[-1]
        self.finite_width = spans[-1].start
        """How much of a row has to be finite: a held-out row whose loss is not stops nothing."""
        if any(t.is_complex() for t in (*self.parameters, *self.buffers)):
            raise TaskError("the model has complex parameters or buffers", fix="keep real and imaginary parts as real tensors")
        is_wide = any(t.dtype == torch.float64 for t in (*self.parameters, *self.buffers))
        self.dtype = torch.float64 if is_wide else torch.float32
        self.device = self.parameters[0].device if self.parameters else torch.device("cpu")

    def check(self, *, found: str = "") -> None:
        """The model has the members that it was built with: others would not be summed, trained or saved.

        Args:
            found: at what step this is, for the error, where nobody else says so.

        Raises:
            TaskError: it has not; names them.
        """
        now = _members(self._model)
        if now != self._built:
            names = sorted(name for name in {**now, **self._built} if now.get(name) != self._built.get(name))
            raise TaskError(
                f"the model is not as it was built: {', '.join(names[:5])}{found}",
                fix="make every parameter and buffer in `model`, with its shape and `requires_grad`, and keep it",
            )

    def new_buffer(self, num_rows: int) -> FlatBuffer:
        """A zeroed buffer of `num_rows` rows."""
        tensor = torch.zeros(num_rows, self.width, dtype=self.dtype, device=self.device)
        rows = [self._view(row) for row in tensor]
        total = tensor[0] if num_rows == 1 else torch.zeros_like(tensor[0])
        return FlatBuffer(tensor, rows, self._view(total), total)

    def write_gradients(self, row: FlatRow) -> None:
        """Copy every parameter's gradient into `row`; zeros where there is none. Sets the touched flags.

        Raises:
            TaskError: a gradient is sparse; names its parameter.
        """
        grads = [p.grad for p in self.parameters]
        present = [grad for grad in grads if grad is not None]
        if any(grad.is_sparse for grad in present):
            names = [name for name, p in self._model.named_parameters() if p.grad is not None and p.grad.is_sparse]
            raise TaskError(f"the gradient of {', '.join(names[:5])} is sparse", fix="leave `sparse=True` out")
        if len(present) == len(grads):
            torch._foreach_copy_(row.gradients, present)
            row.touched.fill_(1.0)
            return
        for target, grad in zip(row.gradients, grads, strict=True):
            target.zero_() if grad is None else target.copy_(grad)
        row.touched.copy_(torch.tensor([grad is not None for grad in grads]))

    def assign_gradients(self, row: FlatRow) -> None:
        """Make the summed gradients in `row` the parameters' own; None where no rank touched a parameter (invariant 3)."""
        touched: Sequence[float] = row.touched.tolist()
        for parameter, gradient, count in zip(self.parameters, row.gradients, touched, strict=True):
            if count:
                parameter.grad = gradient if gradient.dtype == parameter.dtype else gradient.to(parameter.dtype)
            else:
                parameter.grad = None

    def _view(self, row: Tensor) -> FlatRow:
        gradients = [row[span].view(p.shape) for span, p in zip(self._gradients, self.parameters, strict=True)]
        changes = [row[span].view(b.shape) for span, b in zip(self._changes, self.buffers, strict=True)]
        return FlatRow(row[self._scores], row[self._touched], row[self._held_out], gradients, changes)


def _check_embeddings(model: nn.Module) -> None:
    """Raise `TaskError` for an embedding that cannot be trained here: gradients are summed dense, and a forward changes no weight."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            found = "sparse=True" if module.sparse else "max_norm" if module.max_norm is not None else ""
            if found:
                fix = "leave it out" if module.sparse else "leave it out, and scale what is looked up in `forward`"
                raise TaskError(f"the embedding {name or 'that is the model'} has {found}", fix=fix)


def _members(model: nn.Module) -> dict[str, tuple[object, ...]]:
    """Name → which parameter it is, its shape, whether it is trained; the shape of a buffer, which may be replaced."""
    parameters = {name: (id(p), p.shape, p.requires_grad) for name, p in model.named_parameters()}
    return {**parameters, **{name: (buffer.shape,) for name, buffer in model.named_buffers()}}


def _slots(model: nn.Module) -> list[BufferSlot]:
    """Every buffer once, also where modules share it."""
    found: dict[int, BufferSlot] = {}
    for module in model.modules():
        for name, tensor in module._buffers.items():
            if tensor is not None:
                found.setdefault(id(tensor), BufferSlot(module, name, tensor))
    return list(found.values())
