"""From a job file to a spec, or to errors that name path, line, reason and fix."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dtrain.errors import SpecError
from dtrain.spec.document import Document, parse
from dtrain.spec.expectation import branches, schema_at
from dtrain.spec.job import JobSpec
from dtrain.spec.problems import problems

BUILT_IN = "dtrain.tasks"
_MAX_BYTES = 1_000_000


def load_job(path: Path, *, environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> JobSpec:
    """The job in a file, with its folders as absolute paths.

    Args:
        path: a YAML file; `${VAR}` and `${VAR:-default}` in its values come from `environment`.
        environment: variables by name.
        overrides: values that stand above the file's, by dotted path, as `workers.max`.

    Raises:
        SpecError: the first thing that is wrong; its `others` are the rest.
    """
    file = str(path)
    document = parse(_read(path), environment=environment, file=file, is_text=_is_text)
    if document.value is None:
        raise SpecError("is empty", fix="write a job: at least name, task, source and checkpoint", line=1, file=file)
    if not isinstance(document.value, dict):
        raise SpecError("is not a mapping", fix="write `key: value` lines, beginning with `name: ...`", line=1, file=file)
    for key, value in (overrides or {}).items():
        _override(document, key, value)
    return _settle(_validate(document, file=file), document, folder=path.resolve().parent, file=file)


def _validate(document: Document, *, file: str) -> JobSpec:
    try:
        return JobSpec.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        first, *others = problems(error.errors(include_url=False), document, file=file)
        first.others = tuple(others)
        raise first from error


def _is_text(path: tuple[str | int, ...]) -> bool:
    return any(branch.get("type") == "string" for branch in branches(schema_at(path) or {}))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise SpecError("is larger than a job file can be", fix="name a YAML file with one job", file=str(path))
        return content.decode()
    except FileNotFoundError as error:
        raise SpecError("does not exist", fix="check the path", file=str(path)) from error
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", fix="name a file that you may read", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise SpecError("is not text", fix="save it as UTF-8", line=1, file=str(path)) from error


def _override(document: Document, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    section = document.value
    for name in parents:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise SpecError(f"`{name}` is not a section in the file", fix="write --set section.field=value", path=dotted)
    section[last] = value
    for path in [path for path in document.lines if path[: len(parents) + 1] == (*parents, last)]:
        del document.lines[path]
    document.lines[(*parents, last)] = 0


def _settle(spec: JobSpec, document: Document, *, folder: Path, file: str) -> JobSpec:
    """`spec` with absolute paths: nobody else knows which folder the job file is in."""
    changes: dict[str, Any] = {}
    if not spec.checkpoint.to.startswith("file://"):
        to = str(folder / Path(spec.checkpoint.to).expanduser())
        changes["checkpoint"] = spec.checkpoint.model_copy(update={"to": to})
    is_built_in = spec.task.startswith(BUILT_IN)
    if spec.code or not is_built_in:
        code = (folder / Path(spec.code).expanduser()).resolve()
        if not code.is_dir():
            fix = "name the folder of the task's module, from the job file's folder"
            raise SpecError(f"the folder {code} does not exist", fix=fix, path="code", line=document.line(("code",)), file=file)
        changes["code"] = str(code)
    found = spec.model_copy(update=changes)
    _check_task(found, line=document.line(("task",)), file=file)
    return found


def _check_task(spec: JobSpec, *, line: int, file: str) -> None:
    """The task's module is there. Its code is not run: that is for the job's own processes."""
    module = spec.task.replace(":", ".").rpartition(".")[0]
    top = module.partition(".")[0]
    if spec.code and ((Path(spec.code) / f"{top}.py").is_file() or (Path(spec.code) / top).is_dir()):
        return
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec(module if top == "dtrain" else top) is not None:
            return
    reason = f"there is no module {module} in {spec.code or 'dtrain'}"
    fix = f"write `module:Class`, with {top}.py in `code`" if spec.code else "write `module:Class` of a task in dtrain.tasks"
    raise SpecError(reason, fix=fix, path="task", line=line, file=file)
