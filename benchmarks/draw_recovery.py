"""Draws a recovery as it was: three trainers of a real job, one of them killed, every applied step of each. Writes docs/recovery.svg.

`python -m benchmarks.draw_recovery`. The steps are those that the trainers' own traces hold, on the clock that the killer reads.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.p06_recovery import messages
from benchmarks.traces import Trace, read_traces
from benchmarks.world import CODE, Job, a_broker, a_cluster, new_topic, produce
from dtrain.spec.job import JobSpec

SHOWN_S = (-0.06, 0.20)
"""Around the kill."""

JOIN_S = 0.15
"""Around the newcomer's first step."""

WIDTH, ROW, LEFT = 860, 34, 190


def main() -> None:
    """One kill, one drawing."""
    with TemporaryDirectory(prefix="draw-") as name:
        folder = Path(name)
        (folder / "traces").mkdir()
        with a_broker(folder) as broker, a_cluster(folder, num_cpus=4, traces=folder / "traces"):
            topic = new_topic(broker)
            produce(broker, topic, messages())
            job = Job(_spec(topic, broker.bootstrap, folder), logs=folder / "logs")
            try:
                killed_s, victim = _kill(job, folder / "traces")
            finally:
                job.close()
        svg = "\n".join(_draw(read_traces(folder / "traces"), killed_s=killed_s, victim=victim))
    Path(CODE.parent, "docs", "recovery.svg").write_text(svg + "\n", encoding="utf-8")


def _spec(topic: str, bootstrap: str, folder: Path) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "draw",
            "task": "p01_workload:PerceptronTask",
            "code": str(CODE),
            "params": {"hidden": [128, 128], "lr": 0.001},
            "source": {"topic": topic, "bootstrap": bootstrap, "start": "earliest"},
            "batch": {"rows": 256},
            "workers": {"min": 3, "max": 3, "cpus": 0.5},
            "checkpoint": {"to": str(folder / "checkpoints"), "every": 60},
        }
    )


def _kill(job: Job, traces: Path) -> tuple[float, int]:
    """A trainer is killed in the middle of training; when, and which. Returns once its replacement has trained for a second."""
    job.wait(lambda seen: seen.phase == "running" and job.status.step > 400, timeout_s=120)
    victim = job.pids("trainer")[1]
    killed_s = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    job.wait(
        lambda seen: seen.status is not None and seen.status.world_size == 3 and len(read_traces(traces)) == 4, timeout_s=120
    )
    time.sleep(1.0)
    return killed_s, victim


def _draw(traces: Mapping[int, Trace], *, killed_s: float, victim: int) -> Iterator[str]:
    newcomer = max(traces, key=lambda pid: traces[pid]["at_s"][0])
    survivors = sorted(set(traces) - {victim, newcomer})
    back_s = max(_first(traces[pid], killed_s + 0.03) for pid in survivors)
    joined_s = float(traces[newcomer]["at_s"][0])
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 360" font-family="sans-serif" font-size="13">'
    yield f'<rect width="{WIDTH}" height="360" fill="#fff"/>'
    title = f"A trainer is killed: the survivors step again {1000 * (back_s - killed_s):.0f} ms after the SIGKILL"
    yield f'<text x="12" y="22" font-weight="bold">{title}</text>'
    rows = {"killed": victim, **{f"survivor {n}": pid for n, pid in enumerate(survivors, 1)}}
    yield from _panel(
        rows, traces, top=40, zero_s=killed_s, span_s=SHOWN_S, marks={"SIGKILL": 0.0, "stepping": back_s - killed_s}
    )
    pause = "Its replacement joins: training stands still while state is copied"
    yield f'<text x="12" y="204" font-weight="bold">{pause}, {joined_s - killed_s:.1f} s after the SIGKILL</text>'
    rows = {**{f"survivor {n}": pid for n, pid in enumerate(survivors, 1)}, "replacement": newcomer}
    span_s = (-JOIN_S, JOIN_S)
    yield from _panel(rows, traces, top=222, zero_s=joined_s, span_s=span_s, marks={"its first step": 0.0})
    yield "</svg>"


def _panel(
    rows: Mapping[str, int],
    traces: Mapping[int, Trace],
    *,
    top: int,
    zero_s: float,
    span_s: tuple[float, float],
    marks: Mapping[str, float],
) -> Iterator[str]:
    def x(at_s: float) -> float:
        return LEFT + (at_s - span_s[0]) / (span_s[1] - span_s[0]) * (WIDTH - LEFT - 20)

    bottom = top + ROW * len(rows)
    for number, (name, pid) in enumerate(rows.items()):
        y = top + ROW * number
        yield f'<text x="12" y="{y + 20}">{name} (pid {pid})</text>'
        yield f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y + 16}" y2="{y + 16}" stroke="#ddd"/>'
        inside = [at_s - zero_s for at_s in traces[pid]["at_s"].tolist() if span_s[0] <= at_s - zero_s <= span_s[1]]
        yield from (
            f'<line x1="{x(s):.1f}" x2="{x(s):.1f}" y1="{y + 6}" y2="{y + 26}" stroke="#2563eb" stroke-width="2"/>'
            for s in inside
        )
    for name, at_s in marks.items():
        yield f'<line x1="{x(at_s):.1f}" x2="{x(at_s):.1f}" y1="{top}" y2="{bottom}" stroke="#dc2626" stroke-dasharray="4 3"/>'
        yield f'<text x="{x(at_s) + 4:.1f}" y="{top + 4}" fill="#dc2626">{name}</text>'
    for step in range(round(span_s[0] * 100) // 5 * 5, round(span_s[1] * 100) + 1, 5):
        if span_s[0] <= step / 100 <= span_s[1]:
            yield f'<text x="{x(step / 100):.1f}" y="{bottom + 16}" text-anchor="middle" fill="#666">{10 * step} ms</text>'


def _first(trace: Trace, after_s: float) -> float:
    return float(trace["at_s"][trace["at_s"] > after_s][0])


if __name__ == "__main__":
    main()
