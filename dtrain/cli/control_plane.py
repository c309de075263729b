"""The control plane's process: `python -m dtrain.cli.control_plane HOME RAY_ADDRESS ADDRESS METRICS_ADDRESS`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dtrain import logs
from dtrain.cli.exits import Exit, exit_of
from dtrain.code.folder import FolderCodeStore
from dtrain.control.server import CODE, Settings, serve
from dtrain.errors import DtrainError
from dtrain.runtime.launcher import RayLauncher


def main(words: list[str]) -> int:
    """Serve until told to end; the exit code. Why it could not is the last line on standard error, for `dtrain up` to repeat."""
    home, ray_address, address, metrics_address = words
    folder = Path(home) / "logs"
    logs.configure(file=folder / "control-plane.jsonl")
    settings = Settings(Path(home), logs_dir=folder / "jobs", address=address, metrics_address=metrics_address)
    try:
        codes = FolderCodeStore(settings.home / CODE)  # read only: the control plane writes to it
        launcher = RayLauncher.connect(ray_address, logs=settings.logs_dir, codes=codes)
        asyncio.run(serve(settings, launcher))
    except DtrainError as error:
        sys.stderr.write(f"{error}\n")
        return exit_of(error.code)
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
