"""Commands about jobs: each is one call of the SDK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from dtrain.cli import home
from dtrain.cli.output import Form, Output, console, emit, job_value, line
from dtrain.cli.words import JobFile, JobName, Sets, overrides
from dtrain.errors import InputError

if TYPE_CHECKING:
    from dtrain.client.client import Client
    from dtrain.job.view import Job


def submit(
    file: JobFile,
    sets: Sets = None,
    request_id: Annotated[str | None, Option(help="Submitting again with the same id answers the same job.")] = None,
    is_watched: Annotated[bool, Option("--watch", help="Stay and show how it goes.")] = False,
    output: Output = Form.TABLE,
) -> int:
    """Check a job file and hand the job over."""
    from dtrain.cli.watch import follow
    from dtrain.spec.load import load_job

    spec = load_job(file, environment=home.environment(), overrides=overrides(sets))
    with home.client() as client:
        job = client.submit(spec, request_id=request_id, besides=[home.home()])
        if is_watched:
            return follow(client, job.job_id, output)
    _show(job, output, lambda: f"submitted {job.job_id}\nsee it with: dtrain watch {job.job_id}")
    return 0


def get(job: JobName, output: Output = Form.TABLE) -> None:
    """Show one job."""
    _show(_ask(lambda client: client.get(job)), output)


def list_jobs(
    state: Annotated[str | None, Option(help="Only jobs in this state, as RUNNING.")] = None, output: Output = Form.TABLE
) -> None:
    """Show all jobs, oldest first."""
    from dtrain.cli.screen import jobs_table
    from dtrain.job.lifecycle import State

    if state is not None and state.upper() not in State.__members__:
        raise InputError(f"there is no state {state!r}", fix=f"use one of {', '.join(State)}")
    wanted = State(state.upper()) if state else None
    jobs = _ask(lambda client: list(client.list(state=wanted)))
    table = (lambda: jobs_table(jobs)) if jobs else (lambda: "no jobs")
    emit([job_value(job) for job in jobs], output, table=table, name=[job.job_id for job in jobs])


def watch(job: JobName, output: Output = Form.TABLE) -> int:
    """Show how a job goes until it is over; Ctrl-C leaves it running."""
    from dtrain.cli.watch import follow

    with home.client() as client:
        return follow(client, client.get(job).job_id, output)


def logs(
    job: JobName,
    tail: Annotated[int | None, Option(min=0, help="Only the last so many lines.")] = None,
    is_followed: Annotated[bool, Option("-f", "--follow", help="Go on until the job is over.")] = False,
    output: Output = Form.TABLE,
) -> None:
    """Show what a job's processes logged."""
    from dtrain.cli.screen import log_text

    out = console()
    with home.client() as client:
        for entry in client.logs(job, tail=tail, follow=is_followed):
            if output is Form.TABLE:
                out.print(log_text(entry), soft_wrap=True)
            else:
                line(entry, output)


def suspend(job: JobName, output: Output = Form.TABLE) -> None:
    """Stop a job after a last checkpoint, to go on later."""
    _show(_ask(lambda client: client.suspend(job)), output)


def resume(
    job: JobName,
    accept_code_change: Annotated[
        bool, Option("--accept-code-change", help="Send the code in the job's folder again and go on with it; it is logged.")
    ] = False,
    code: Annotated[Path | None, Option(help="Go on with the code in this folder.")] = None,
    is_code_kept: Annotated[
        bool, Option("--keep-code", help="Go on with the code as it was sent, whatever became of its folder.")
    ] = False,
    skip_step: Annotated[
        bool, Option("--skip-step", help="Leave out the step that killed its processes; it is logged.")
    ] = False,
    allow_gap: Annotated[
        bool, Option("--allow-gap", help="Go on from where records are left, if its topic has lost some; it is logged.")
    ] = False,
    output: Output = Form.TABLE,
) -> None:
    """Let a suspended or blocked job go on where it stopped."""
    resumed = _ask(
        lambda client: client.resume(
            job,
            accept_code_change=accept_code_change,
            skip_step=skip_step,
            allow_gap=allow_gap,
            code=code,
            keep_code=is_code_kept,
            besides=[home.home()],
        )
    )
    _show(resumed, output)


def scale(
    job: JobName,
    workers: Annotated[int, Option("--workers", "-w", min=1, help="Between workers.min and workers.max.")],
    output: Output = Form.TABLE,
) -> None:
    """Let another number of workers train, without a restart."""
    _show(_ask(lambda client: client.scale(job, workers)), output)


def cancel(job: JobName, output: Output = Form.TABLE) -> None:
    """End a job for good; its checkpoints stay."""
    _show(_ask(lambda client: client.cancel(job)), output)


def checkpoint(job: JobName, output: Output = Form.TABLE) -> None:
    """Ask a running job for a checkpoint now."""
    _show(_ask(lambda client: client.checkpoint(job)), output)


def _ask(question: Callable[[Client], Any]) -> Any:
    with home.client() as client:
        return question(client)


def _show(job: Job, output: Form, table: Callable[[], Any] | None = None) -> None:
    def screen() -> Any:
        from dtrain.cli.screen import JobScreen
        from dtrain.job.view import Update

        shown = JobScreen()
        shown.add(Update(job))
        return shown

    emit(job_value(job), output, table=table or screen, name=job.job_id)
