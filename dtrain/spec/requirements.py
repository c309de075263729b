"""What a job's code requires besides: packages by name, as PEP 508 writes them, in the job file or in a file of the code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

from dtrain.errors import SpecError
from dtrain.spec.durations import problem

FIELD = "requirements"
MAX_REQUIREMENTS = 500
_MAX_LENGTH = 1_000
_MAX_BYTES = 200_000
_EXAMPLE = "write a name and versions, as einops==0.8.1 or tokenizers>=0.21"
_INDEX = (
    "name packages alone; a private index is told to the workers, by UV_DEFAULT_INDEX in their environment: see docs/code.md"
)
_COMMENT = re.compile(r"(^|\s)#.*")


def checked_requirements(value: tuple[str, ...] | str) -> tuple[str, ...] | str:
    """`value`, as a job file may have it: requirements, or the name of a file in the code; raises a `problem` where it is neither."""
    try:
        return _checked_file(value) if isinstance(value, str) else checked_list(value)
    except SpecError as error:
        raise problem(error.reason, fix=error.fix) from error


def checked_list(texts: Sequence[str]) -> tuple[str, ...]:
    """`texts`, each as packaging writes it, so that blanks and the like make no difference.

    Raises:
        SpecError: one is no requirement of a package by name, or stands there twice.
    """
    if len(texts) > MAX_REQUIREMENTS:
        raise _wrong(f"{len(texts):,} are too many", fix=f"name at most {MAX_REQUIREMENTS}: what these require comes by itself")
    found = tuple(_checked(text) for text in texts)
    if twice := [text for place, text in enumerate(found) if text in found[:place]]:
        raise _wrong(f"{twice[0]!r} is there twice", fix="name each once")
    return found


def requirements_of(value: tuple[str, ...] | str, *, code: str) -> tuple[str, ...]:
    """The requirements that a job's `requirements` means.

    Args:
        value: as in a spec.
        code: the folder of its code, in which a file is looked for.

    Raises:
        SpecError: the file cannot be read, or a line of it is no requirement of a package by name.
    """
    if not isinstance(value, str):
        return checked_list(value)
    path = Path(code) / value
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(f"{value} is no text", fix="save it as UTF-8") from error
    except OSError as error:
        reason = f"{value} cannot be read in the folder of the code: {error.strerror}"
        raise _wrong(reason, fix="name a file there, or write the requirements as a list: [einops==0.8.1]") from error
    if len(content) > _MAX_BYTES:
        raise _wrong(f"{value} is larger than a file of requirements can be", fix="name what the code imports alone")
    return _in_file(text, name=value)


def _in_file(text: str, *, name: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        wanted = _COMMENT.sub("", line).strip()
        if not wanted:
            continue
        try:
            found[_checked(wanted)] = None
        except SpecError as error:
            raise _wrong(f"line {number} of {name}: {error.reason}", fix=error.fix) from error
    return checked_list(tuple(found))


def _checked(text: str) -> str:
    """One requirement. What is refused is not repeated where it may hold a password."""
    text = text.strip()
    if "://" in text or " @ " in text or re.match(r"[\w.\-\[\],]+@", text):
        raise _wrong("an address stands in place of a version", fix=_INDEX)
    if text.startswith("-"):
        option = re.split(r"[\s=]", text)[0]
        raise _wrong(f"{option[:40]} is an option", fix=_option_fix(option))
    if len(text) > _MAX_LENGTH or not text.isprintable():
        raise _wrong(f"{text[:40]!r}… is too long, or not printable", fix=_EXAMPLE)
    if " --hash" in text or text.endswith("\\"):
        raise _wrong(f"{text[:40]!r} goes on in another line, or has hashes", fix=_option_fix("--hash"))
    if re.match(r"[.~/\\]|.*[/\\]|.*\.(whl|zip|tar\.gz)$", text.partition(";")[0]):
        raise _wrong(f"{text[:80]!r} is a path", fix="name a package; modules of your own belong into the folder `code`")
    try:
        return str(Requirement(text))
    except InvalidRequirement as error:
        raise _wrong(f"{text[:80]!r} is no requirement of a package", fix=_EXAMPLE) from error


def _option_fix(option: str) -> str:
    if option in ("-e", "--editable"):
        return "put the modules themselves into the folder `code`: they are sent with the job"
    if option in ("-r", "--requirement", "-c", "--constraint"):
        return "write what is in that file here"
    if option == "--hash":
        return "leave hashes out (`uv export --no-hashes`): dtrain fixes versions and hashes itself, once a job"
    return _INDEX


def _checked_file(name: str) -> tuple[str, ...] | str:
    if not name:
        return ()
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "://" in name or not name.isprintable():
        raise _wrong(f"{name[:80]!r} is no file in the folder of the code", fix="write its name there, as requirements.txt")
    try:
        is_meant = path.suffix not in (".txt", ".in") and bool(Requirement(name))
    except InvalidRequirement:
        is_meant = False
    if is_meant and (re.search(r"[<>=!~\[;]", name) or not path.suffix):
        raise _wrong(f"{name[:80]!r} is a requirement, not a file", fix=f"write a list: [{name[:80]!r}]")
    return path.as_posix()


def _wrong(reason: str, *, fix: str) -> SpecError:
    return SpecError(reason, fix=fix, path=FIELD)
