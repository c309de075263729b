"""Commands that prove: checkpoints, verify, replay. They read the checkpoint store and the topic, not the control plane's word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dtrain.cli import home
from dtrain.cli.exits import Exit
from dtrain.cli.output import Form, Output, console, emit
from dtrain.errors import CorruptError, InputError, NotFoundError

if TYPE_CHECKING:
    from dtrain.checkpoint.store import CheckpointStore

Target = Annotated[
    str | None, Argument(metavar="[JOB[/CHECKPOINT]]", help="A job by id or name; one of its checkpoints, or all that count.")
]
Folder = Annotated[Path | None, Option("--dir", help="A job's checkpoint folder, instead of JOB: no control plane is asked.")]


def checkpoints(target: Target = None, folder: Folder = None, output: Output = Form.TABLE) -> None:
    """Show the checkpoints that count, oldest first."""
    store, name = _open(target, folder)
    values = [_describe(store, one) for one in _names(store, name)]
    emit(values, output, table=lambda: _table(values), name=[value["name"] for value in values])


def verify(target: Target = None, folder: Folder = None, output: Output = Form.TABLE) -> int:
    """Prove checkpoints whole: every byte, and a log that leads to them without a gap."""
    store, name = _open(target, folder)
    values = [_describe(store, one, is_thorough=True) for one in _names(store, name)]
    emit(values, output, table=lambda: _table(values), name=[value["name"] for value in values if value["is_sound"]])
    return Exit.OK if all(value["is_sound"] for value in values) else Exit.CORRUPT


def replay(
    target: Target = None,
    folder: Folder = None,
    start: Annotated[str | None, Option(help="Checkpoint to begin with; the oldest by default.")] = None,
    code: Annotated[Path | None, Option(help="The task's code, if it is not where it was.")] = None,
    bootstrap: Annotated[str | None, Option(help="Kafka's address, if it is not what it was.")] = None,
    output: Output = Form.TABLE,
) -> int:
    """Train again what the log says in one plain process, and compare the weights with the checkpoint's."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    from dtrain.replay.replay import replay as run
    from dtrain.spec.job import JobSpec
    from dtrain.stream.kafka import KafkaSource

    store, name = _open(target, folder)
    source = JobSpec.from_json(store.find(name).spec_json).source
    source = source.model_copy(update={"bootstrap": bootstrap}) if bootstrap else source
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(is_error=True)) as bar:
        tasks: dict[str, Any] = {}

        def on_progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=of)

        code_folder = str(code.absolute()) if code else None
        verdict = run(store, source=KafkaSource(source), start=start, to=name, code=code_folder, on_progress=on_progress)
    is_proven = verdict.is_equal and not verdict.audit.lost and not verdict.audit.doubled
    text = Text.assemble((verdict.sentence, f"bold {'green' if is_proven else 'red'}"), f"\ntook {verdict.seconds:.1f} s")
    emit(verdict.to_json(), output, table=lambda: text, name=verdict.to)
    return Exit.OK if is_proven else Exit.CORRUPT


def _open(target: str | None, folder: Path | None) -> tuple[CheckpointStore, str | None]:
    """The store, and the name of the one checkpoint that is meant."""
    from dtrain.checkpoint.store import CheckpointStore

    if folder is not None:
        return CheckpointStore(folder), target
    if target is None:
        raise InputError("no job is named", fix="name a job, or its checkpoint folder with --dir")
    from dtrain.spec.job import JobSpec

    name, _, one = target.partition("/")
    with home.client() as client:
        job = client.get(name)
    return CheckpointStore(JobSpec.from_json(job.spec_json).checkpoint.folder_of(job.job_id)), one or None


def _names(store: CheckpointStore, name: str | None) -> list[str]:
    names = [name] if name else [ref.name for ref in store.history()]
    if not names:
        raise NotFoundError("there is no checkpoint yet", fix="wait for the first one, or check the folder")
    return names


def _describe(store: CheckpointStore, name: str, *, is_thorough: bool = False) -> dict[str, Any]:
    """A checkpoint as JSON's types; a corrupt one says what is wrong with it."""
    try:
        manifest = store.find(name)
        if is_thorough:
            store.verify(manifest)
    except CorruptError as error:
        return {"name": name, "is_sound": False, "problem": error.reason}
    progress = manifest.progress
    facts = {
        "name": name,
        "step": progress.step,
        "rows_trained": progress.rows_trained,
        "rows_rejected": progress.rows_rejected,
    }
    about = {"attempt": manifest.ref.attempt, "num_bytes": manifest.blob.num_bytes, "written_at_s": manifest.written_at_s}
    last = {"is_final": manifest.is_final, "code_sha256": manifest.code_sha256, "notes": list(manifest.notes)}
    return {**facts, **about, **last, **({"is_sound": True} if is_thorough else {})}


def _table(values: list[dict[str, Any]]) -> Any:
    from dtrain.cli.screen import checkpoints_table

    return checkpoints_table(values)
