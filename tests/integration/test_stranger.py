"""docs/topics.md as its reader follows it: a stranger's producer, `dtrain peek --write`, `dtrain local`; and what lag tools see."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer

from dtrain.cli.exits import Exit
from tests.support.kafka import Kafka

ROOT = Path(__file__).parents[2]
NUM_ROWS = 3000


def lines() -> list[str]:
    """Clicks as anybody would write them: names that vary in order, whole numbers among others, a text that no schema wants."""
    dice = random.Random(7)
    rows = []
    for number in range(NUM_ROWS):
        user, context = dice.randrange(1000), [round(dice.random(), 3) if i else 1 for i in range(4)]
        row = {"user": user, "context": context, "page": f"/p/{number % 7}", "clicked": int(context[1] > 0.5)}
        rows.append(json.dumps(dict(reversed(row.items())) if number % 2 else row))
    return rows


def send(bootstrap: str, topic: str, values: list[str]) -> None:
    """By kcat where it is installed, else by the library that it is made of: no code of ours, no client that we use."""
    if shutil.which("kcat"):
        command = ["kcat", "-P", "-b", bootstrap, "-t", topic]
        subprocess.run(command, input="\n".join(values).encode(), check=True, timeout=60)
        return
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in values:
        producer.produce(topic, value)
        producer.poll(0)
    assert producer.flush(60) == 0


def dtrain(folder: Path, bootstrap: str, *words: str) -> subprocess.CompletedProcess[str]:
    own = {"PYTHONPATH": str(ROOT), "DTRAIN_HOME": str(folder / "home"), "KAFKA_BOOTSTRAP": bootstrap}
    command = [sys.executable, "-m", "dtrain.cli.main", *words]
    return subprocess.run(command, cwd=folder, env=os.environ | own, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.slow
def test_json_topic_of_a_stranger_trains_by_the_docs_alone(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(name="Clicks.of_strangers", partitions=3)
    send(kafka.bootstrap, topic, lines())
    peeked = dtrain(tmp_path, kafka.bootstrap, "peek", topic, "--write", "clicks/")
    assert peeked.returncode == Exit.OK, peeked.stderr
    sets = [word for text in ("source.end=latest", "batch.rows=64", "params.lr=0.01") for word in ("--set", text)]
    run = dtrain(tmp_path, kafka.bootstrap, "local", "clicks/job.yaml", *sets, "-o", "json")
    assert run.returncode == Exit.OK, run.stderr
    last = json.loads(run.stdout.splitlines()[-1])
    assert (last["outcome"], last["rows_trained"], last["rows_rejected"]) == ("succeeded", NUM_ROWS, 0)
    assert last["total_scores"]["auroc"] > 0.6
    ends = {partition["partition"]: partition["end_offset"] for partition in last["partitions"]}
    assert kafka.committed("dtrain-clicks-of-strangers") == ends
