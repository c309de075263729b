"""What the job file's JSON schema expects at each place, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from dtrain.spec.job import json_schema

Schema = Mapping[str, Any]

_OFFSETS = "an offset for each partition, as {0: 1200}"
_TOPIC_OFFSETS = "the same by topic, as {clicks: {0: 1200}}"
_TEXTS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "date-time": "a time, as 2013-06-01T00:00:00Z",
}


@cache
def _root() -> dict[str, Any]:
    return json_schema()


def resolved(schema: Schema) -> Schema:
    """`schema` itself, or what it refers to, with its own description."""
    if "$ref" not in schema:
        return schema
    target = _root()["$defs"][schema["$ref"].rpartition("/")[2]]
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def branches(schema: Schema) -> list[Schema]:
    """The alternatives that `schema` allows; itself when there is one."""
    found = schema.get("anyOf", schema.get("oneOf"))
    if found is None:
        return [schema]
    return [inner for branch in found for inner in branches(resolved(branch))]


def schema_at(path: tuple[str | int, ...]) -> Schema | None:
    """The schema of the value at `path`; None where there is none."""
    found: Schema = _root()
    for key in path:
        inner = next((step for branch in branches(found) if (step := _step(branch, key)) is not None), None)
        if inner is None:
            return None
        found = resolved(inner)
    return found


def _step(schema: Schema, key: str | int) -> Schema | None:
    if isinstance(key, int):
        return schema.get("items")
    if key in schema.get("properties", {}):
        return schema["properties"][key]  # type: ignore[no-any-return]
    return _others(schema) or None


def field_names(path: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand in the section at `path`."""
    return [name for branch in branches(schema_at(path) or {}) for name in branch.get("properties", {})]


def choices(schema: Schema) -> list[str]:
    """The words that may stand at a place."""
    return [
        str(word) for branch in branches(schema) for word in branch.get("enum", [branch["const"]] if "const" in branch else [])
    ]


def fields(schema: Schema | None = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema, bool]]:
    """Every field of the job file: its path, its schema, and whether it must be there."""
    for branch in branches(_root() if schema is None else schema):
        for name, inner in branch.get("properties", {}).items():
            here = (*path, name)
            yield here, resolved(inner), name in branch.get("required", [])
            yield from fields(resolved(inner), here)


def expectation(schema: Schema) -> str:
    """What may stand at a place, as `a whole number from 1 to 1,024`."""
    texts = [text for branch in branches(schema) for text in _texts(branch)]
    bounds = _bounds(schema) if "anyOf" in schema else ""
    return f"{', '.join(texts[:-1])}{' or ' if texts[1:] else ''}{texts[-1]}{bounds}"


def _texts(schema: Schema) -> list[str]:
    kind, title = schema.get("type"), schema.get("title", "")
    if words := choices(schema):
        return words
    if kind == "object":
        names = ", ".join(schema.get("properties", {}))
        inner = {"integer": _OFFSETS, "object": _TOPIC_OFFSETS}.get(resolved(_others(schema)).get("type", ""), "a section")
        return [f"a section with {names}" if names else inner]
    if kind == "array":
        return [f"a list of {expectation(schema['items'])}"]
    text = _TEXTS.get(schema.get("format", kind), "a value")
    return [(title if title.startswith("a ") else text) + _bounds(schema)]


def _others(schema: Schema) -> Schema:
    """What keys that are no fields hold."""
    others: Any = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), {})
    return others if isinstance(others, Mapping) else {}


def _bounds(schema: Schema) -> str:
    low, above, high, below = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"))
    if above is not None:
        return f" above {above:,}, at most {high:,}"
    return "".join(f" {word} {bound:,}" for word, bound in (("from", low), ("to", high), ("below", below)) if bound is not None)
