"""An index of packages in a folder, and wheels that no build tool makes: nothing of the tests' requirements comes from the network."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

INDEX = Path(__file__).resolve().parents[2] / "build" / "index"
"""What `UV_DEFAULT_INDEX` of all processes of the tests names; see conftest.py."""
_WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def offer(
    name: str, versions: Sequence[str], *, requires: Sequence[str] = (), modules: Mapping[str, str] | None = None
) -> None:
    """The index has a package in these versions, whose module of the same name says which one it is."""
    folder = INDEX / name
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    for version in versions:
        files = {f"{module}.py": f"VERSION = {version!r}\n", **(modules or {})}
        _put(folder / f"{module}-{version}-py3-none-any.whl", wheel(name, version, requires=requires, files=files))
    links = "".join(f'<a href="{path.name}">{path.name}</a><br>\n' for path in sorted(folder.glob("*.whl")))
    _put(folder / "index.html", links.encode())


def wheel(name: str, version: str, *, files: Mapping[str, str], requires: Sequence[str] = ()) -> bytes:
    """A wheel; the same bytes for the same words."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", *(f"Requires-Dist: {one}\n" for one in requires)]
    content = {**files, f"{info}/METADATA": "".join(metadata), f"{info}/WHEEL": _WHEEL}
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in content.items())
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for path, text in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            file.writestr(zipfile.ZipInfo(path, date_time=(2020, 1, 1, 0, 0, 0)), text)
    return made.getvalue()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _put(path: Path, content: bytes) -> None:
    """From one moment to the next: several processes of the tests offer the same."""
    unfinished = path.with_name(f".{uuid4().hex}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
