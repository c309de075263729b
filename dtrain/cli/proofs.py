"""Commands that prove: checkpoints, verify, replay. They read the checkpoint store and the topic, not the control plane's word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dtrain.cli import home
from dtrain.cli.exits import Exit
from dtrain.cli.output import Form, Output, console, emit
from dtrain.errors import CorruptError, InputError, NotFoundError, StateError

if TYPE_CHECKING:
    from dtrain.checkpoint.store import CheckpointStore

Target = Annotated[
    str | None, Argument(metavar="[JOB[/CHECKPOINT]]", help="A job by id or name; one of its checkpoints, or all that count.")
]
Folder = Annotated[
    str | None,
    Option("--dir", metavar="PLACE", help="A job's checkpoint folder or URL, instead of JOB: no control plane is asked."),
]


def checkpoints(target: Target = None, folder: Folder = None, output: Output = Form.TABLE) -> None:
    """Show the checkpoints that count, oldest first."""
    _show(target, folder, output)


def pin(
    target: Target = None,
    folder: Folder = None,
    is_undone: Annotated[bool, Option("--undo", help="Keep it no longer than others.")] = False,
    output: Output = Form.TABLE,
) -> None:
    """Keep a checkpoint, the newest by default, however old it gets."""
    store, name = open_store_of(target, folder)
    ref = store.find(name).ref
    if is_undone:
        store.unpin(ref)
    else:
        store.pin(ref)
    place = f"{target.partition('/')[0]}/{ref.name}" if target and folder is None else ref.name
    _show(place, folder, output)


def verify(target: Target = None, folder: Folder = None, output: Output = Form.TABLE) -> int:
    """Prove checkpoints whole: every byte, and a log that leads to them without a gap."""
    return Exit.OK if _show(target, folder, output, is_thorough=True) else Exit.CORRUPT


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
    from dtrain.stream.sources import open_source

    store, name = open_store_of(target, folder)
    spec = JobSpec.from_json(store.find(name).spec_json)
    moved = spec.source.model_copy(update={"bootstrap": bootstrap}) if bootstrap else spec.source
    code_folder = str(code.absolute()) if code else None
    spec = spec.model_copy(update={"source": moved, "code": code_folder or spec.code})
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(is_error=True)) as bar:
        tasks: dict[str, Any] = {}

        def on_progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=of)

        verdict = run(store, source=open_source(spec), start=start, to=name, code=code_folder, on_progress=on_progress)
    is_proven = verdict.is_equal and not verdict.audit.lost and not verdict.audit.doubled
    text = Text.assemble((verdict.sentence, f"bold {'green' if is_proven else 'red'}"), f"\ntook {verdict.seconds:.1f} s")
    emit(verdict.to_json(), output, table=lambda: text, name=verdict.to)
    return Exit.OK if is_proven else Exit.CORRUPT


def open_store_of(target: str | None, folder: str | None) -> tuple[CheckpointStore, str | None]:
    """The store, and the name of the one checkpoint that is meant."""
    from dtrain.checkpoint.places import open_store

    if folder is not None:
        return open_store(folder), target
    if target is None:
        raise InputError("no job is named", fix="name a job, or its checkpoint folder with --dir")
    from dtrain.spec.job import JobSpec

    name, _, one = target.partition("/")
    with home.client() as client:
        job = client.get(name)
    return open_store(JobSpec.from_json(job.spec_json).checkpoint.place_of(job.job_id)), one or None


def _show(target: str | None, folder: str | None, output: Form, *, is_thorough: bool = False) -> bool:
    """Prints the checkpoints that are meant; whether all of them are sound, as far as was looked."""
    from dtrain.cli.screen import checkpoints_table

    store, name = open_store_of(target, folder)
    names = [name] if name else [ref.name for ref in store.history()]
    if not names:
        raise NotFoundError("there is no checkpoint yet", fix="wait for the first one, or check the folder")
    values = [_describe(store, one, is_thorough=is_thorough) for one in names]
    sound = [value["name"] for value in values if value.get("is_sound", True)]
    emit(values, output, table=lambda: checkpoints_table(values), name=sound if is_thorough else names)
    return sound == names


def _describe(store: CheckpointStore, name: str, *, is_thorough: bool) -> dict[str, Any]:
    """A checkpoint as JSON's types; one that is corrupt, or another dtrain's, says what is wrong with it."""
    try:
        manifest = store.find(name)
        if is_thorough:
            store.verify(manifest)
    except (CorruptError, StateError) as error:
        return {"name": name, "is_sound": False, "problem": error.reason}
    progress = manifest.progress
    return {
        "name": name,
        "step": progress.step,
        "rows_trained": progress.rows_trained,
        "rows_rejected": progress.rows_rejected,
        "attempt": manifest.ref.attempt,
        "num_bytes": manifest.blob.num_bytes,
        "written_at_s": manifest.written_at_s,
        "is_final": manifest.is_final,
        "code_sha256": manifest.code_sha256,
        "lock_sha256": manifest.lock_sha256,
        "is_pinned": manifest.ref in store.pins(),
        "notes": list(manifest.notes),
        **({"is_sound": True} if is_thorough else {}),
    }
