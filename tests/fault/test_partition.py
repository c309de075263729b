"""A cluster of two hosts, of which one is cut off, healed, or lost: network namespaces with a Ray node each; oracles 1 and 2."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray

from benchmarks.traces import TRACE, Trace, is_alive, read_traces
from dtrain.cli.ports import answers, free_ports
from dtrain.cli.processes import Recorded, start
from dtrain.job.status import Outcome
from dtrain.runtime.crew import NAMESPACE
from dtrain.runtime.trace import VARIABLE
from tests.support.audit import audit_spec, id_messages
from tests.support.cluster import ClusterJob
from tests.support.hosts import Network
from tests.support.kafka import Kafka

PATIENCE_S = 400.0
LEASE_S = 2.0
PARTITIONS, ROWS_A_MESSAGE, NUM_IDS = 3, 10, 20_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(Network.missing()), reason=f"no hosts of its own: {Network.missing()}"),
]


class TwoHosts:
    """A Ray cluster: its head and this process here, where Kafka is too; one more node on another host, once it has joined."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.here = network.address
        self.host = network.new_host()
        self.traces = folder / "traces"
        for made in (self.traces, folder / "logs"):
            made.mkdir()
        self._log = folder / "logs" / "ray.log"
        self._temp = tempfile.TemporaryDirectory(prefix="dtrain-ray-")
        self._nodes: list[Recorded] = []
        port, client_port = free_ports(2, address=self.here)
        self.address = f"{self.here}:{port}"
        ports = (f"--port={port}", f"--ray-client-server-port={client_port}")
        self._start((), self.here, 1, "--head", *ports, "--include-dashboard=false", f"--temp-dir={self._temp.name}")

    @property
    def num_nodes(self) -> int:
        """That Ray believes to be alive."""
        return sum(node["Alive"] for node in ray.nodes())

    def join(self) -> int:
        """A node on the other host is there, with room for two trainers; the process that is the node."""
        node = self._start(self.host.enter, self.host.address, 2, f"--address={self.address}")
        assert _until(lambda: bool(_raylets(node)) and self.num_nodes == 2)
        return _raylets(node)[0]

    def leave(self) -> None:
        """No node is on the other host."""
        self.host.heal()
        while len(self._nodes) > 1:
            self._nodes.pop().end(grace_s=2)
        assert _until(lambda: self.num_nodes == 1)

    def _start(self, enter: Sequence[str], address: str, cpus: int, *flags: str) -> Recorded:
        quiet = (
            "--block",
            "--no-monitor",
            "--disable-usage-stats",
            "--include-log-monitor=false",
            "--dashboard-agent-listen-port=0",
        )
        ports = ("--min-worker-port=0", "--max-worker-port=0")
        command = [*enter, sys.executable, "-m", "ray.scripts.scripts", "start", *flags, *quiet, *ports]
        environment = {
            **os.environ,
            VARIABLE: str(self.traces),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # despite its name: nodes may have other addresses than 127.0.0.1
            "RAY_enable_metrics_collection": "0",  # while a host's room is missing, Ray's head counts its tries all the time
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "1000",
            "RAY_health_check_failure_threshold": "4",
        }
        options = [f"--node-ip-address={address}", f"--num-cpus={cpus}"]
        self._nodes.append(start([*command, *options], environment=environment, log=self._log, facts={}))
        return self._nodes[-1]

    def close(self) -> None:
        for node in reversed(self._nodes):
            node.end(grace_s=2)
        self._temp.cleanup()


