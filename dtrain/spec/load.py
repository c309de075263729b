"""From a job file to a spec, or to errors that name path, line, reason and fix."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dtrain.errors import SpecError
from dtrain.spec.document import Document, parse
from dtrain.spec.expectation import branches, schema_at
from dtrain.spec.formats import RawFormat
from dtrain.spec.job import JobSpec, SourceSpec
from dtrain.spec.problems import problems
from dtrain.spec.requirements import requirements_of

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
    code = (folder / Path(spec.code).expanduser()).resolve()
    if not code.is_dir():
        fix = "name the folder of the task's module, from the job file's folder"
        raise SpecError(f"the folder {code} does not exist", fix=fix, path="code", line=document.line(("code",)), file=file)
    _check_module(spec.task, code, document, path="task", file=file)
    with _placed(document, file):
        requirements_of(spec.requirements, code=str(code))
    source = spec.source.model_copy(update={"security": spec.source.security.settled(folder)})
    source = _settle_format(_settle_files(source, folder), document, folder=folder, code=code, file=file)
    changes: dict[str, Any] = {"code": str(code), "source": source}
    with _placed(document, file):
        changes["transform"] = spec.transform.settled(folder)
    if "://" not in spec.checkpoint.to:
        to = str(folder / Path(spec.checkpoint.to).expanduser())
        changes["checkpoint"] = spec.checkpoint.model_copy(update={"to": to})
    return spec.model_copy(update=changes)


def _settle_files(source: SourceSpec, folder: Path) -> SourceSpec:
    history = source.backfill
    if history is None or "://" in history.files:
        return source
    files = str(folder / Path(history.files).expanduser())
    if source.files:
        return source.model_copy(update={"files": files})
    return source.model_copy(update={"history": history.model_copy(update={"files": files})})


def _settle_format(source: SourceSpec, document: Document, *, folder: Path, code: Path, file: str) -> SourceSpec:
    """`source` with what is in the files that its format names."""
    if isinstance(source.format, str):
        return source
    if isinstance(source.format, RawFormat):
        _check_module(source.format.decoder, code, document, path="source.format.decoder", file=file)
    with _placed(document, file):
        return source.model_copy(update={"format": source.format.settled(folder)})


@contextlib.contextmanager
def _placed(document: Document, file: str) -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        line = document.line(tuple(error.path.split(".")))
        raise SpecError(error.reason, fix=error.fix, path=error.path, line=line, file=file) from error


def _check_module(name: str, code: Path, document: Document, *, path: str, file: str) -> None:
    """The module of a task or a decoder is there. Its code is not run: that is for the job's own processes."""
    module = name.replace(":", ".").rpartition(".")[0]
    top = module.partition(".")[0]
    if (code / f"{top}.py").is_file() or (code / top).is_dir():
        return
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec(module if top == "dtrain" else top) is not None:
            return
    line = document.line(tuple(path.split(".")))
    form = "module:Class" if path == "task" else "module:function"
    fix = f"write `{form}`, with {top}.py in `code`"
    raise SpecError(f"there is no module {module} in {code}", fix=fix, path=path, line=line, file=file)
