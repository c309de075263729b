"""Where the user's code is imported and called: whatever it raises, it is one error that says where in that code it was."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import TracebackType

from dtrain.errors import DtrainError, TaskError

_OURS = str(Path(__file__).parents[1])
_NUM_FRAMES = 3


def load(name: str, *, code: str) -> object:
    """What `name` names; None where its module has no such thing. Its folder is first on the import path from now on.

    Args:
        name: `module:name`.
        code: the folder that the module is in; empty for an installed one.

    Raises:
        TaskError: no such folder or module, or its import fails.
    """
    module_name, _, inner_name = name.replace(":", ".").rpartition(".")
    if code and not Path(code).is_dir():
        raise TaskError(f"the code folder {code} does not exist here", fix="name one that does: in `code`, or with --code")
    if code:
        sys.path[:] = [code, *(place for place in sys.path if place != code)]
    try:
        return getattr(importlib.import_module(module_name), inner_name, None)
    except Exception as error:  # user code may raise anything while it is imported
        where = traceback.format_exc().strip().splitlines()[-3:]
        fix = f"correct {name} or `code`, or the module itself ({' '.join(line.strip() for line in where[:2])})"
        if isinstance(error, ModuleNotFoundError) and error.name and error.name != module_name:
            fix += f"; if {error.name} is of another package, name that in `requirements`"
        raise TaskError(
            f"cannot import {module_name} from {code or 'the installed packages'}: {type(error).__name__}: {error}", fix=fix
        ) from error


class UserCode:
    """`with` it, the user's code raises nothing but `TaskError`, or an error of dtrain's that passed through it.

    `sys.exit()` counts as raising: in a thread it would end the thread and say nothing.

    Args:
        name: of the task.
        doing: what failed, in the past tense.
    """

    __slots__ = ("_doing", "_name")

    def __init__(self, name: str, *, doing: str = "raised") -> None:
        self._name = name
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if isinstance(error, Exception | SystemExit) and not isinstance(error, DtrainError):
            fix = "give the workers more memory, or set `train.micro_batch_rows`" if isinstance(error, MemoryError) else ""
            raise TaskError(f"{self._name} {self._doing} {type(error).__name__}: {error}{_places(where)}", fix=fix) from error


def _places(where: TracebackType | None) -> str:
    """The last frames of a traceback that are not dtrain's, the innermost last; those of libraries only where there are no others."""
    frames = [frame for frame in traceback.extract_tb(where) if not frame.filename.startswith(_OURS)]
    users = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return "".join(f"\n  {f.filename}:{f.lineno}, in {f.name}: {f.line}" for f in users[-_NUM_FRAMES:])