def _raylets(node: Recorded) -> list[int]:
    return [pid for pid in node.session() if "/raylet\0" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")]


@contextmanager
def _driving(address: str) -> Iterator[None]:
    """This process drives the cluster at `address`, and after it the one that it drove before."""
    before = ray.get_runtime_context().gcs_address if ray.is_initialized() else None
    ray.shutdown()
    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
        if before is not None:
            ray.init(address=before, namespace=NAMESPACE, log_to_driver=False)


class Scene:
    """One job on two hosts, which takes its time until it is told to hurry."""

    def __init__(self, hosts: TwoHosts, kafka: Kafka, folder: Path) -> None:
        self._hosts, self._folder = hosts, folder
        topic = kafka.new_topic(partitions=PARTITIONS)
        messages = list(id_messages(NUM_IDS, rows=ROWS_A_MESSAGE))
        for partition in range(PARTITIONS):
            kafka.produce(topic, partition, messages[partition::PARTITIONS])
        self._spec = audit_spec(
            topic=topic,
            bootstrap=kafka.bootstrap,
            folder=folder / "checkpoints",
            num_ids=NUM_IDS,
            ends={partition: len(messages[partition::PARTITIONS]) for partition in range(PARTITIONS)},
            task="hostile_task:HostileTask",
            params={"acts": {}, "folder": str(folder), "pace_s": 0.2, "slow_from": NUM_IDS * 2 // 3},
            batch={"rows": 16, "num_slices": 4},
            workers={"min": 1, "max": 3, "cpus": 1, "lease": LEASE_S},
            checkpoint={"every": 0.5},
        )

    def launch(self, workers: int) -> ClusterJob:
        """Nobody says where its coordinator is to be; the reader is beside it."""
        self.job = ClusterJob(self._spec, job_id=self._spec.source.topic, logs=self._folder / "logs", workers=workers)
        return self.job

    def begin_on(self, address: str) -> int:
        """The job's coordinator is there: Ray puts it anywhere, so others are killed before they have begun."""
        while self.job.wait(lambda seen: seen.status is not None) and not self.on(address, "coordinator"):
            self.job.kill("coordinator")
            self.job.wait(lambda seen: not seen.is_alive)
        return self.job.pids("coordinator")[0]

    def on(self, address: str, role: str = "trainer") -> set[int]:
        """The processes there, as the job was last observed."""
        return {m.pid for m in self.job.status.members if m.role == role and m.node == address}

    def spread(self) -> tuple[int, set[int]]:
        """When all train: the trainer that is here, and the two that are on the other host."""
        self.job.wait_for_world(3, timeout_s=PATIENCE_S)
        (here,), away = self.on(self._hosts.here), self.on(self._hosts.host.address)
        assert len(away) == 2
        self.goes_on(here)
        return here, away

    def log(self, name: str) -> str:
        return (self._folder / "logs" / self.job.record.job_id / name).read_text(encoding="utf-8")

    def trace(self, pid: int) -> Trace:
        return read_traces(self._hosts.traces).get(pid, np.empty(0, TRACE))

    def goes_on(self, pid: int, *, steps: int = 6) -> None:
        """It applies so many more."""
        num_before = len(self.trace(pid))
        assert _until(lambda: len(self.trace(pid)) >= num_before + steps)

    def pause_s(self, pid: int, *, since_s: float) -> float:
        """The longest time between two of its steps, from about then on."""
        times = self.trace(pid)["at_s"]
        return float(np.diff(times[times > since_s - LEASE_S]).max())

    def finish(self) -> None:
        """The job trains what is left as fast as it can, and has succeeded; oracles 1 and 2."""
        (self._folder / "hurry").touch()
        assert self.job.wait_for_end(timeout_s=PATIENCE_S).outcome is Outcome.SUCCEEDED
        self.job.check()

    def close(self) -> None:
        for happening in self.job.happenings:  # shown where a test fails
            if happening.kind != "checkpoint":
                print(f"{happening.at_s % 1000:.3f}", happening.message)
        self.job.close()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    with Network() as network, closing(TwoHosts(network, tmp_path_factory.mktemp("hosts"))) as hosts:
        assert _until(lambda: answers(hosts.address))
        with _driving(hosts.address):
            yield hosts


@pytest.fixture
def scene(hosts: TwoHosts, kafka: Kafka, tmp_path: Path) -> Iterator[Scene]:
    with closing(Scene(hosts, kafka, tmp_path)) as scene:
        yield scene
    hosts.leave()


def _until(is_true: Callable[[], bool], *, timeout_s: float = PATIENCE_S) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not is_true() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return is_true()


def test_host_cut_off_healed_and_lost_the_other_goes_on_alone_and_without_a_restart(hosts: TwoHosts, scene: Scene) -> None:
    job = scene.launch(1)
    (survivor,) = job.wait_for_world(1, timeout_s=PATIENCE_S)  # it, coordinator and reader are where the only node is
    node = hosts.join()
    job.launcher.scale(job.record.job_id, job.record.incarnation, 3)
    here, away = scene.spread()
    assert here == survivor

    hosts.host.cut()
    cut_s, generation = time.monotonic(), job.generation
    assert job.wait_for_world(1, after=generation) == {survivor}
    scene.goes_on(survivor)
    assert scene.pause_s(survivor, since_s=cut_s) < LEASE_S + 3.0
    assert len(job.told("is evicted: it has been silent for")) == 2
    written = {pid: len(scene.trace(pid)) for pid in away}
    assert all((scene.trace(pid)["at_s"] > cut_s).sum() <= 1 for pid in away)  # in its own memory, of which nobody knows
    hosts.host.heal()
    assert _until(lambda: not any(map(is_alive, away)))
    assert {pid: len(scene.trace(pid)) for pid in away} == written
    replaced = job.wait_for_world(3, after=job.generation, timeout_s=PATIENCE_S) - {survivor}
    assert replaced.isdisjoint(away)
    assert scene.on(hosts.host.address) == replaced
    scene.goes_on(survivor)

    os.kill(node, signal.SIGKILL)
    killed_s = time.monotonic()
    assert job.wait_for_world(1, after=job.generation) == {survivor}
    assert _until(lambda: not any(map(is_alive, replaced)))
    scene.goes_on(survivor)
    assert scene.pause_s(survivor, since_s=killed_s) < LEASE_S + 3.0
    hosts.join()
    assert job.wait_for_world(3, after=job.generation, timeout_s=PATIENCE_S) > {survivor}

    scene.finish()
    assert job.status.attempt == 1
    assert not job.told("going back")
    assert np.all(np.diff(scene.trace(survivor)["number"]) > 0)


def test_coordinators_host_cut_off_its_successor_fences_what_trains_on_there(
    hosts: TwoHosts, scene: Scene, kafka: Kafka
) -> None:
    hosts.join()
    job = scene.launch(3)
    with hosts.host.reaches(int(kafka.bootstrap.rpartition(":")[2])):
        cut_off = scene.begin_on(hosts.host.address)
        here, away = scene.spread()
        assert scene.on(hosts.host.address, "reader")
        incarnation, attempt = job.record.incarnation, job.status.attempt

        hosts.host.cut()
        cut_s, last = time.monotonic(), job.store.find(None).ref
        for pid in away:  # two of three, they read the topic, and the checkpoints' folder is theirs too
            scene.goes_on(pid)
            assert scene.pause_s(pid, since_s=cut_s) < LEASE_S + 3.0
        job.wait(lambda _: job.store.find(None).ref > last)
        assert job.wait_for_world(1, after=job.generation) == {here}
        assert job.status.attempt > attempt
        assert _until(lambda: not is_alive(cut_off))
        assert '"FENCED"' in scene.log(f"coordinator-{incarnation}.jsonl")
        written = {pid: len(scene.trace(pid)) for pid in away}
        scene.goes_on(here)
        assert {pid: len(scene.trace(pid)) for pid in away} == written
        (successor,) = scene.on(hosts.here, "coordinator")
        assert "libtorch" not in Path(f"/proc/{successor}/maps").read_text(encoding="utf-8")  # its import takes seconds

    hosts.host.heal()
    assert _until(lambda: not any(map(is_alive, away)))
    hosts.join()
    # Its successor may have booked what room was left, where the one trainer that is there was late to answer: then somebody asks for more.
    job.launcher.scale(job.record.job_id, job.record.incarnation, 3)
    job.wait_for_world(3, after=job.generation, timeout_s=PATIENCE_S)
    scene.finish()


def test_host_lost_with_all_trainers_the_job_goes_on_in_what_room_is_left(hosts: TwoHosts, scene: Scene, kafka: Kafka) -> None:
    node = hosts.join()
    with hosts.host.reaches(int(kafka.bootstrap.rpartition(":")[2])):  # the coordinator may be there too
        job = scene.launch(2)
        job.wait_for_world(2, timeout_s=PATIENCE_S)
        assert len(scene.on(hosts.host.address)) == 2  # packed where there are seats for both
        os.kill(node, signal.SIGKILL)
        assert _until(lambda: hosts.num_nodes == 1)
        job.wait_for_world(1, after=job.generation, timeout_s=PATIENCE_S)
    assert scene.on(hosts.here) == set(job.ranks)
    scene.finish()
