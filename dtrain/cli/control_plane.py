"""The control plane's process: `python -m dtrain.cli.control_plane HOME RAY_ADDRESS ADDRESS METRICS_ADDRESS [options]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

from dtrain import logs
from dtrain.cli.exits import Exit, exit_of
from dtrain.code.folder import FolderCodeStore
from dtrain.control.server import CODE, Settings, serve
from dtrain.errors import DtrainError
from dtrain.runtime.launcher import RayLauncher


def main(words: list[str]) -> int:
    """Serve until told to end; the exit code. Why it could not is the last line on standard error, for `dtrain up` to repeat."""
    asked = _parser().parse_args(words)
    folder = asked.home / "logs"
    logs.configure(file=None if asked.log_to_terminal else folder / "control-plane.jsonl")
    settings = Settings(
        asked.home,
        logs_dir=asked.job_logs or folder / "jobs",
        address=asked.address,
        metrics_address=asked.metrics_address,
        token_file=asked.token_file,
        is_job_metrics_on_node=asked.job_metrics == "node",
    )
    ended = _watch(asked.node_pid) if asked.node_pid else threading.Event()
    try:
        codes = FolderCodeStore(settings.home / CODE)  # read only: the control plane writes to it
        launcher = RayLauncher.connect(
            asked.ray_address, logs=settings.logs_dir, codes=codes, is_metrics_on_node=settings.is_job_metrics_on_node
        )
        asyncio.run(serve(settings, launcher))
    except DtrainError as error:
        sys.stderr.write(f"{error}\n")
        return exit_of(error.code)
    if ended.is_set():
        sys.stderr.write("the Ray node of this control plane has ended; start both again\n")
        return Exit.UNAVAILABLE
    return Exit.OK


def _watch(pid: int) -> threading.Event:
    """This process ends as by SIGTERM when its child `pid` has ended; the event tells that from being told to."""
    ended = threading.Event()

    def wait() -> None:
        os.waitpid(pid, 0)
        ended.set()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="node-watch", daemon=True).start()
    return ended


def _parser() -> argparse.ArgumentParser:
    """As `Settings` has them; `dtrain control-plane` describes them."""
    parser = argparse.ArgumentParser(prog="dtrain.cli.control_plane")
    parser.add_argument("home", type=Path)
    for name in ("ray_address", "address", "metrics_address"):
        parser.add_argument(name)
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--job-logs", type=Path)
    parser.add_argument("--job-metrics", choices=("loopback", "node"), default="loopback")
    parser.add_argument("--node-pid", type=int, default=0)
    parser.add_argument("--log-to-terminal", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
