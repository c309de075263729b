"""Folders of code, and archives that no client makes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def write_code(folder: Path, files: Mapping[str, str]) -> Path:
    """`folder` holds these files, besides what it held."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def read_code(folder: Path) -> dict[str, str]:
    """Every file below `folder`."""
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}


def tar_of(*entries: tuple[str, bytes, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """An archive of (name, kind, content)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "task.py"
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()
