"""What an example starts, and ends again: broker, topic, control plane, commands. Nothing outlives the `with` block."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka.admin import KafkaAdminClient, NewTopic

from deploy.kafka.broker import find_broker

ROOT = Path(__file__).parents[1]
NUM_WORKERS = 2
"""That every example's job file asks for: Ray is told of so many CPUs at least."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where an example plays.

    Args:
        folder: of everything that it writes.
        bootstrap: Kafka's address.
        topic: made for this run alone.
    """

    folder: Path
    bootstrap: str
    topic: str

    @property
    def home(self) -> Path:
        """The control plane's own folder."""
        return self.folder / "home"

    @property
    def checkpoints(self) -> Path:
        """Where jobs keep theirs, each in a folder of its own."""
        return self.folder / "checkpoints"

    @property
    def environment(self) -> dict[str, str]:
        """Of every command: what the job file asks for, and which control plane is meant."""
        own = {"KAFKA_BOOTSTRAP": self.bootstrap, "DTRAIN_CHECKPOINTS": str(self.checkpoints), "DTRAIN_HOME": str(self.home)}
        return os.environ | own | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    @contextmanager
    def command(self, *words: str) -> Iterator[Command]:
        """`python -m words…`, running; ended with the block."""
        command = Command(words, environment=self.environment, log=self.folder / "logs" / f"{words[0].rpartition('.')[2]}.log")
        try:
            yield command
        finally:
            end(command.process)

    def dtrain(self, *words: str, timeout_s: float = 120) -> str:
        """What `dtrain words…` says on standard output once it has come to its end.

        Raises:
            SystemExit: it failed; its own words are shown.
        """
        command = [sys.executable, "-m", "dtrain.cli.main", *words]
        process = subprocess.Popen(
            command,
            env=self.environment,
            cwd=ROOT,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            said, complained = process.communicate(timeout=timeout_s)
        except BaseException:
            end(process, by=signal.SIGINT)  # so that `up` takes back what it has begun
            raise
        if process.returncode:
            raise SystemExit(f"dtrain {words[0]} failed: {(complained or said).strip()[-2000:]}")
        return said


def end(process: subprocess.Popen[Any], *, by: signal.Signals = signal.SIGTERM, timeout_s: float = 20) -> None:
    """The process is gone: asked by a signal, or else killed."""
    if process.poll() is None:
        process.send_signal(by)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Command:
    """A process of an example's, in a session of its own so that Ctrl-C reaches the example alone, which then ends it.

    Its lines of JSON are kept as they come; `last` is the newest.
    """

    def __init__(self, words: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        self.words = " ".join(words)
        self.lines: list[dict[str, Any]] = []
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words],
                env=environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def last(self) -> dict[str, Any]:
        """The newest line; nothing before the first."""
        return self.lines[-1] if self.lines else {}

    def check(self) -> None:
        """Raise SystemExit with its own words if it has failed."""
        if self.process.poll():
            raise SystemExit(f"{self.words} failed: {self._log.read_text(errors='replace').strip()[-2000:]}")

    def finish(self, *, timeout_s: float) -> list[dict[str, Any]]:
        """All of its lines, once it has come to its end."""
        self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        self.check()
        return self.lines

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with suppress(ValueError):  # what is not JSON is for people
                self.lines.append(json.loads(line))


@contextmanager
def set_up(folder: Path, *, topic: str, num_partitions: int) -> Iterator[Stage]:
    """A stage with a broker and an empty topic; what an earlier run left in `folder` is gone."""
    with broker(folder) as bootstrap, fresh_topic(bootstrap, topic, num_partitions=num_partitions) as name:
        yield Stage(folder, bootstrap, name)


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """The address of a broker: that of KAFKA_BOOTSTRAP, or one of our own in `folder`, of which nothing earlier is left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = find_broker(
        bootstrap=os.environ.get("KAFKA_BOOTSTRAP"),
        home=os.environ.get("KAFKA_HOME"),
        cache=ROOT / "build" / "kafka",
        folder=folder / "kafka",
    )
    with found:
        yield found.bootstrap


@contextmanager
def fresh_topic(bootstrap: str, name: str, *, num_partitions: int) -> Iterator[str]:
    """An empty topic, whose name begins with `name`; it is gone after the block."""
    topic = f"{name}-{time.strftime('%H%M%S')}-{os.getpid()}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics([NewTopic(topic, num_partitions=num_partitions, replication_factor=1)])
        yield topic
        admin.delete_topics([topic])
    finally:
        admin.close()


@contextmanager
def cluster(stage: Stage) -> Iterator[None]:
    """dtrain is up in the stage's home: Ray's head and the control plane; both are down after the block."""
    try:
        stage.dtrain("up", "--cpus", str(max(NUM_WORKERS, os.cpu_count() or 1)))
        yield
    finally:
        stage.dtrain("down")
