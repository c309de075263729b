"""`redrive`: bad records, repaired by a function of the user's, back to the topic that they came from."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from dtrain.cli.exits import Exit
from dtrain.cli.output import Form, Output, emit
from dtrain.cli.proofs import Folder, Target, open_store_of
from dtrain.errors import InputError

if TYPE_CHECKING:
    from dtrain.stream.redrive import Fate, Repair


def redrive(
    target: Target = None,
    through: Annotated[
        str,
        Option(metavar="MODULE:FUNCTION", help="Called with each bad record; gives the repaired message, or None to leave it."),
    ] = "",
    code: Annotated[Path, Option(metavar="FOLDER", help="Folder of that module.")] = Path(),
    folder: Folder = None,
    is_dry: Annotated[bool, Option("--dry-run", help="Repair and check, but send nothing.")] = False,
    output: Output = Form.TABLE,
) -> int:
    """Send a job's bad records, repaired, back to their topic: each once, and only what the job can decode."""
    from dtrain.checkpoint.locks import read_lock
    from dtrain.clock import SystemClock
    from dtrain.data.schema import Schema
    from dtrain.packages.cache import use
    from dtrain.spec.job import JobSpec
    from dtrain.stream.kafka_letters import KafkaLetters
    from dtrain.stream.redrive import Redrive
    from dtrain.stream.sources import open_source

    store, name = open_store_of(target, folder)
    manifest = store.find(name)
    job = JobSpec.from_json(manifest.spec_json)
    spec = job.source
    if spec.dead_letters is None:
        raise InputError(
            "the job has no topic of bad records: it stops at the first one",
            fix="set `source.on_bad_record: {send_to: TOPIC}` in a new job",
        )
    use(read_lock(store, manifest.lock_sha256))
    repair = _function(through, code)
    with closing(KafkaLetters(spec, clock=SystemClock())) as box, closing(open_source(job)) as source:
        fates = list(
            Redrive(
                box,
                source,
                Schema(manifest.schema),
                job_id=manifest.job_id,
                dead_letters=spec.dead_letters.send_to,
                repair=repair,
                is_dry=is_dry,
                files=spec.backfill.files if spec.backfill else "",
            ).run()
        )
    _show(fates, output, is_dry=is_dry)
    return Exit.JOB if any(fate.outcome == "refused" for fate in fates) else Exit.OK


def _function(name: str, folder: Path) -> Repair:
    """The function called `module:function`, its folder first on the import path."""
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise InputError("no function repairs them", fix="write --through MODULE:FUNCTION, in --code FOLDER")
    if not (folder / f"{module_name.partition('.')[0]}.py").exists() and not (folder / module_name.partition(".")[0]).is_dir():
        raise InputError(f"there is no module {module_name} in {folder.absolute()}", fix="name its folder with --code")
    sys.path.insert(0, str(folder.absolute()))
    try:
        found = getattr(importlib.import_module(module_name), function_name, None)
    except Exception as error:  # user code may raise anything while it is imported
        raise InputError(f"cannot import {module_name}: {type(error).__name__}: {error}", fix="correct the module") from error
    if not callable(found):
        raise InputError(f"{module_name} has no function {function_name}", fix="write `def " + function_name + "(record): ...`")
    return found  # type: ignore[no-any-return]


def _show(fates: list[Fate], output: Form, *, is_dry: bool) -> None:
    from rich.table import Table

    counts = Counter(fate.outcome for fate in fates)

    def table() -> Table:
        sent = "would be sent" if is_dry else "sent"
        shown = Table("record", "outcome", "why", "was bad because", box=None, header_style="bold")
        shown.caption = f"{counts['sent']} {sent}, {counts['left']} left, {counts['refused']} refused"
        for fate in fates:
            shown.add_row(
                str(fate.record),
                sent if fate.outcome == "sent" else fate.outcome,
                fate.reason,
                "; ".join(sorted(set(fate.record.reasons))),
            )
        return shown

    values = [
        {"record": str(f.record), "outcome": f.outcome, "why": f.reason, "reasons": list(f.record.reasons), "is_dry": is_dry}
        for f in fates
    ]
    emit(values, output, table=table, name=[str(fate.record) for fate in fates if fate.outcome == "sent"])
