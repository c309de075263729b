"""How a job looks: as a screen for people, as one line for logs, as a row among other jobs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from dtrain.cli.sparkline import sparkline
from dtrain.job.lifecycle import State
from dtrain.job.status import Happening, JobStatus, Member
from dtrain.job.view import Job, LogLine, Update

_COLOURS = {
    State.RUNNING: "green",
    State.SUCCEEDED: "green",
    State.BLOCKED: "red",
    State.FAILED: "red",
    State.CANCELLED: "dim",
    State.SUSPENDED: "cyan",
}
_EVENT_COLOURS = {"recovery": "yellow", "blocked": "red", "failed": "red", "source": "yellow"}


class JobScreen:
    """A job as it is now, with what it was lately: each `add` may change what is rendered next."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._events: deque[Happening] = deque(maxlen=8)
        self._series: dict[str, deque[float | None]] = {}
        self._updated_at_s = 0.0

    def add(self, update: Update) -> None:
        """Show this from now on."""
        self._job, status = update.job, update.job.status
        self._events.extend(event.happening for event in update.events)
        if status.updated_at_s > self._updated_at_s:
            self._updated_at_s = status.updated_at_s
            scores = {"loss": status.loss, **status.scores, **_held_out(status)}
            for name, value in {**scores, "rows/s": status.rows_per_s}.items():
                self._series.setdefault(name, deque(maxlen=400)).append(value)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich prints."""
        if self._job is not None:
            yield Group(*self._parts(self._job, options.max_width))

    def _parts(self, job: Job, width: int) -> Iterable[RenderableType]:
        status = job.status
        yield Text.assemble((job.job_id, "bold"), "  ", state_text(job), "  ", (_group(job), "dim"))
        if job.message:
            yield Text(f"{job.reason}: {job.message}" if job.reason else job.message, style=_COLOURS.get(job.state, ""))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        others = "".join(f" · {count:,} {fate}" for fate, count in _not_trained(status) if count)
        skipped = f" · {status.offsets_skipped:,} offsets skipped" if status.offsets_skipped else ""
        grid.add_row("step", f"{status.step:,} · {status.rows_trained:,} rows trained{others}{skipped}")
        if status.waits_for:
            grid.add_row("waits for", f"rows of {', '.join(status.waits_for)}")
        for name, series in self._series.items():
            total = status.total_loss if name == "loss" else status.total_scores.get(name)
            whole = "" if total is None else f"  {figure(total)} over all rows"
            blocks = sparkline(series, width=max(10, min(60, width - 50))) if len(series) > 1 else ""
            grid.add_row(name, Text.assemble(f"{figure(series[-1]):>9}  ", (blocks, "cyan"), (whole, "dim")))
        grid.add_row("lag", f"{status.lag_rows:,} rows · {seconds(status.lag_s)}")
        age = status.freshness_s
        grid.add_row("freshness", "–" if age is None else f"newest trained row is {seconds(age)} old")
        grid.add_row("members", " · ".join(map(_member, status.members)) or "–")
        at = f", {seconds(time.time() - status.last_checkpoint_at_s)} ago" if status.last_checkpoint else ""
        grid.add_row("checkpoint", f"{status.last_checkpoint or '–'}{at}")
        last = f", the last took {seconds(status.last_recovery_s)}" if status.last_recovery_s is not None else ""
        grid.add_row("recoveries", f"{status.num_recoveries}{last}")
        yield grid
        for event in self._events:
            yield Text(event_line(event), style=_EVENT_COLOURS.get(event.kind, ""), overflow="ellipsis", no_wrap=True)


def plain_line(job: Job) -> str:
    """A job's moment in one line, for logs; without the time."""
    status = job.status
    words = [job.state.value, "" if job.state is State.RUNNING else job.message]
    if status.attempt:
        words += [f"step {status.step:,}", f"{status.rows_trained:,} rows", f"{status.rows_per_s:,.0f} rows/s"]
        words += [f"{name} {figure(value)}" for name, value in (*_scores(status), *_held_out(status).items())]
        words += [f"lag {status.lag_rows:,} rows", _workers(status), status.last_checkpoint]
    return "  ".join(filter(None, words))


def event_line(event: Happening) -> str:
    """An event in one line."""
    return f"{clock(event.at_s)}  {event.kind:<10}  {event.message}"


