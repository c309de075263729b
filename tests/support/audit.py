"""Jobs whose weights count how often each record was trained: oracle 1."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from dtrain.checkpoint.store import CheckpointStore
from dtrain.snapshot import read_state
from dtrain.spec.job import JobSpec

CODE = Path(__file__).parent / "audit_code"
TASK_FILES = {name: (CODE / name).read_text(encoding="utf-8") for name in ("audit_task.py", "descent.py")}
"""What a folder of a test's own needs for a task that inherits `AuditTask`."""


def audit_spec(
    *, topic: str, bootstrap: str, folder: Path, num_ids: int, ends: dict[int, int], **changes: dict[str, object] | str
) -> JobSpec:
    """A job over `topic` that ends at `ends`; `changes` are laid over its sections."""
    job: dict[str, dict[str, object] | str] = {
        "name": "audit",
        "task": "audit_task:AuditTask",
        "code": str(CODE),
        "params": {"num_ids": num_ids},
        "source": {"topic": topic, "bootstrap": bootstrap, "start": "earliest", "end": ends},
        "batch": {"rows": 64, "max_wait": "20ms", "num_slices": 2},
        "train": {"reduction": "sum", "numerics": "exact"},
        "checkpoint": {"to": str(folder), "every": 0.1, "keep": 3},
    }
    for section, change in changes.items():
        known = job.get(section, {})
        job[section] = {**known, **change} if isinstance(known, dict) and isinstance(change, dict) else change
    return JobSpec.model_validate(job)


def id_messages(num_ids: int, *, rows: int) -> Iterator[bytes]:
    """Ids 0 … num_ids - 1 as Arrow messages of up to `rows` ids."""
    for first in range(0, num_ids, rows):
        batch = pa.record_batch({"id": pa.array(range(first, min(first + rows, num_ids)), pa.int64())})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield sink.getvalue()


def times_trained(store: CheckpointStore) -> list[int]:
    """By id, how often the newest checkpoint's weights say that it was trained."""
    manifest = store.find(None)
    state = read_state(store, blob=manifest.blob, progress=manifest.progress)
    return [round(-value) for value in state.tensors["model/weight"].flatten().tolist()]
