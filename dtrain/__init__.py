"""dtrain: distributed streaming training, in which every record is in the weights exactly once.

The public names are loaded when they are first used, so that a process that does not train never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dtrain.client.client import Client
    from dtrain.data.schema import Column, Schema
    from dtrain.errors import DtrainError
    from dtrain.spec.job import JobSpec
    from dtrain.train.running_norm import RunningNorm
    from dtrain.train.task import Task

__version__ = "0.1.0"
__all__ = ["Client", "Column", "DtrainError", "JobSpec", "RunningNorm", "Schema", "Task", "__version__"]

_HOMES = {
    "Client": "dtrain.client.client",
    "Column": "dtrain.data.schema",
    "DtrainError": "dtrain.errors",
    "JobSpec": "dtrain.spec.job",
    "RunningNorm": "dtrain.train.running_norm",
    "Schema": "dtrain.data.schema",
    "Task": "dtrain.train.task",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'dtrain' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
