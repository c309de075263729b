"""A broker of one's own for the demo and the tests: Apache Kafka, KRaft, one process, free loopback ports, its own folder."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from deploy.kafka.jars import POM, class_archive, fresh_data, resolve_jars, resolved
from deploy.kafka.programs import disk_errors, failed, run
from dtrain.cli.ports import free_ports
from dtrain.errors import UnavailableError

DOCKER_IMAGE = "apache/kafka:4.3.1"

_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


@dataclass(frozen=True, slots=True)
class Listener:
    """A door of a broker besides the plain one.

    Args:
        protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; what else it needs is among the broker's settings.
        advertised: host:port that clients are told to come to, as that of a proxy; empty for its own.
    """

    protocol: str
    advertised: str = ""


class Broker:
    """A broker that answers at `bootstrap`.

    Its life is tied to this process: where util-linux's `setpriv` exists, the kernel ends the broker when this process ends,
    however it ends. Elsewhere it lives until `close`.

    Args:
        bootstrap: host:port of its listener.
        folder: of its data and its log; None for a broker that somebody else runs, which `close` leaves alone.
        command: starts it in the foreground.
        again: starts it once more with the data that it had; empty for `command`.
        remove: frees what is left of it after its end; empty for nothing.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        folder: Path | None = None,
        command: Sequence[str] = (),
        again: Sequence[str] = (),
        remove: Sequence[str] = (),
    ) -> None:
        self.bootstrap = bootstrap
        self.addresses: dict[str, str] = {}
        """Of its listeners besides the plain one, by name."""
        self.controller = ""
        """Where others join its cluster; empty where they cannot."""
        self._folder = folder
        self._command = tuple(command)
        self._again = tuple(again or command)
        self._remove = tuple(remove)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        libs: Path,
        java: str = "java",
        listeners: Mapping[str, Listener] | None = None,
        settings: Mapping[str, str] | None = None,
        join: Broker | None = None,
        dump: Path | None = None,
        timeout_s: float = 60,
    ) -> Broker:
        """A fresh broker from Kafka's jars in `libs`, answering.

        Args:
            folder: for its data, settings and log `kafka.log`; made if missing, and must not hold a broker's data.
            libs: folder of jars.
            java: the program, version 17 or later.
            listeners: more of them, by name in capitals; their addresses are in `addresses`.
            settings: server properties besides ours, as {"log.retention.ms": "1000"}.
            join: node 1 of a cluster, begun here, of which this is node 2; None for one alone.
            dump: where to write, at its end, the classes that it has loaded, for later ones to begin with; None for nowhere.
            timeout_s: longest wait for its listener.

        Raises:
            UnavailableError: no Java, no disk, port taken, or it does not answer. No process is left.
        """
        if shutil.which(java) is None:
            raise UnavailableError(f"no program {java!r} to run a broker with", fix="install Java 17 or set KAFKA_BOOTSTRAP")
        if (folder / "data").exists():
            raise UnavailableError(f"{folder} holds the data of another broker", fix="remove it, or name another folder")
        listeners = listeners or {}
        port, controller, *others = free_ports(2 + len(listeners))
        addresses = {name: f"127.0.0.1:{other}" for name, other in zip(listeners, others, strict=True)}
        properties = folder / "server.properties"
        lines = _properties(port, controller, host="127.0.0.1") | {"log.dirs": str(folder / "data")}
        if join is not None:
            lines |= _joining(port, join.controller)
        for name, listener in listeners.items():
            lines["listeners"] += f",{name}://{addresses[name]}"
            lines["advertised.listeners"] += f",{name}://{listener.advertised or addresses[name]}"
            lines["listener.security.protocol.map"] += f",{name}:{listener.protocol}"
        lines |= settings or {}
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        program, classpath = (java, *_JVM), ("-cp", f"{libs}/*")
        _format(folder, properties, program=(*program, *classpath), libs=libs, join=join)
        classes = _kept_classes(libs) if dump is None else (f"-XX:ArchiveClassesAtExit={dump}",)
        command = (*_dies_with_us("KILL"), *program, *classes, *classpath, "kafka.Kafka", str(properties))
        broker = cls(f"127.0.0.1:{port}", folder=folder, command=command)
        broker.addresses = addresses
        broker.controller = "" if join is not None else f"127.0.0.1:{controller}"
        broker._begin(command, timeout_s=timeout_s)
        return broker

    @classmethod
    def start_docker(cls, folder: Path, *, image: str = DOCKER_IMAGE, timeout_s: float = 180) -> Broker:
        """A fresh broker in a container, answering; the image is pulled when it is missing.

        Raises:
            UnavailableError: no Docker, or it does not answer.
        """
        port, controller = free_ports(2)
        name = f"dtrain-kafka-{port}-{uuid.uuid4().hex[:8]}"
        settings = _properties(port, controller, host="0.0.0.0")  # noqa: S104 - inside the container; published on loopback
        values = [f"--env=KAFKA_{key.replace('.', '_').upper()}={value}" for key, value in settings.items()]
        begin = ("docker", "run", "--name", name, "-p", f"127.0.0.1:{port}:{port}", *values, image)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        broker = cls(
            f"127.0.0.1:{port}",
            folder=folder,
            command=(*_dies_with_us("TERM"), *begin),
            again=(*_dies_with_us("TERM"), "docker", "start", "--attach", name),
            remove=("docker", "rm", "--force", name),
        )
        try:
            broker._begin(broker._command, timeout_s=timeout_s)
        except UnavailableError:
            broker.close()
            raise
        return broker

    @property
    def cluster_id(self) -> str:
        """Of the cluster that it was formatted for."""
        assert self._folder is not None  # noqa: S101 - only brokers of our own are joined
        lines = (self._folder / "data" / "meta.properties").read_text().splitlines()
        return next(line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id="))

    @property
    def pid(self) -> int | None:
        """Of its process (Docker: of the container's client); None when it does not run, or is somebody else's."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def stop(self, *, timeout_s: float = 10) -> None:
        """End it as one ends a server, with SIGTERM, and with SIGKILL after `timeout_s`. May be called twice."""
        self._end(signal.SIGTERM, timeout_s=timeout_s)

    def kill(self) -> None:
        """End it with SIGKILL, in the middle of whatever it does."""
        if self._remove and self.pid is not None:
            run(("docker", "kill", self._remove[-1]), what="killing a broker's container")
        self._end(signal.SIGKILL, timeout_s=10)

    def restart(self, *, timeout_s: float = 60) -> None:
        """Start it again after `stop` or `kill`, with the same address and the same data.

        Raises:
            UnavailableError: it is not ours, its port was taken meanwhile, or it does not answer.
        """
        if self._folder is None:
            raise UnavailableError(f"the broker at {self.bootstrap} is not ours to restart", fix="unset KAFKA_BOOTSTRAP")
        self.stop()
        self._begin(self._again, timeout_s=timeout_s)

    def close(self) -> None:
        """End it for good; its folder stays. May be called twice."""
        self.stop()
        if self._remove:
            subprocess.run(self._remove, capture_output=True, check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _begin(self, command: Sequence[str], *, timeout_s: float) -> None:
        assert self._folder is not None  # noqa: S101 - only brokers of our own are begun
        log = self._folder / "kafka.log"
        host, _, port = self.bootstrap.rpartition(":")
        if _is_taken(host, int(port)):
            raise UnavailableError(f"{self.bootstrap} is taken by another process", fix="end that one, or start a new broker")
        with disk_errors(self._folder), log.open("ab") as output:
            self._process = _spawner().submit(_spawn, command, output).result()
        deadline = time.monotonic() + timeout_s
        while not _answers(host, int(port)) and self.pid is not None:
            if time.monotonic() > deadline:
                self.kill()
                raise UnavailableError(
                    f"the broker did not answer at {self.bootstrap} within {timeout_s:g} s", fix=f"see {log}"
                )
            time.sleep(0.05)
        if self.pid is None:
            raise failed("the broker ended at once", log.read_text(errors="replace")[-20_000:], fix=f"see {log}")

    def _end(self, kind: signal.Signals, *, timeout_s: float) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(kind)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def find_broker(*, bootstrap: str | None, home: str | None, cache: Path, folder: Path, pom: Path = POM) -> Broker:
    """The broker to use; a context manager that ends it if it was started here.

    In this order: the address given; the jars of the Kafka at `home`; Java and Maven, which resolves `pom` into `cache` once;
    Docker.

    Args:
        bootstrap: address of a running broker, or None.
        home: an unpacked Kafka distribution, with `libs/` in it, or None.
        cache: folder that keeps the jars from run to run, as build/kafka.
        folder: for the data of a broker that is started; as in `Broker.start`.
        pom: names the jars.

    Raises:
        UnavailableError: none of them is there, or it does not start.
    """
    if bootstrap:
        return Broker(bootstrap)
    if home:
        if not list(Path(home, "libs").glob("kafka_*.jar")):
            raise UnavailableError(f"KAFKA_HOME: no libs/kafka_*.jar in {home}", fix="name the folder of an unpacked Kafka")
        return Broker.start(folder, libs=Path(home, "libs"))
    if pom.is_file() and shutil.which("java") and (shutil.which("mvn") or resolved(cache, pom=pom).is_dir()):
        return Broker.start(folder, libs=resolve_jars(cache, pom=pom))
    if shutil.which("docker"):
        return Broker.start_docker(folder)
    raise UnavailableError(
        "no Kafka: neither an address, nor Java with Maven, nor Docker",
        fix="set KAFKA_BOOTSTRAP=host:port, or install Java 17 and Maven (Debian: openjdk-17-jre-headless, maven)",
    )


def _format(folder: Path, properties: Path, *, program: Sequence[str], libs: Path, join: Broker | None) -> None:
    """`folder` holds a fresh broker's data; beside jars of ours a copy is kept for the next one, for it costs seconds of a JVM."""
    kept = fresh_data(libs) if join is None else None
    with disk_errors(folder):
        if kept is not None and kept.is_dir():
            shutil.copytree(kept, folder / "data")
            return
    cluster = join.cluster_id if join is not None else urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    words = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties))
    run((*program, *words), what="formatting a broker")
    if kept is not None:
        with disk_errors(folder), tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
            shutil.copytree(folder / "data", Path(temporary, "data"))
            with contextlib.suppress(OSError):  # another process was faster
                Path(temporary, "data").rename(kept)


