"""What people see of a job."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from rich.console import Console

from dtrain.cli.screen import JobScreen, checkpoints_table, figure, jobs_table, plain_line, seconds
from dtrain.job.lifecycle import State
from dtrain.job.status import Happening, JobStatus, Member, StoredEvent
from dtrain.job.view import Job, Update

STATUS = JobStatus(
    attempt=2,
    generation=3,
    world_size=2,
    step=1234,
    rows_trained=631_808,
    rows_filtered=1_000,
    rows_held_out=6_000,
    held_out_loss=0.4567,
    held_out_scores={"auroc": 0.625},
    rows_per_s=12_345.6,
    loss=0.4312,
    scores={"auroc": 0.63},
    total_scores={"auroc": 0.61},
    lag_rows=1024,
    lag_s=0.4,
    freshness_s=0.8,
    num_recoveries=1,
    last_recovery_s=0.093,
    last_checkpoint="p000000001200-a00000002",
    last_checkpoint_at_s=time.time() - 3,
    members=(Member("coordinator", 0, -1, 41, "n", "ready"), Member("trainer", 1, 0, 42, "n", "training")),
    updated_at_s=1.0,
)
JOB = Job("flights-x7k2p", "flights", State.RUNNING, "", "", "{}", time.time() - 60, 0.0, 1, STATUS)


def shown(value: object, *, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(value)
    return capture.get()


def screen(*updates: Update) -> JobScreen:
    found = JobScreen()
    for update in updates:
        found.add(update)
    return found


def test_screen_tells_everything_of_a_running_job() -> None:
    text = shown(screen(Update(JOB, (StoredEvent(1, Happening(0.0, "recovery", "trainer-0 was lost")),))))
    for words in (
        "flights-x7k2p  RUNNING",
        "attempt 2 · generation 3 · 2 workers",
        "1,234 · 631,808 rows trained · 1,000 filtered · 6,000 held out",
        "held-out loss",
        "0.4567",
        "held-out auroc",
        "0.4312",
        "0.61 over all rows",
    ):
        assert words in text
    for words in (
        "12,346",
        "1,024 rows · 400 ms",
        "800 ms old",
        "trainer-1 rank 0 (pid 42)",
        "p000000001200",
        "the last took 93 ms",
        "was lost",
    ):
        assert words in text


def test_screen_draws_each_status_once() -> None:
    later = replace(JOB, status=replace(STATUS, loss=0.2, updated_at_s=2.0))
    text = shown(screen(Update(JOB), Update(JOB), Update(later), Update(later)))
    assert "█▁" in text
    assert "██" not in text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_screen_keeps_to_its_width(width: int) -> None:
    assert max(map(len, shown(screen(Update(JOB)), width=width).splitlines())) <= width


def test_screen_of_a_job_that_never_ran_has_no_figures() -> None:
    text = shown(screen(Update(replace(JOB, state=State.QUEUED, message="waits for 2 CPUs", status=JobStatus()))))
    assert "waits for 2 CPUs" in text
    assert "attempt" not in text


def test_message_that_looks_like_markup_is_shown_as_it_is() -> None:
    blocked = replace(JOB, state=State.BLOCKED, reason="DATA_LOSS", message="rows [12, 40) of [/t] are gone")
    assert "DATA_LOSS: rows [12, 40) of [/t] are gone" in shown(screen(Update(blocked)))
    assert "[/t]" in shown(jobs_table([blocked]), width=200)


def test_plain_line_has_the_figures_that_move() -> None:
    line = plain_line(JOB)
    for words in ("RUNNING", "step 1,234", "12,346 rows/s", "loss 0.4312", "auroc 0.63", "lag 1,024 rows", "2 workers"):
        assert words in line


def test_checkpoints_corrupt_are_named() -> None:
    text = shown(checkpoints_table([{"name": "p1-a1", "is_sound": False, "problem": "blob abc is missing"}]))
    assert "CORRUPT: blob abc is missing" in text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.43123, "0.4312"), (1e-9, "1e-09"), (12345.6, "12,346")])
def test_figure_keeps_what_matters(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-1, "0 ms"), (0.093, "93 ms"), (5, "5.0 s"), (100, "100 s"), (600, "10 min"), (9000, "2 h"), (1e6, "12 d")],
)
def test_seconds_are_in_a_fitting_unit(value: float, text: str) -> None:
    assert seconds(value) == text
