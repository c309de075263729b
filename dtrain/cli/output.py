"""What commands print: values in the form that was asked for, errors as one clear sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtrain.errors import DtrainError, SpecError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from dtrain.job.view import Job


class Form(StrEnum):
    """How values are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Output = Annotated[Form, typer.Option("-o", "--output", help="table for people; json, yaml or the bare name for programs.")]


def console(*, is_error: bool = False) -> Console:
    """Where to print: standard output, or standard error. Wide where nobody looks, so that no line is broken; without markup,
    because what users call things may look like it.
    """
    from rich.console import Console

    is_seen = (sys.stderr if is_error else sys.stdout).isatty()
    return Console(stderr=is_error, highlight=False, markup=False, width=None if is_seen else 200)


def emit(value: Any, form: Form, *, table: Callable[[], RenderableType], name: str | Sequence[str] = "") -> None:
    """Print `value` in its form: `table` is made only for people, `name` is a line each."""
    if form is Form.NAME:
        sys.stdout.writelines(f"{text}\n" for text in ((name,) if isinstance(name, str) else name))
    elif form is Form.TABLE:
        console().print(table())
    else:
        line(value, form, is_pretty=sys.stdout.isatty())


def line(value: Any, form: Form, *, is_pretty: bool = False) -> None:
    """Print `value` at once: as one line of JSON, as several for people, or as a YAML document."""
    text = json.dumps(value, indent=2 if is_pretty else None, default=_plain)
    if form is Form.YAML:
        from ruamel.yaml import YAML

        yaml = YAML()
        yaml.explicit_start = True
        yaml.dump(json.loads(text), sys.stdout)
    else:
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def job_value(job: Job) -> dict[str, Any]:
    """A job as JSON's types, its spec in full."""
    value: dict[str, Any] = json.loads(json.dumps(asdict(job)))
    return {**value, "spec": json.loads(value.pop("spec_json"))}


def fail(error: DtrainError, *, as_json: bool) -> None:
    """Tell the user on standard error: everything that is wrong, each with what to do about it."""
    errors = (error, *error.others) if isinstance(error, SpecError) else (error,)
    if as_json:
        texts = [
            {"kind": type(e).__name__, "code": e.code, **{k: v for k, v in vars(e).items() if k != "others"}} for e in errors
        ]
        sys.stderr.write(json.dumps({"error": texts[0], "others": texts[1:]}) + "\n")
        return
    from rich.text import Text

    out = console(is_error=True)
    for one in errors:
        what = str(one).removesuffix(f"; {one.fix}") if one.fix else str(one)
        out.print(Text.assemble((what, "bold red"), f"\n  {one.fix}" if one.fix else ""), soft_wrap=True)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