def _kept_classes(libs: Path) -> tuple[str, ...]:
    """The JVM's option for what it need not load from the jars; none where nothing is kept."""
    archive = class_archive(libs)
    return (f"-XX:SharedArchiveFile={archive}",) if archive is not None and archive.is_file() else ()


def _properties(port: int, controller: int, *, host: str) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        # After SIGKILL a broker waits for its own old session to end before it answers again.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


def _joining(port: int, controller: str) -> dict[str, str]:
    """What a second broker has otherwise than the first, whose `controller` it is told by."""
    return {
        "process.roles": "broker",
        "node.id": "2",
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port}",
    }


@cache
def _spawner() -> ThreadPoolExecutor:
    """A thread that lives as long as this process: the kernel ends a broker with the *thread* that started it."""
    return ThreadPoolExecutor(1, thread_name_prefix="broker-spawner")


def _spawn(command: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)


def _dies_with_us(kind: str) -> tuple[str, ...]:
    """A prefix that has the kernel signal the command when we end, without code of ours between fork and exec."""
    return ("setpriv", "--pdeathsig", kind) if shutil.which("setpriv") else ()


def _is_taken(host: str, port: int) -> bool:
    """Whether anybody listens there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _answers(host: str, port: int) -> bool:
    """Whether a broker answers there, and not only a container's proxy: it is asked for its API versions."""
    question = struct.pack(">ihhih", 10, 18, 0, 1, -1)  # size, ApiVersions, version 0, correlation id, no client id
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1) as connection:
        connection.sendall(question)
        return len(connection.recv(4)) == 4
    return False
