"""The broker of the demo and the tests: it answers, keeps its data over a SIGKILL, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy.kafka.broker import Broker, find_broker
from deploy.kafka.jars import resolve_jars, resolved
from dtrain.errors import UnavailableError
from tests.support.kafka import REPOSITORY, Kafka

CACHE = REPOSITORY / "build" / "kafka"
needs_jars = pytest.mark.skipif(
    not (shutil.which("java") and (shutil.which("mvn") or resolved(CACHE).is_dir())), reason="no Java with Maven here"
)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Started by a thread that has ended since; it leaves nothing behind."""
    folder, started = tmp_path_factory.mktemp("broker") / "broker", list[Broker]()
    thread = threading.Thread(target=lambda: started.append(Broker.start(folder, libs=resolve_jars(CACHE))))
    thread.start()
    thread.join()
    with started[0] as broker:
        yield broker
        last = broker.pid
    assert last is not None
    assert not is_alive(last)


@needs_jars
def test_broker_outlives_the_thread_that_started_it(broker: Broker) -> None:
    with closing(Kafka(broker)) as kafka:
        assert kafka.produce(kafka.new_topic(), 0, [b"one"]) == [0]


@needs_jars
def test_broker_killed_and_restarted_keeps_address_and_records(broker: Broker) -> None:
    with closing(Kafka(broker)) as kafka:
        bootstrap, pid, topic = broker.bootstrap, broker.pid, kafka.new_topic()
        assert kafka.produce(topic, 0, [b"one"]) == [0]
        broker.kill()
        assert broker.pid is None
        broker.restart()
        assert kafka.produce(topic, 0, [b"two"]) == [1]
    assert broker.bootstrap == bootstrap
    assert broker.pid != pid


@needs_jars
def test_broker_restart_on_a_taken_port_says_so(broker: Broker) -> None:
    with socket.socket() as thief:
        broker.kill()
        host, port = broker.bootstrap.split(":")
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind((host, int(port)))
        thief.listen()
        with pytest.raises(UnavailableError, match=f"{port} is taken"):
            broker.restart()
        assert broker.pid is None
    broker.restart()


@needs_jars
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here")
def test_broker_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from deploy.kafka.broker import Broker\n"
        "print(Broker.start(Path(sys.argv[1]), libs=Path(sys.argv[2])).pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "broker"), str(resolve_jars(CACHE))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        descriptor = os.pidfd_open(pid)
        owner.send_signal(signal.SIGKILL)
    assert select.select([descriptor], [], [], 60)[0] == [descriptor]
    os.close(descriptor)


def test_broker_in_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UnavailableError, match="another broker"):
        Broker.start(tmp_path, libs=tmp_path, java=sys.executable)


def test_broker_without_java_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="install Java 17"):
        Broker.start(tmp_path / "broker", libs=tmp_path, java="no-such-java")


def test_broker_on_a_read_only_place_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="Not a directory"):
        Broker.start(tmp_path / "file" / "broker", libs=tmp_path, java=sys.executable)


def test_find_broker_with_an_address_takes_it_and_leaves_it_alone(tmp_path: Path) -> None:
    with find_broker(bootstrap="somewhere:9092", home=None, cache=tmp_path, folder=tmp_path) as broker:
        assert (broker.bootstrap, broker.pid) == ("somewhere:9092", None)
        with pytest.raises(UnavailableError, match="not ours"):
            broker.restart()


def test_find_broker_with_a_wrong_home_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="KAFKA_HOME"):
        find_broker(bootstrap=None, home=str(tmp_path), cache=tmp_path, folder=tmp_path)


def test_find_broker_with_nothing_names_every_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"KAFKA_BOOTSTRAP.*Java 17 and Maven"):
        find_broker(bootstrap=None, home=None, cache=tmp_path, folder=tmp_path)


def test_resolve_jars_that_maven_cannot_find_leaves_nothing(tmp_path: Path) -> None:
    if shutil.which("mvn") is None:
        pytest.skip("no Maven here")
    (tmp_path / "pom.xml").write_text("<project>")
    with pytest.raises(UnavailableError, match="resolving Kafka's jars failed"):
        resolve_jars(tmp_path / "cache", pom=tmp_path / "pom.xml")
    assert list((tmp_path / "cache").iterdir()) == []


@needs_jars
def test_find_broker_with_a_home_runs_its_jars(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "libs").symlink_to(resolve_jars(CACHE))
    with find_broker(
        bootstrap=None, home=str(tmp_path / "home"), cache=tmp_path / "none", folder=tmp_path / "broker"
    ) as broker:
        assert broker.pid is not None
        assert str(tmp_path / "home") in Path(f"/proc/{broker.pid}/cmdline").read_text()


def test_broker_that_cannot_run_names_the_fix(tmp_path: Path) -> None:
    """A program that is older than the jars, as Java says it."""
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'Error: UnsupportedClassVersionError: kafka/Kafka' >&2; exit 1\n")
    java.chmod(0o755)
    with pytest.raises(UnavailableError, match=r"UnsupportedClassVersionError: kafka/Kafka; install Java 17"):
        Broker.start(tmp_path / "broker", libs=tmp_path, java=str(java))
