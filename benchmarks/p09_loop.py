"""P9's loop: one process that trains, and now and then saves its whole state, as dtrain or as a peer does."""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from benchmarks.p01_workload import NUM_BLOCKS, NUM_FEATURES, Numbers, PerceptronTask, rows
from dtrain.checkpoint.places import open_store
from dtrain.rank import Rank
from dtrain.spec.job import BatchSpec, CheckpointSpec, JobSpec, SourceSpec
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange

PARTITION = Partition("memory", 0)
WARMUP, QUIET, BETWEEN, NUM_SAVES = 3, 12, 12, 4
"""Steps before anything is timed; steps without a save; steps from one save to the next; how many saves."""


class DtrainLoop:
    """A rank as a trainer drives it: snapshot at a control step, written behind by a thread."""

    def __init__(self, hidden: list[int], *, num_rows: int, folder: Path) -> None:
        spec = JobSpec(
            name="p9",
            task="benchmarks.p01_workload:PerceptronTask",
            params={"hidden": list(hidden)},
            source=SourceSpec(topic="memory", bootstrap="localhost:9092"),
            batch=BatchSpec(rows=num_rows),
            checkpoint=CheckpointSpec(to="unused"),
        )
        self._rank = Rank(spec, open_store(folder))
        self._rank.genesis({PARTITION: Position(0)})
        self._stager = self._rank.begin_alone()
        self._blocks = {number: _block(x, y) for number, (x, y) in enumerate(rows(num_rows))}
        self._num_rows = num_rows
        self._writer = ThreadPoolExecutor(1)

    @property
    def _progress(self) -> Progress:
        return self._rank.replica.progress

    def step(self) -> None:
        """Make one step."""
        offset = self._progress.step
        taken = RowRange(PARTITION, Position(offset), Position(offset + 1), self._num_rows, last_offset=offset)
        staged = self._stager.stage([(offset % NUM_BLOCKS, 0, self._num_rows)], self._blocks, num_rows=self._num_rows)
        plan = Plan(self._progress.plan_number + 1, StepKind.DATA, (taken,), self._num_rows)
        self._rank.step(plan, staged, newest_ms=0)

    def save(self) -> Future[Any]:
        self._rank.replica.control(Plan(self._progress.plan_number + 1, StepKind.CHECKPOINT))
        return self._writer.submit(self._rank.write, *self._rank.copy())


class PeerLoop:
    """A plain loop over the same rows, model and optimizer."""

    def __init__(self, hidden: list[int], *, num_rows: int, folder: Path) -> None:
        task, params = PerceptronTask(), {"hidden": hidden}
        torch.manual_seed(0)
        self._task = task
        self._folder = folder
        folder.mkdir()
        self._model = task.model(params)
        self._optimizer = task.optimizer(self._model, params)
        self._batches = [{"x": torch.from_numpy(x), "y": torch.from_numpy(y)} for x, y in rows(num_rows)]
        self._number = 0

    def step(self) -> None:
        """Make one step."""
        batch = self._batches[self._number % NUM_BLOCKS]
        self._number += 1
        self._optimizer.zero_grad()
        self._task.loss(self._model(batch["x"]), batch).mean().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def save(self) -> Future[Any]:
        """Begin to save; what is given ends when the state is on the disk."""
        raise NotImplementedError

    def _state(self) -> dict[str, Any]:
        return {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}


class TorchSaveLoop(PeerLoop):
    """`torch.save` and fsync, in the loop."""

    def save(self) -> Future[Any]:
        with (self._folder / f"{self._number}.pt").open("wb") as file:
            torch.save(self._state(), file)
            file.flush()
            os.fsync(file.fileno())
        done: Future[Any] = Future()
        done.set_result(None)
        return done


class DcpLoop(PeerLoop):
    """`torch.distributed.checkpoint.async_save` with a kept staging buffer; its files are synced, as by default."""

    def __init__(self, hidden: list[int], *, num_rows: int, folder: Path) -> None:
        super().__init__(hidden, num_rows=num_rows, folder=folder)
        self._stager = DefaultStager(StagingOptions(False, False, False, False))  # all of them need a GPU

    def save(self) -> Future[Any]:
        writer = dcp.FileSystemWriter(self._folder / str(self._number), sync_files=True)
        saved = dcp.async_save(self._state(), storage_writer=writer, async_stager=self._stager, no_dist=True)
        assert isinstance(saved, Future)
        return saved


LOOPS: dict[str, type[DtrainLoop | PeerLoop]] = {"dtrain": DtrainLoop, "torch_save": TorchSaveLoop, "dcp": DcpLoop}


def main() -> None:
    """Leave in `--out` what `_measure` found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=LOOPS)
    parser.add_argument("--hidden", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    loop = LOOPS[args.side](args.hidden, num_rows=args.rows, folder=args.folder / "state")
    _steps(loop, WARMUP)
    loop.save().result()
    (args.folder / "out.json").write_text(json.dumps(_measure(loop)), encoding="utf-8")


def _measure(loop: DtrainLoop | PeerLoop) -> dict[str, float]:
    """By how much a step is late at worst, and all steps together, because of a save; and until when it is on the disk."""
    _steps(loop, 1)
    quiet_s = median(_steps(loop, QUIET))
    gaps_s, lost_s, saved_s = [], [], []
    for _ in range(NUM_SAVES):
        began_s = time.perf_counter()
        saving = loop.save()
        saving.add_done_callback(lambda _, began_s=began_s: saved_s.append(time.perf_counter() - began_s))  # type: ignore[misc]
        steps_s = _steps(loop, BETWEEN, began_s=began_s)
        gaps_s.append(max(steps_s) - quiet_s)
        lost_s.append(sum(steps_s) - BETWEEN * quiet_s)
        saving.result()
    return {
        "step_ms": quiet_s * 1000,
        "gap_ms": max(gaps_s) * 1000,
        "lost_ms": median(lost_s) * 1000,
        "save_ms": median(saved_s) * 1000,
    }


def _steps(loop: DtrainLoop | PeerLoop, number: int, *, began_s: float | None = None) -> list[float]:
    """Seconds from the end of one step to the end of the next, the first from `began_s`."""
    ends_s = [time.perf_counter() if began_s is None else began_s]
    for _ in range(number):
        loop.step()
        ends_s.append(time.perf_counter())
    return [later - earlier for earlier, later in pairwise(ends_s)]


def _block(x: Numbers, y: Numbers) -> pa.RecordBatch:
    numbers = pa.array(x.reshape(-1))
    return pa.record_batch({"x": pa.FixedSizeListArray.from_arrays(numbers, NUM_FEATURES), "y": pa.array(y)})


if __name__ == "__main__":
    main()
