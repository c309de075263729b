"""Processes that outlive the command which started them: begun, recorded, found again, ended. Needs Linux's /proc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dtrain.errors import CorruptError, StorageError

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Recorded:
    """A process that leads a session of its own, told from any later one that gets its number."""

    pid: int
    started: int
    """In the kernel's ticks since `boot`."""
    boot: str
    facts: Mapping[str, str]
    """What else is worth knowing: its address, its folder."""

    @property
    def is_alive(self) -> bool:
        """It runs; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat.is_running and stat.started == self.started and _boot() == self.boot

    def session(self) -> list[int]:
        """The processes of its session that run, also when the leader itself is dead."""
        leader = _stat(self.pid)
        if _boot() != self.boot or (leader is not None and leader.started != self.started):
            return []  # the number belongs to somebody else: a session keeps its own from being given away
        stats = ((int(name), _stat(int(name))) for name in os.listdir("/proc") if name.isdigit())
        return [pid for pid, stat in stats if stat is not None and stat.is_running and stat.session == self.pid]

    def end(self, *, grace_s: float) -> None:
        """Nothing of its session runs any more.

        Blocking: `grace_s` for it to end by itself, then as long as the kernel needs.
        """
        _send([self.pid] if self.is_alive else self.session(), signal.SIGTERM)
        deadline_s = time.monotonic() + grace_s
        while (left := self.session()) and time.monotonic() < deadline_s + 10:
            if time.monotonic() >= deadline_s or not self.is_alive:
                _send(left, signal.SIGKILL)
            time.sleep(_POLL_S)


def start(command: Sequence[str], *, environment: Mapping[str, str], log: Path, facts: Mapping[str, str]) -> Recorded:
    """`command` runs in a session of its own; what it says is added to `log`."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.returncode = 0  # it is not waited for; or Python would warn that it still runs
    stat = _stat(process.pid)
    return Recorded(process.pid, stat.started if stat else 0, _boot(), facts)


class Register:
    """`<home>/processes.json`: what was started there and not ended yet."""

    def __init__(self, home: Path) -> None:
        self._file = home / "processes.json"

    def __getitem__(self, role: str) -> Recorded | None:
        return self._read().get(role)

    def __setitem__(self, role: str, process: Recorded | None) -> None:
        """Durably so: whoever starts a process records it before anything else."""
        found = {**self._read(), role: process}
        text = json.dumps({name: asdict(one) for name, one in found.items() if one is not None}, indent=2)
        try:
            scratch = self._file.with_suffix(f".{os.getpid()}")
            scratch.write_text(text + "\n", encoding="utf-8")
            scratch.replace(self._file)
        except OSError as error:
            raise StorageError(f"{self._file} cannot be written: {error.strerror}", fix="free disk space") from error

    def _read(self) -> dict[str, Recorded]:
        try:
            value: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
            return {role: Recorded(**fields) for role, fields in value.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise CorruptError(f"{self._file} cannot be read", fix="end what it named by hand, and remove it") from error


@dataclass(frozen=True, slots=True)
class _Stat:
    is_running: bool
    session: int
    started: int


def _stat(pid: int) -> _Stat | None:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return _Stat(fields[0] not in "ZX", session=int(fields[3]), started=int(fields[19]))
    return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _send(pids: Sequence[int], kind: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, kind)


def last_line(log: Path, *, since: int) -> str:
    """The last line with words that was added to `log` behind byte `since`."""
    with log.open("rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
