"""Pydantic's errors as ours: where, in which line, why, and what to write instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

from dtrain.errors import SpecError
from dtrain.spec.document import Document, Path
from dtrain.spec.expectation import choices, expectation, field_names, fields, schema_at

_BOUNDS = {
    "greater_than_equal": ("less than", "ge"),
    "greater_than": ("not more than", "gt"),
    "less_than_equal": ("more than", "le"),
    "less_than": ("not less than", "lt"),
}
_KINDS = {bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}


def problems(errors: Sequence[ErrorDetails], document: Document, *, file: str) -> list[SpecError]:
    """One error for each place that is wrong, in order of lines."""
    places: dict[Path, list[ErrorDetails]] = {}
    for error in errors:
        places.setdefault(_place(error, document.value), []).append(error)
    inner = {place[:length] for place in places for length in range(len(place))}
    found = []
    for place, here in places.items():
        if place in inner and all(_is_branch(error, place) for error in here):
            continue  # one alternative of several, and the user plainly meant another one
        reason, fix = _words(here, place, document.value)
        path = str(_chosen(here).get("ctx", {}).get("path", "")) or ".".join(map(str, place))
        line = document.line(tuple(path.split(".")))
        found.append(SpecError(reason, fix=fix, path=path, line=line, file=file))
    misspelt = {(*e.path.split(".")[:-1], close) for e in found if (close := _meant(e.fix))}
    kept = [e for e in found if not (e.reason == "is missing" and tuple(e.path.split(".")) in misspelt)]
    return sorted(kept, key=lambda e: e.line)


def _place(error: ErrorDetails, value: Any) -> Path:
    """Where in the document it is: the location without pydantic's names of alternatives."""
    place: Path = ()
    for key in error["loc"]:
        if (isinstance(value, dict) and key in value) or (isinstance(value, list) and isinstance(key, int)):
            place, value = (*place, key), value[key]  # type: ignore[index]
        elif error["type"] == "missing" and key == error["loc"][-1]:
            place = (*place, key)
    return place


def _is_branch(error: ErrorDetails, place: Path) -> bool:
    return len(error["loc"]) > len(place)


def _words(errors: list[ErrorDetails], place: Path, document: Any) -> tuple[str, str]:
    """Reason and fix; there are several errors where several alternatives were tried in vain."""
    error = _chosen(errors)
    kind, context = error["type"], error.get("ctx", {})
    schema = schema_at(place) or {}
    about = schema.get("description", "") if "anyOf" not in schema else ""
    fix = f"{expectation(schema)} ({about.rstrip('.')})".removesuffix(" ()")
    if kind == "problem":
        return str(context["reason"]), str(context["fix"])
    if kind == "missing":
        return "is missing", f"add `{place[-1]}: ...`, {fix}"
    if kind == "extra_forbidden":
        return _unknown(place)
    for key in place:
        document = document[key]
    shown = json.dumps(document)[:40]
    if kind == "value_error":
        reason, _, fix = str(context["error"]).partition("; ")
        return f"{shown} {reason}", fix
    if close := difflib.get_close_matches(str(document), choices(schema), n=1, cutoff=0.5):
        return f"{shown} is not known", f"did you mean {close[0]}? possible: {fix}"
    return f"{'' if document is None else shown} {_reason(kind, context, document)}".strip(), f"write {fix}"


def _chosen(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The one that is told of several at a place: one in our own words, if there is one."""
    return next((error for error in errors if error["type"] == "problem"), errors[0])


def _reason(kind: str, context: dict[str, Any], value: Any) -> str:
    if value is None:
        return "is empty"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"is {words} {context[key]:,}".removesuffix(".0")
    if kind.endswith("_type") or isinstance(value, bool):
        return f"is {_KINDS[type(value)]}"
    return "is not possible here"


def _unknown(place: Path) -> tuple[str, str]:
    *section, name = place
    names = field_names(tuple(section))
    where = f"of `{'.'.join(map(str, section))}`" if section else "of a job"
    reason = f"is not a field {where}"
    if close := difflib.get_close_matches(str(name), names, n=1):
        return reason, f"did you mean `{close[0]}`?"
    if homes := [path[:-1] for path, _, _ in fields() if path[-1] == name]:
        home = ".".join(homes[0])
        return reason, f"put it into `{home}`" if home else "put it at the top level, without indentation"
    return reason, f"remove it; possible are {', '.join(names)}"


def _meant(fix: str) -> str:
    return fix.removeprefix("did you mean `").removesuffix("`?") if fix.startswith("did you mean `") else ""
