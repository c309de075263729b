"""Random SIGKILLs of a whole job in one process, then the oracles: `python -m tests.fault.campaign --kills 200 --seed 7`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.store import CheckpointStore
from dtrain.spec.job import JobSpec
from tests.support.audit import audit_spec, id_messages, times_trained
from tests.support.kafka import Kafka, broker_from_environment

PRELOADED = ["torch", "pyarrow", "dtrain.local", "dtrain.replay.replay"]


@dataclass(frozen=True, slots=True)
class Campaign:
    """What came of it; `lost` and `doubled` are read off the weights, and again by the audit."""

    kills: int
    lives: int
    attempts: int
    steps: int
    lost: int
    doubled: int
    replay: str
    seconds: float


def run_campaign(
    kafka: Kafka, *, kills: int, seed: int, folder: Path, num_ids: int, rows: int = 16, shuffle_rows: int = 0
) -> Campaign:
    """Start the job, kill it after a random while, again and again; then write the end of its topic, let it finish, and count."""
    began_s, chance = time.monotonic(), random.Random(seed)
    topic = kafka.new_topic(partitions=4)
    messages = list(id_messages(num_ids, rows=rows))
    for partition in range(4):
        kafka.produce(topic, partition, messages[partition::4][:-1])
    ends = {partition: len(messages[partition::4]) for partition in range(4)}
    spec = audit_spec(
        topic=topic,
        bootstrap=kafka.bootstrap,
        folder=folder,
        num_ids=num_ids,
        ends=ends,
        batch={"rows": 16, "shuffle_rows": shuffle_rows},
        checkpoint={"every": 0.05},
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    store = open_store(folder)
    done = lives = 0
    while True:
        life = context.Process(target=live, args=(spec.to_json(), str(folder)))
        life.start()
        lives += 1
        if done < kills:
            _wait(life, store, chance)
        else:
            for partition in range(4):
                kafka.produce(topic, partition, messages[partition::4][-1:])
            life.join()
        if life.exitcode is not None:
            break
        os.kill(life.pid or 0, signal.SIGKILL)
        life.join()
        done += 1
    if life.exitcode != 0:
        raise AssertionError(f"the last life ended with {life.exitcode}")
    counts = times_trained(store)
    return Campaign(
        kills=done,
        lives=lives,
        attempts=len(store.attempts()),
        steps=store.find(None).progress.step,
        lost=counts.count(0),
        doubled=sum(count - 1 for count in counts if count > 1),
        replay=replayed(store, spec),
        seconds=round(time.monotonic() - began_s, 1),
    )


def _wait(life: multiprocessing.process.BaseProcess, store: CheckpointStore, chance: random.Random) -> None:
    """Let it live a while: one time in five from its very beginning, else from the claim of its attempt on."""
    attempts = len(store.attempts())
    if chance.random() < 0.2:
        life.join(timeout=chance.uniform(0.0, 1.5))
        return
    while life.exitcode is None and len(store.attempts()) == attempts:
        life.join(timeout=0.005)
    life.join(timeout=chance.uniform(0.0, 0.5))


def live(spec_json: str, folder: str) -> None:
    """One life of the job: until its end, or a SIGKILL."""
    from dtrain.job.status import Outcome
    from dtrain.local import run

    ended = run(JobSpec.from_json(spec_json), folder=Path(folder), on_status=lambda *_: None, should_stop=lambda: False)
    if ended.outcome is not Outcome.SUCCEEDED:
        print(ended.reason, ended.message, file=sys.stderr)
    sys.exit(0 if ended.outcome is Outcome.SUCCEEDED else 1)


def replayed(store: CheckpointStore, spec: JobSpec) -> str:
    """What replay says, which must be that all is equal."""
    from dtrain.replay.replay import replay
    from dtrain.stream.sources import open_source

    source = open_source(spec)
    verdict = replay(store, source=source)
    source.close()
    if not verdict.is_equal or verdict.audit.lost or verdict.audit.doubled:
        raise AssertionError(verdict.sentence)
    return verdict.sentence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--ids", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, broker_from_environment(Path(folder) / "broker") as broker:
        kafka = Kafka(broker)
        print(
            asdict(
                run_campaign(kafka, kills=options.kills, seed=options.seed, folder=Path(folder) / "job", num_ids=options.ids)
            )
        )
        kafka.close()


if __name__ == "__main__":
    main()
