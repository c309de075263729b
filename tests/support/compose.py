"""The services of deploy/compose as plain processes: the same commands, environment and files, other ports and folders."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from deploy.kafka.jars import resolve_jars
from dtrain.cli.ports import free_ports
from tests.support.kafka import REPOSITORY

FILE = REPOSITORY / "deploy" / "compose" / "compose.yaml"
DOCKERFILE = REPOSITORY / "deploy" / "docker" / "Dockerfile"
_PATIENCE_S = 150.0
_PORTS = re.compile(
    r"(?<![\w.-])(?P<host>[a-z][a-z-]*|0\.0\.0\.0|127\.0\.0\.1)?(?P<between>:|--port=|--node-port=)(?P<port>\d{4,5})\b"
)


def read(file: Path) -> dict[str, Any]:
    """The compose file as values, its anchors resolved."""
    value: dict[str, Any] = YAML(typ="safe").load(file)
    return value


class Compose:
    """Runs services of the file; each on ports of its own on loopback, and in a folder that stands for its mounts.

    Args:
        folder: for volumes, logs and scratch; with a short path, for Ray's sockets.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._services: dict[str, Any] = read(FILE)["services"]
        self._network = f"{random.randint(1, 254)}.{random.randint(0, 255)}"
        self._ports: dict[tuple[str, int], int] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Compose:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def place(self, service: str, port: int) -> str:
        """host:port at which others find here what they know as `service`:`port`.

        Each service has an address of loopback's own, as Ray wants of its nodes, and other ports, because Ray's listen on all addresses.
        """
        if (service, port) not in self._ports:
            (self._ports[service, port],) = free_ports(1)
        return f"{self._address(service)}:{self._ports[service, port]}"

    def start(self, service: str) -> None:
        """It runs, and its health check is content; if it ends before that, it is started again, as compose does."""
        self._begin(service)
        deadline_s = time.monotonic() + _PATIENCE_S
        while not self._is_healthy(service):
            if self._processes[service].poll() is not None:
                self._begin(service)
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{service} is not healthy; its log ends with: {self._last_words(service)}")
            time.sleep(1)

    def dtrain(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        """What `docker compose exec SERVICE dtrain WORDS` would say."""
        command = [*_PROGRAM, *(self._translated(service, word) for word in words)]
        return subprocess.run(command, env=self._environment(service), capture_output=True, text=True, check=False, timeout=240)

    def path(self, service: str, target: str) -> Path:
        """Where that is here which `service` knows as `target`."""
        return Path(self._translated(service, target))

    def log(self, service: str) -> Path:
        return self._folder / f"{service}.log"

    def eventually(self, is_so: Callable[[], bool], what: str, *, of: str) -> None:
        """`is_so`, or the log of the service that it is about."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not is_so():
            if time.monotonic() > deadline_s:
                raise AssertionError(f"never: {what}; its log ends with: {self._last_words(of)}")
            time.sleep(1)

    def _begin(self, service: str) -> None:
        command, environment = self._command(service)
        with self.log(service).open("ab") as log:
            self._processes[service] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._scratch(service),
            )

    def _last_words(self, service: str) -> str:
        return self.log(service).read_text(errors="replace")[-3000:]

    def _address(self, service: str) -> str:
        return f"127.{self._network}.{1 + list(self._services).index(service)}"

    def _command(self, service: str) -> tuple[list[str], dict[str, str]]:
        words = [self._translated(service, str(word)) for word in self._services[service].get("command", ())]
        environment = self._environment(service)
        if service == "kafka":
            return self._kafka(environment), environment
        if service == "prometheus":
            return ["prometheus", *words], environment
        return [*_PROGRAM, *words], environment

    def _environment(self, service: str) -> dict[str, str]:
        image = dict(re.findall(r"\b(DTRAIN_HOME|PYTHONUNBUFFERED)=(\S+)", DOCKERFILE.read_text()))
        is_ours = self._services[service]["image"].startswith("dtrain/")
        given = (image if is_ours else {}) | self._services[service].get("environment", {})
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "HOME": str(self._scratch(service))}
        return base | {name: self._translated(service, str(value)) for name, value in given.items()}

    def _kafka(self, environment: dict[str, str]) -> list[str]:
        """What the image does with its environment: KAFKA_A_B is the property a.b."""
        lines = {name[6:].lower().replace("_", "."): value for name, value in environment.items() if name.startswith("KAFKA_")}
        properties = self._scratch("kafka") / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        java = [
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            f"{resolve_jars(REPOSITORY / 'build' / 'kafka')}/*",
        ]
        form = [*java, "kafka.tools.StorageTool", "format", "--cluster-id=5L6g3nShT-eMCtK--X86sw", "-c", str(properties)]
        subprocess.run(form, capture_output=True, check=True)
        return [*java, "kafka.Kafka", str(properties)]

    def _is_healthy(self, service: str) -> bool:
        test = self._services[service].get("healthcheck", {}).get("test")
        if service in ("kafka", "prometheus"):  # whose checks are programs of their images
            return _answers(self.place(service, {"kafka": 9092, "prometheus": 9090}[service]))
        assert test[:2] == ["CMD", "dtrain"]
        return self.dtrain(service, *test[2:]).returncode == 0

    def _translated(self, service: str, text: str) -> str:
        """`text` with the places of here: hosts, ports, and paths of mounts."""
        for source, target in self._mounts(service):
            text = re.sub(rf"(?<![\w/.]){re.escape(target)}(?=/|$|[\s\]\"',])", str(source), text)

        def here(found: re.Match[str]) -> str:
            host, port = found["host"], int(found["port"])
            if found["between"] != ":":  # a flag that names a port alone
                return f"{found['between']}{self.place(service, port).rpartition(':')[2]}"
            named = host if host in self._services else service
            return self.place(named, port)

        return _PORTS.sub(here, text).replace("--node-ip=auto", f"--node-ip={self._address(service)}")

    def _mounts(self, service: str) -> list[tuple[Path, str]]:
        targets = (target.partition(":")[0] for target in self._services[service].get("tmpfs", ()))  # behind it: options
        found = [(self._scratch(service), target) for target in targets]
        for volume in self._services[service].get("volumes", ()):
            source, target = volume.split(":")[:2]
            found.append((self._source(service, source), target))
        return found

    def _source(self, service: str, source: str) -> Path:
        """A volume's folder, or a file of the repository; one that names hosts is translated as well."""
        if not source.startswith("."):
            made = self._folder / source
            made.mkdir(exist_ok=True)
            return made
        path = (FILE.parent / source).resolve()
        if path.name != "prometheus.yaml":
            return path
        copy = self._scratch(service) / path.name
        if not copy.exists():
            copy.touch()
            copy.write_text(self._translated(service, path.read_text()))
        return copy

    def _scratch(self, service: str) -> Path:
        folder = self._folder / f"s-{service}"
        folder.mkdir(exist_ok=True)
        return folder


_PROGRAM = [sys.executable, "-m", "dtrain.cli.main"]


def _answers(place: str) -> bool:
    from dtrain.cli.ports import answers

    return answers(place)


def programs_missing(*names: str) -> list[str]:
    """Those of `names` that this machine has not."""
    return [name for name in names if shutil.which(name) is None]
