"""The base: the packages that a process has already, which dtrain itself runs on. None of them is ever replaced."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


class Base:
    """What can be imported here.

    Args:
        places: folders on the import path, the first above the later.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self._places = list(places)

    @classmethod
    def here(cls, *, without: Path) -> Base:
        """That of this process, without what lies below a folder: packages of a job that it has in use already."""
        return cls([place for place in sys.path if not Path(place).is_relative_to(without)])

    def version_of(self, name: str) -> str | None:
        """The version of a package; None where it is not there."""
        found = next(iter(distributions(name=name, path=self._places)), None)
        return found.version if found is not None else None

    def all(self) -> dict[str, Distribution]:
        """Every package by its normalised name; those whose metadata are damaged are left out."""
        found: dict[str, Distribution] = {}
        for one in distributions(path=self._places):
            if one.name and one.version and _is_version(one.version):
                found.setdefault(canonicalize_name(one.name), one)
        return found


def write_stubs(packages: Mapping[str, Distribution], folder: Path) -> None:
    """`folder` holds a wheel without content for each package.

    So a resolver finds the very versions that are there, those also that no index has (`2.13.0+cpu`, dtrain itself), and needs nothing else
    for them: they name no requirements but those of their extras, which may not be there.
    """
    for name, one in packages.items():
        stem = f"{name.replace('-', '_')}-{one.version}"
        head = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {one.version}", *_extras(one))
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{stem}.dist-info/METADATA", "\n".join(head) + "\n")
            wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{stem}.dist-info/RECORD", "")


def _extras(one: Distribution) -> Iterator[str]:
    """The lines of its metadata that name extras, and what they require. Read as text: to parse all metadata takes seconds."""
    text = one.read_text("METADATA") or one.read_text("PKG-INFO") or ""
    for line in text.partition("\n\n")[0].splitlines():
        is_required = line.startswith("Requires-Dist:") and re.search(r";.*\bextra\b", line)
        if is_required or line.startswith("Provides-Extra:"):
            yield line


def unmet(requirements: Sequence[str], folder: Path, base: Base) -> list[str]:
    """What is not as the requirements, and the packages in `folder`, want it: a sentence each.

    Args:
        requirements: of the job.
        folder: with the packages that were installed for it.
        base: what is there besides.
    """
    installed = {canonicalize_name(one.name): one for one in distributions(path=[str(folder)])}
    wanted = [("the job", text) for text in requirements]
    wanted += [(f"{name} {one.version}", text) for name, one in installed.items() for text in one.requires or ()]
    found = []
    for who, text in wanted:
        requirement = _applying(text)
        if requirement is None:
            continue
        name = canonicalize_name(requirement.name)
        version = installed[name].version if name in installed else base.version_of(name)
        if version is None:
            found.append(f"{who} requires {text}, which is not there")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{who} requires {text}, and the workers have {name} {version}")
    return found


def _applying(text: str) -> Requirement | None:
    """A requirement, where it is one on this interpreter and is none of an extra."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:  # of old packages, which resolvers do not look at either
        return None
    return requirement if requirement.marker is None or requirement.marker.evaluate({"extra": ""}) else None


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
