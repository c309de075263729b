"""From `task: module:Class` to a task."""

from __future__ import annotations

from dtrain.data.schema import Schema
from dtrain.data.usercode import load
from dtrain.errors import TaskError
from dtrain.train.task import Task


def load_task(name: str, *, code: str) -> Task:
    """An instance of the task, its folder first on the import path from now on.

    Args:
        name: `module:Class`.
        code: the folder that the module is in; empty for an installed one.

    Raises:
        TaskError: no such module or class, its import fails, or it is not a `dtrain.Task` with `features`.
    """
    module_name, _, class_name = name.replace(":", ".").rpartition(".")
    found = load(name, code=code)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise TaskError(f"{name} is not a dtrain.Task", fix=f"write `class {class_name}(dtrain.Task)` in {module_name}")
    if not isinstance(getattr(found, "features", None), Schema):
        raise TaskError(f"{name} has no `features`", fix='set `features = dtrain.Schema({"x": "float32[16]", "y": "float32"})`')
    task = found()
    if task.label and task.label not in {field.name for field in found.features.fields}:
        raise TaskError(f"{name}: the label {task.label!r} is not among its features", fix="add it to `features`")
    return task
