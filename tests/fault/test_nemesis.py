"""A live job on Ray and Kafka, and a seeded list of processes to kill, the broker among them; oracles 1 and 2 at zero."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dtrain.checkpoint.store import CheckpointStore
from dtrain.job.status import Outcome
from dtrain.replay.replay import replay
from dtrain.stream.kafka import KafkaSource
from tests.support.audit import audit_spec, id_messages, times_trained
from tests.support.cluster import ClusterJob
from tests.support.kafka import Kafka, broker_from_environment

NUM_IDS = 40_000
NUM_KILLS = 8
VICTIMS = ("trainer", "trainer", "both trainers", "reader", "coordinator", "coordinator and trainer", "broker")


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    if "KAFKA_BOOTSTRAP" in os.environ:
        pytest.skip("the broker of KAFKA_BOOTSTRAP is not ours to kill")
    with broker_from_environment(tmp_path / "broker") as broker:
        kafka = Kafka(broker)
        yield kafka
        kafka.close()


def _produce(kafka: Kafka, topic: str, messages: list[bytes], stop: threading.Event) -> None:
    """One message after the other, each until it is acknowledged once (an idempotent producer), while brokers come and go."""
    producer = kafka.producer(enable_idempotence=True, retries=10_000, delivery_timeout_ms=600_000, max_block_ms=600_000)
    for number, message in enumerate(messages):
        if stop.wait(0.01):
            break
        producer.send(topic, message, partition=number % 4)
    producer.flush(timeout=120)
    producer.close(timeout=5)


def _kill(job: ClusterJob, kafka: Kafka, victim: str) -> None:
    if victim == "broker":
        kafka.broker.kill()
        time.sleep(0.5)
        kafka.broker.restart()
        return
    trainers, coordinators = job.pids("trainer"), job.pids("coordinator")
    victims = {
        "trainer": trainers[:1],
        "both trainers": trainers,
        "reader": job.pids("reader"),
        "coordinator": coordinators,
        "coordinator and trainer": [*coordinators, *trainers[:1]],
    }[victim]
    for pid in victims:
        with suppress(ProcessLookupError):  # it has just been replaced
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_live_job_random_kills_of_any_process_lose_and_double_nothing(own_kafka: Kafka, cluster: None, tmp_path: Path) -> None:
    chance = random.Random(12)  # eight kills, of every kind
    topic = own_kafka.new_topic(partitions=4)
    messages = list(id_messages(NUM_IDS, rows=16))
    spec = audit_spec(
        topic=topic,
        bootstrap=own_kafka.bootstrap,
        folder=tmp_path / "checkpoints",
        num_ids=NUM_IDS,
        ends={partition: len(messages[partition::4]) for partition in range(4)},
        workers={"min": 2, "max": 2, "cpus": 0.5},
        checkpoint={"every": 0.3},
    )
    stop = threading.Event()
    producing = threading.Thread(target=_produce, args=(own_kafka, topic, messages, stop))
    job = ClusterJob(spec, job_id=topic, logs=tmp_path / "logs")
    producing.start()
    try:
        for _ in range(NUM_KILLS):
            job.wait(lambda seen: seen.phase == "running" or seen.outcome is not Outcome.NONE)
            time.sleep(chance.uniform(0.0, 0.7))
            job.observe()
            _kill(job, own_kafka, chance.choice(VICTIMS))
        ended = job.wait_for_end(timeout_s=240)
    finally:
        stop.set()
        producing.join()
        job.close()
    assert ended.outcome is Outcome.SUCCEEDED
    store = CheckpointStore(tmp_path / "checkpoints" / topic)
    assert set(times_trained(store)) == {1}
    source = KafkaSource(spec.source)
    verdict = replay(store, source=source)
    source.close()
    assert verdict.is_equal, verdict.sentence
    assert (verdict.audit.lost, verdict.audit.doubled) == (0, 0)
