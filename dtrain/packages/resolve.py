"""From requirements to a lock. It is done once a job, where its workers run: there the base, the platform and the index are those that count."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dtrain.errors import RequirementsError, StorageError
from dtrain.packages.base import Base, write_stubs
from dtrain.packages.lock import Lock, Pin
from dtrain.packages.tool import run_tool

_RUNS_ON = "the workers run on it"


def resolve(requirements: Sequence[str], *, base: Base) -> Lock:
    """The newest packages that fit the requirements, each other, and the base, of which every version stays as it is.

    Args:
        requirements: as PEP 508 writes them.
        base: what is there, and is not installed again.

    Raises:
        RequirementsError: there are none; the reason names the requirement, and the version that the workers have.
        StorageError: there is no room for temporary files.

    Blocking: for as long as the index takes to answer; half an hour at most.
    """
    there = base.all()
    versions = {name: one.version for name, one in there.items()}
    _check_direct(requirements, versions)
    try:
        with tempfile.TemporaryDirectory(prefix="dtrain-resolve-") as made:
            pins = sorted(pins_in(_compiled(requirements, there, Path(made))), key=lambda pin: pin.name)
    except RequirementsError as error:
        raise RequirementsError(_with_base(error.reason, versions), fix=error.fix) from error
    except OSError as error:
        raise StorageError(f"requirements cannot be resolved: {error.strerror}", fix="free space in TMPDIR") from error
    return Lock(
        tuple(requirements),
        tuple(pin for pin in pins if pin.name not in versions),
        {pin.name: pin.version for pin in pins if pin.name in versions},
        ".".join(map(str, sys.version_info[:2])),
    )


def _compiled(requirements: Sequence[str], there: Mapping[str, Distribution], folder: Path) -> str:
    """What the tool makes of the requirements, in an empty folder."""
    (folder / "base").mkdir()
    write_stubs(there, folder / "base")
    wanted, constraints = folder / "requirements.txt", folder / "base.txt"
    # In the file and not as an option: an option would stand above the worker's own UV_FIND_LINKS.
    wanted.write_text("\n".join((f"--find-links {folder / 'base'}", *requirements, "")), encoding="utf-8")
    constraints.write_text("".join(f"{name}=={one.version}\n" for name, one in there.items()), encoding="utf-8")
    words = (
        "pip",
        "compile",
        str(wanted),
        "--constraints",
        str(constraints),
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
    )
    return run_tool(words, folder=folder, doing="cannot be resolved")


def pins_in(printed: str) -> Iterator[Pin]:
    """The packages in a file of requirements, each with one version and hashes.

    Raises:
        RequirementsError: one has no hashes, so that nobody could say later whether it is the same.
    """
    for line in printed.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "-")):
            continue
        words = line.split()
        hashes = tuple(sorted(word.removeprefix("--hash=") for word in words if word.startswith("--hash=")))
        requirement = Requirement(" ".join(word for word in words if not word.startswith("--hash=")))
        version = str(requirement.specifier).removeprefix("==")
        if not hashes:
            raise RequirementsError(f"{requirement} has no hashes in its index", fix="use an index that has wheels of it")
        yield Pin(canonicalize_name(requirement.name), version, hashes)


def _check_direct(requirements: Sequence[str], versions: Mapping[str, str]) -> None:
    """Raise where the user asks for another version of what the workers have: the plainest of conflicts, in our own words."""
    for text in requirements:
        requirement = Requirement(text)
        have = versions.get(canonicalize_name(requirement.name))
        is_meant = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if have is not None and is_meant and not requirement.specifier.contains(have, prereleases=True):
            raise RequirementsError(
                f"the job requires {text}, and the workers have {requirement.name} {have}, which is not replaced: {_RUNS_ON}",
                fix=f"allow {have} in `requirements`, or install the other version where the workers run",
            )


def _with_base(reason: str, versions: Mapping[str, str]) -> str:
    """The tool's reason; what it was told of the base is not what the user requires."""

    def told(found: re.Match[str]) -> str:
        name, version = found["name"], found["version"]
        return f"the workers have {name} {version}" if versions.get(canonicalize_name(name)) == version else found[0]

    return re.sub(
        r"(you require )?(?P<name>[\w.-]+)==(?P<version>[\w.+!-]+)(?=, we can conclude| and | are incompatible)", told, reason
    )
