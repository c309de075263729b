"""The tool: `uv`, which resolves and installs. A process of its own, so that nothing of what it builds is imported here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from dtrain.errors import RequirementsError

_LONGEST_S = 1_800.0
_MAX_REASON = 700
# Nothing is configured by files: they are looked for in the folders above too, and anybody may write to that for temporary files.
_ALWAYS = ("--no-config", "--no-cache", "--color=never", "--quiet", "--python", sys.executable)


def run_tool(words: Sequence[str], *, folder: Path, doing: str) -> str:
    """What `uv` printed. Its variables (UV_DEFAULT_INDEX and others) are those of this process.

    Args:
        words: of its command line.
        folder: where it runs.
        doing: what fails, as `cannot be installed`.

    Raises:
        RequirementsError: it says that it cannot be done, in its own words, addresses without the credentials in them; or it is not there,
            or takes longer than half an hour.
    """
    command = [_tool(), *words, *_ALWAYS]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    except OSError as error:
        raise RequirementsError(f"uv cannot be run: {error}", fix="reinstall dtrain where the workers run") from error
    except subprocess.TimeoutExpired as error:
        raise RequirementsError(
            f"the job's requirements {doing} within {_LONGEST_S / 60:g} minutes", fix="resume the job"
        ) from error
    if done.returncode:
        reason = reason_in(done.stderr or done.stdout) or f"uv ended with {done.returncode}"
        raise RequirementsError(
            f"the job's requirements {doing}: {reason}", fix="correct `requirements`, or the index; resume the job"
        )
    return done.stdout


def reason_in(text: str) -> str:
    """What the tool complains of, in one line, without any credentials."""
    text = re.sub(r"(\w+://)[^/\s@]*@", r"\1", text)
    text = re.sub(r"(\w+://[^\s?`'\"]*)\?[^\s`'\"]*", r"\1", text)
    text = re.sub(r"[│├╰╭─▶×]+", " ", text)
    text = re.sub(r"(?m)^\s*(error|cause):", " ", text)
    text = " ".join(text.split()).removeprefix("No solution found when resolving dependencies").lstrip(": ").rstrip(".")
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]} …"


def _tool() -> str:
    """Where it is: beside this interpreter, as dtrain's dependencies are, or elsewhere on the path."""
    beside = Path(sysconfig.get_path("scripts")) / "uv"
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        fix = "install it where the workers run: pip install uv"
        raise RequirementsError("there is no uv here, which resolves and installs a job's requirements", fix=fix)
    return found
