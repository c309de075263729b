"""A trial of an example: it is trained by dtrain on two workers, by a plain loop, and both are compared."""

from __future__ import annotations

import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtrain import Client, local
from dtrain.job.lifecycle import State
from dtrain.job.status import JobStatus, Outcome
from dtrain.spec.job import JobSpec
from examples.comparison import compare
from examples.example import Example
from examples.following import until, until_step
from examples.messages import Message, of_rows, send
from examples.result import Result
from examples.stage import NUM_WORKERS, Stage
from examples.steplog import checkpoints

COMPARED_STEPS = 100
"""Within so many, `fast` promises weights that are equal within 1e-6."""
ONE_SLICE = {"batch__num_slices": 1, "workers": {"max": 1}, "train__numerics": "exact"}
"""A job that computes as a plain loop does: every step as one batch."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of an example.

    Args:
        example: which.
        stage: broker, an empty topic, and dtrain.
        client: of its control plane.
        tell: takes a line for people.
        num_steps: to train; 0 for the whole stream.
        kills: whether a worker is killed on the way.
    """

    example: Example
    stage: Stage
    client: Client
    tell: Callable[[str], None]
    num_steps: int = 0
    kills: bool = False

    def run(self) -> Result:
        """Train and compare.

        Raises:
            SystemExit: the job did not come to its end.
        """
        began_s = time.monotonic()
        step_rows = self.example.job(self.stage).batch.rows
        num_rows = min(self.example.num_rows, self.num_steps * step_rows or self.example.num_rows)
        messages = list(of_rows(self.example.messages(), start=0, stop=num_rows))
        num_compared = min(COMPARED_STEPS, num_rows // step_rows)
        job = self._job(messages)
        job_id = self.client.submit(job).job_id
        self.tell(f"submitted {job_id}: waiting for {NUM_WORKERS} workers")
        until(self.client, job_id, lambda seen: seen.status.world_size == NUM_WORKERS, what=f"{NUM_WORKERS} workers")
        status = self._train(job_id, messages, num_compared=num_compared, step_rows=step_rows)
        compared = compare(self.example, job, job.checkpoint.place_of(job_id), messages)
        metric = job.evaluate.metrics[0] if job.evaluate.metrics else "rmse"
        loss = status.total_loss if status.total_loss is not None else math.nan
        return Result(
            name=self.example.name,
            rows=status.rows_trained,
            steps=status.step,
            metric=metric,
            score=math.sqrt(loss) if metric == "rmse" else status.total_scores[metric],
            score_loop=compared.score(metric),
            score_constant=compared.constant(metric),
            loss=loss,
            loss_loop=compared.loss,
            compared_steps=num_compared,
            difference=compared.differences[num_compared],
            differences=compared.differences,
            is_once=compared.is_once,
            is_equal_to_the_bit=self._one_slice(list(of_rows(messages, start=0, stop=num_compared * step_rows))),
            num_kills=int(self.kills),
            num_recoveries=status.num_recoveries,
            seconds=time.monotonic() - began_s,
        )

    def _job(self, messages: Sequence[Message], **overrides: object) -> JobSpec:
        """The example's, which ends behind `messages`."""
        counts = Counter(message.partition for message in messages)
        ends = {partition: counts[partition] for partition in range(self.example.num_partitions)}
        return self.example.job(self.stage, source__end=ends, checkpoint__keep=1000, **overrides)

    def _train(self, job_id: str, messages: Sequence[Message], *, num_compared: int, step_rows: int) -> JobStatus:
        """Send the stream in parts: a worker is killed after the first, the weights are kept after the second."""
        middle, last = num_compared // 2 * step_rows, num_compared * step_rows
        num_rows = sum(message.num_rows for message in messages)
        self._send(messages, 0, middle)
        if self.kills:
            self._kill(job_id, step=num_compared // 4)
        self._send(messages, middle, last)
        if last < num_rows:
            until_step(self.client, job_id, num_compared)
            self.client.checkpoint(job_id)
            folder = Path(self.example.job(self.stage).checkpoint.place_of(job_id))
            until(
                self.client, job_id, lambda _: num_compared in checkpoints(folder), what=f"a checkpoint at step {num_compared}"
            )
            self.tell(f"a checkpoint at step {num_compared}; the rest of the stream follows")
            self._send(messages, last, num_rows)
        status = until(self.client, job_id, lambda job: job.state is State.SUCCEEDED, what="the end of the stream").status
        self.tell(f"the end of the stream: {status.rows_trained:,} rows in {status.step:,} steps")
        return status

    def _send(self, messages: Sequence[Message], start: int, stop: int) -> None:
        send(of_rows(messages, start=start, stop=stop), bootstrap=self.stage.bootstrap, topic=self.stage.topic)

    def _kill(self, job_id: str, *, step: int) -> None:
        seen = until_step(self.client, job_id, step).status
        victim = next(member for member in seen.members if member.role == "trainer" and member.rank == 0)
        os.kill(victim.pid, signal.SIGKILL)
        self.tell(f"at step {seen.step}: SIGKILL to the trainer of rank 0, pid {victim.pid}")

    def _one_slice(self, messages: Sequence[Message]) -> bool:
        """Whether a job of one slice, in this process and in `exact`, comes to the weights of the plain loop, bit by bit."""
        job = self._job(messages, name=f"{self.example.name}-one-slice", **ONE_SLICE)
        folder = job.checkpoint.place_of(job.name)
        end = local.run(job, folder=folder, on_status=lambda *_: None, should_stop=lambda: False)
        if end.outcome is not Outcome.SUCCEEDED:
            raise SystemExit(f"the job of one slice: {end.reason}: {end.message}")
        return compare(self.example, job, folder, messages).is_equal
