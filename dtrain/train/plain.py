"""Plain Python values as JSON that gives them back as they were: tuples, sets, counters, and keys that are no texts.

What optimizers and schedules keep besides tensors. Never pickled: a checkpoint may come from outside.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from dtrain.errors import TaskError

_TAG = "#"


def write(value: object, *, what: str) -> str:
    """`value` as JSON text; equal values give equal texts.

    Raises:
        TaskError: there is something in it that is no plain value; `what` says in whose.
    """
    return json.dumps(_pack(value, what), sort_keys=True)


def read(text: str) -> Any:
    """The value that `write` wrote."""
    return _unpack(json.loads(text))


def _pack(value: object, what: str) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_pack(item, what) for item in value]
    if isinstance(value, dict):
        kind = "counter" if isinstance(value, Counter) else "dict"
        pairs = [[_pack(key, what), _pack(item, what)] for key, item in value.items()]
        return {_TAG: kind, "items": sorted(pairs, key=lambda pair: json.dumps(pair[0]))}
    if isinstance(value, tuple):
        return {_TAG: "tuple", "items": [_pack(item, what) for item in value]}
    if isinstance(value, set | frozenset):
        return {_TAG: "set", "items": [_pack(item, what) for item in sorted(value)]}
    raise TaskError(
        f"{what} keeps a {type(value).__name__}, which cannot be saved", fix="use numbers, texts, lists, dicts or tensors"
    )


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    items = [_unpack(item) for item in value["items"]]
    make: Any = {"counter": lambda pairs: Counter(dict(pairs)), "dict": dict, "tuple": tuple, "set": set}[value[_TAG]]
    return make(items)
