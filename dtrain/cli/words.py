"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from dtrain.errors import InputError

JobName = Annotated[str, Argument(metavar="JOB", help="A job's id, or its name for the newest of that name.")]
JobFile = Annotated[Path, Argument(metavar="FILE", help="The job file (YAML).")]
Sets = Annotated[list[str] | None, Option("--set", metavar="FIELD=VALUE", help="A value above the file's, as workers.max=2.")]


def overrides(sets: list[str] | None) -> dict[str, Any]:
    """Dotted fields and their values, which are YAML."""
    from dtrain.spec.document import scalar

    found = {}
    for text in sets or ():
        name, equals, value = text.partition("=")
        if not equals or not all(name.split(".")):
            raise InputError(f"--set {text!r} is not field=value", fix="write for example --set workers.max=2")
        found[name] = scalar(value)
    return found