def jobs_table(jobs: Iterable[Job]) -> Table:
    """A row for each job."""
    table = _table("JOB", "STATE", "STEP", "ROWS", "ROWS/S", "LAG", "LOSS", "AGE", "WHY")
    for job in jobs:
        status, age = job.status, seconds(time.time() - job.created_at_s)
        rows = (f"{status.step:,}", f"{status.rows_trained:,}", f"{status.rows_per_s:,.0f}", f"{status.lag_rows:,}")
        table.add_row(job.job_id, state_text(job), *rows, figure(status.loss), age, Text(job.message or job.reason))
    return table


def checkpoints_table(values: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each checkpoint; one that cannot be read says why."""
    table = _table("CHECKPOINT", "STEP", "ROWS", "SIZE", "WRITTEN", "WHAT")
    for value in values:
        if "problem" in value:
            table.add_row(value["name"], "", "", "", "", Text(f"CORRUPT: {value['problem']}", style="bold red"))
            continue
        sound = Text("sound", style="green") if value.get("is_sound") else Text()
        notes = ["final"] * value["is_final"] + ["pinned"] * value["is_pinned"] + value["notes"]
        figures = (f"{value['step']:,}", f"{value['rows_trained']:,}", f"{value['num_bytes'] / 1e6:,.1f} MB")
        table.add_row(value["name"], *figures, when(value["written_at_s"]), sound.append(f" {', '.join(notes)}", style="dim"))
    return table


def _table(*names: str) -> Table:
    """Headers over columns of figures, on the right, and of words; the last may be wrapped."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in names:
        is_figure = name in {"STEP", "ROWS", "ROWS/S", "LAG", "LOSS", "SIZE"}
        table.add_column(name, justify="right" if is_figure else "left", no_wrap=name != names[-1])
    return table


def log_text(entry: LogLine) -> Text:
    """A log line in colours."""
    style = {"error": "red", "critical": "red", "warning": "yellow"}.get(entry.level, "")
    fields = " ".join(f"{key}={value}" for key, value in entry.fields.items())
    start = ((entry.timestamp[11:23], "dim"), "  ", (f"{entry.source:<12}", "cyan"), "  ")
    return Text.assemble(*start, (entry.message, style), "  ", (fields, "dim"))


def state_text(job: Job) -> Text:
    """The job's state in its colour."""
    return Text(f"{job.state.value}({job.reason})" if job.reason else job.state.value, style=_COLOURS.get(job.state, "yellow"))


def figure(value: float | None) -> str:
    """Four digits that matter."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 1:
        return f"{max(value, 0) * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return (
        f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.0f} h" if value < 172_800 else f"{value / 86_400:.0f} d"
    )


def when(at_s: float, style: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A moment in this machine's time zone."""
    return datetime.fromtimestamp(at_s).astimezone().strftime(style)


def clock(at_s: float) -> str:
    """The time of day."""
    return when(at_s, "%H:%M:%S")


def _scores(status: JobStatus) -> Iterable[tuple[str, float]]:
    return [("loss", status.loss), *status.scores.items()] if status.loss is not None else status.scores.items()


def _held_out(status: JobStatus) -> dict[str, float]:
    """Scores of rows that are never trained, as a person is told of them."""
    loss = {} if status.held_out_loss is None else {"loss": status.held_out_loss}
    return {f"held-out {name}": value for name, value in {**loss, **status.held_out_scores}.items()}


def _not_trained(status: JobStatus) -> Iterable[tuple[str, int]]:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(status.rejects.items()))
    yield f"rejected ({kinds})", status.rows_rejected
    yield "filtered", status.rows_filtered
    yield "duplicate", status.rows_duplicate
    yield "held out", status.rows_held_out


def _group(job: Job) -> str:
    status = job.status
    if not status.attempt:
        return ""
    return f"attempt {status.attempt} · generation {status.generation} · {_workers(status)}"


def _workers(status: JobStatus) -> str:
    return f"{status.world_size} worker{'' if status.world_size == 1 else 's'}"


def _member(member: Member) -> str:
    rank = f" rank {member.rank}" if member.rank >= 0 else ""
    number = f"-{member.index}" if member.role != "coordinator" else ""
    return f"{member.role}{number}{rank} (pid {member.pid}{'' if member.state == 'training' else ', ' + member.state})"
