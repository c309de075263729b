"""Peers that cannot live in dtrain's own environment: each gets one below build/peers/, with pinned versions."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "build" / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """An environment.

    Args:
        name: of the folder.
        packages: pinned requirements; torch is that of dtrain's own environment.
        python: version that it needs.
        platform: for which to resolve, where the wheels ask for a newer C library than the machine has, although the parts
            that are used here are Python; empty for the machine's own.
    """

    name: str
    packages: tuple[str, ...]
    python: str = "3.11"
    platform: str = ""

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return FOLDER / self.name / "bin" / "python"

    def install(self) -> str:
        """The environment is there: an empty text, or why it is not."""
        wanted = "\n".join(self.packages)
        stamp = FOLDER / self.name / ".installed"
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return ""
        python = _find_python(self.python)
        if not python:
            return f"no Python {self.python} here"
        FOLDER.mkdir(parents=True, exist_ok=True)
        platform = ("--python-platform", self.platform) if self.platform else ()
        for command in (
            ("uv", "venv", "--quiet", "--clear", "--python", python, str(FOLDER / self.name)),
            (
                "uv",
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--python",
                str(self.interpreter),
                *platform,
                *self.packages,
            ),
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return " ".join(done.stderr.split())[-400:]
        stamp.write_text(wanted, encoding="utf-8")
        return ""


def _find_python(wanted: str) -> str:
    """An interpreter of that version: on the path, or one of pyenv's; empty for none."""
    on_path = shutil.which(f"python{wanted}") or ""
    kept = sorted(Path.home().glob(f".pyenv/versions/{wanted}.*/bin/python{wanted}"))
    for candidate in (on_path, *map(str, kept)):
        if candidate and subprocess.run([candidate, "--version"], capture_output=True, check=False).returncode == 0:
            return candidate
    return ""


TORCH = f"torch=={version('torch').partition('+')[0]}"
NUMPY = f"numpy=={version('numpy')}"

TORCHFT = Peer("torchft", ("torchft-nightly==2026.10.26", TORCH, NUMPY))
NVRX = Peer("nvrx", ("nvidia-resiliency-ext==0.7.0", TORCH, NUMPY), python="3.12", platform="x86_64-manylinux_2_39")
RAY_DATA = Peer(
    "ray-data",
    (f"ray[data,train]=={version('ray')}", "confluent-kafka==2.16.1", f"pyarrow=={version('pyarrow')}", TORCH, NUMPY),
)
