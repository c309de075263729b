"""The demo: one live job, from its first row to the proof that every row is in its weights once.

python -m examples.flights.demo
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from types import FrameType

from rich.console import Console
from rich.table import Table

from dtrain import Client, DtrainError
from dtrain.job.lifecycle import State
from examples.flights.data import flights
from examples.flights.figures import Figures
from examples.flights.produce import NUM_PARTITIONS, end_offsets
from examples.flights.proof import prove
from examples.flights.report import milliseconds, write
from examples.flights.show import Show
from examples.stage import NUM_WORKERS, ROOT, Stage, cluster, set_up

FOLDER = ROOT / "build" / "demo"
JOB_FILE = "examples/flights/job.yaml"
RATE = 5500
"""Rows a second that the producer sends."""
KILL_AT_STEP = 150
SUSPEND_AT_STEP = 330
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ROWS_MEANWHILE = 15_000
"""Rows that have to come while the job is suspended."""


def play(stage: Stage, *, console: Console, began_s: float) -> Figures:
    """The whole demo on a stage that is set up; leaves the report in its folder."""
    num_rows = flights().num_rows
    own = ["--set", f"source.topic={stage.topic}", "--set", f"source.end={json.dumps(end_offsets(num_rows))}"]
    with ExitStack() as stack:
        console.print("[bold]dtrain up[/bold]: Ray and the control plane, in a home of their own")
        stack.enter_context(cluster(stage))
        job_id = json.loads(stage.dtrain("submit", JOB_FILE, *own, "-o", "json"))["job_id"]
        client = stack.enter_context(Client.from_home(stage.home))
        show = Show(client, job_id, console=console, began_s=began_s)
        show.tell(f"[bold]dtrain submit {JOB_FILE}[/bold]: {job_id}")
        train(show, stage, stack)
        show.tell("three checks side by side: count every row, replay every step, train a model that is frozen after January")
        figures = prove(stage, show, job_file=JOB_FILE, own=own, began_s=began_s)
    page = write(stage.folder, figures, show.timeline)
    show.tell(f"the report: [bold]{page}[/bold]")
    return figures


def train(show: Show, stage: Stage, stack: ExitStack) -> None:
    """From the first row to the end of the stream, a kill and a pause on the way. Every wait is for something seen."""
    show.until(lambda job: job.status.world_size == NUM_WORKERS, what=f"{NUM_WORKERS} workers that wait for rows")
    options = ("--bootstrap", stage.bootstrap, "--topic", stage.topic, "--rate", str(RATE))
    show.producer = stack.enter_context(stage.command("examples.flights.produce", *options))
    show.tell(f"the producer begins: {RATE:,} flights a second, in the order of their schedule")
    show.until(lambda job: job.status.step >= KILL_AT_STEP, what=f"step {KILL_AT_STEP}")
    kill_a_trainer(show)
    show.until(lambda job: job.status.step >= SUSPEND_AT_STEP, what=f"step {SUSPEND_AT_STEP}")
    pause(show)
    show.until(lambda job: job.state is State.SUCCEEDED, what="the end of the stream")
    show.mark("finished", f"the end of the stream: {show.job.status.rows_trained:,} rows in {show.job.status.step} steps")


def kill_a_trainer(show: Show) -> None:
    """SIGKILL to the trainer of rank 0, and then to see that the others go on."""
    before = show.job.status
    victim = next(member for member in before.members if member.role == "trainer" and member.rank == 0)
    os.kill(victim.pid, signal.SIGKILL)
    show.mark("kill", f"at step {before.step}: SIGKILL to the trainer of rank 0, pid {victim.pid}")
    show.until(
        lambda job: job.status.num_recoveries > before.num_recoveries and job.status.step > before.step,
        what="training goes on after the kill",
    )
    show.recovery_s = show.job.status.last_recovery_s  # a resumed job counts anew
    lasted = milliseconds(show.recovery_s)
    show.mark(
        "recovered", f"training goes on, seen at step {show.job.status.step}: {lasted} from noticing the loss to the next step"
    )


def pause(show: Show) -> None:
    """Suspend, let rows come while nobody trains, and resume."""
    show.client.suspend(show.job.job_id)
    show.mark("suspend", f"at step {show.job.status.step}: dtrain suspend")
    show.until(lambda job: job.state is State.SUSPENDED, what="SUSPENDED")
    step, produced = show.job.status.step, show.produced
    show.mark("suspended", f"suspended after step {step}; no worker is left, and the flights go on coming")
    show.until(lambda _: show.produced >= produced + ROWS_MEANWHILE, what="rows come while nobody trains")
    show.client.resume(show.job.job_id)
    show.mark("resume", f"dtrain resume: {show.produced - produced:,} flights have come meanwhile")
    show.until(lambda job: job.state is State.RUNNING and job.status.step > step, what="training goes on after the pause")
    show.mark("resumed", f"training goes on, seen at step {show.job.status.step}, in attempt {show.job.status.attempt}")


def summary(figures: Figures) -> Table:
    """The figures for the terminal."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    rows = [
        ("produced", f"{figures.produced:,}"),
        ("trained", f"{figures.trained:,}"),
        ("lost", f"{figures.lost:,}"),
        ("doubled", f"{figures.doubled:,}"),
        (
            "AUROC, prequential",
            f"{figures.auroc:.3f}   frozen after January {figures.auroc_frozen:.3f}   constant {figures.auroc_constant:.1f}",
        ),
        ("recovery", milliseconds(figures.recovery_s)),
        ("replay", figures.replay),
        ("time", f"{figures.seconds:.0f} s"),
    ]
    for name, value in rows:
        table.add_row(f"[dim]{name}[/dim]", f"[bold]{value}[/bold]")
    return table


def main() -> int:
    """The command line. Leaves no process behind, however it ends."""
    console = Console(highlight=False, soft_wrap=True)
    began_s = time.monotonic()
    for kind in ENDS:
        signal.signal(kind, _interrupt)
    try:
        with set_up(FOLDER, topic="flights", num_partitions=NUM_PARTITIONS) as stage:
            console.print(f"[bold]Kafka[/bold] at {stage.bootstrap}, topic {stage.topic}")
            figures = play(stage, console=console, began_s=began_s)
    except KeyboardInterrupt:
        console.print("stopped; nothing of the demo is running any more")
        return 130
    except DtrainError as error:
        console.print(f"[red]{error}[/red]")
        return 1
    console.print(summary(figures))
    for check in figures.checks:
        if not check.holds:
            console.print(f"[red]does not hold: {check.claim}: {check.result}[/red]")
    return 0 if figures.all_hold else 1


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    for kind in ENDS:
        signal.signal(kind, signal.SIG_IGN)  # a second Ctrl-C would leave behind what the first is ending
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
