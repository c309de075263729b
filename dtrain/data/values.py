"""Values as the stream holds them, made the numbers of a tensor: wider and narrower numbers, decimals, times, words, categories.

What becomes of a value depends on it alone, not on which others are converted with it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtrain.data.hashing import MAX_BYTES, buckets_of_integers, buckets_of_texts
from dtrain.data.schema import Field

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_TEXT_TIMES = tuple(pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in ("UTC", None))
_TEXT_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[ T][\d:]+(?:\.(?P<decimals>\d+))?)?(?P<zone>Z|[-+]\d\d(?::?\d\d)?)?", re.ASCII)
"""More than what Arrow takes for a time; whatever this is not, is none."""
_MICRO_DECIMALS = 6
_INT64 = np.iinfo(np.int64)


class Converted(NamedTuple):
    """Numbers, in the order of the values; `is_good` says which values could be converted, None for all, `reason` why not the others."""

    numbers: np.ndarray
    is_good: np.ndarray | None = None
    reason: str = ""


def is_convertible(kind: pa.DataType, field: Field) -> bool:
    """Whether values of type `kind` can become the field's numbers, as far as the type says."""
    if field.kind == "timestamp":
        return pa.types.is_timestamp(kind) or pa.types.is_date(kind) or _is_text(kind)
    if field.kind == "string":
        return _is_text(kind) or (field.words is None and _is_bytes(kind))
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return pa.types.is_boolean(kind) or (is_number and field.dtype != "bool")


def converted(values: pa.Array, field: Field) -> Converted:
    """The numbers of `values`, which have no nulls and a type for which `is_convertible` holds."""
    if field.kind == "timestamp":
        return _times(values, field)
    if field.words is not None:
        return _indices(values, field)
    if field.kind == "string":
        return _categories(values, field)
    made = _numbers(values, np.dtype(field.source_dtype), f"column {field.name!r}: a {values.type} does not fit {field}")
    if field.column.buckets:
        buckets = buckets_of_integers(made.numbers, num_buckets=field.column.buckets, seed=field.column.seed)
        return made._replace(numbers=buckets)
    return _checked(made, field)


def _checked(made: Converted, field: Field) -> Converted:
    """Only finite numbers, and no negative weights, where the column asks for that."""
    if not (field.column.is_finite or field.column.is_weight) or (made.is_good is not None and not made.is_good.all()):
        return made
    if not (is_finite := np.isfinite(made.numbers)).all():
        return Converted(made.numbers, is_finite, f"column {field.name!r} is NaN or infinite")
    if field.column.is_weight:
        return Converted(made.numbers, made.numbers >= 0, f"column {field.name!r}: a weight is negative")
    return made


def _numbers(values: pa.Array, dtype: np.dtype, reason: str) -> Converted:
    """Exact, where both are integers or one is: else rounded, as floats are, but never to infinity."""
    if pa.types.is_decimal(values.type):
        if dtype.kind != "f":
            return _integers_of_decimals(values, dtype, reason)
        values = values.cast(pa.float64())
    numbers = values.to_numpy(zero_copy_only=False)
    if numbers.dtype == dtype:
        return Converted(numbers)
    with np.errstate(all="ignore"):
        made = numbers.astype(dtype)
    return Converted(made, _fits(numbers, made), reason)


def _integers_of_decimals(values: pa.Array, dtype: np.dtype, reason: str) -> Converted:
    """Decimals that are whole and fit; one by one where some do not."""
    bounds = np.iinfo(dtype)
    try:
        return _numbers(values.cast(pa.int64()), dtype, reason)
    except pa.ArrowInvalid:
        found = values.to_pylist()
        is_good = np.array([value == int(value) and bounds.min <= value <= bounds.max for value in found])
        return Converted(np.array([int(v) if ok else 0 for v, ok in zip(found, is_good, strict=True)], dtype), is_good, reason)


def _fits(numbers: np.ndarray, made: np.ndarray) -> np.ndarray | None:
    """Which of `numbers` are still themselves as `made`; None where the types say that all are."""
    is_long = numbers.dtype.kind in "iu" and numbers.dtype.itemsize == np.dtype(np.int64).itemsize
    if np.can_cast(numbers.dtype, made.dtype, "safe") and not (is_long and made.dtype.kind == "f"):  # NumPy calls that safe too
        return None
    if made.dtype.kind == "f":
        if numbers.dtype.kind == "f":
            return np.asarray(np.isfinite(made) | ~np.isfinite(numbers))
        limit = 2 ** (np.finfo(made.dtype).nmant + 1)
        is_above = numbers >= -limit if numbers.dtype.kind == "i" else True
        return np.asarray((numbers <= limit) & is_above)
    bounds = np.iinfo(made.dtype)
    if numbers.dtype.kind == "f":
        wide = numbers.astype(np.float64)
        return np.asarray((wide == np.trunc(wide)) & (wide >= float(bounds.min)) & (wide < float(bounds.max) + 1))
    source = np.iinfo(numbers.dtype)
    return np.asarray((numbers >= max(bounds.min, source.min)) & (numbers <= min(bounds.max, source.max)))


def _indices(values: pa.Array, field: Field) -> Converted:
    """Places in the vocabulary."""
    found = pc.index_in(values.cast(pa.large_string()), value_set=field.words)
    places = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if field.column.unknown == "zero":
        return Converted(places + 1)
    return Converted(places, places >= 0, f"column {field.name!r}: a string is not in the vocabulary")


def _categories(values: pa.Array, field: Field) -> Converted:
    """Buckets of texts and byte strings."""
    texts = (values.cast(pa.large_string()) if _is_text(values.type) else values).cast(pa.large_binary())
    is_short = pc.binary_length(texts).to_numpy(zero_copy_only=False) <= MAX_BYTES
    if not is_short.all():
        reason = f"column {field.name!r}: a category is longer than {MAX_BYTES} bytes"
        return Converted(np.zeros(len(texts), np.int64), is_short, reason)
    return Converted(buckets_of_texts(texts, num_buckets=field.column.buckets, seed=field.column.seed))


def _times(values: pa.Array, field: Field) -> Converted:
    """Seconds since 1970 with their fractions, or whole units; a time without a zone is UTC."""
    if _is_text(values.type):
        return _text_times(values.cast(pa.string()), field)
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s" if pa.types.is_date32(values.type) else "ms"))
    per_second = _PER_SECOND[values.type.unit]
    ticks = values.cast(pa.int64()).to_numpy(zero_copy_only=False)
    seconds, rest = np.divmod(ticks, per_second)
    if field.dtype == "float64":  # whole seconds first, so that a time is the same number in whatever unit it came
        return Converted(seconds + rest / per_second)
    wanted = _PER_SECOND[field.column.type.partition("[")[2].partition("]")[0]]
    is_good = (seconds > _INT64.min // wanted) & (seconds < _INT64.max // wanted)
    with np.errstate(all="ignore"):
        made = seconds * wanted + (rest * wanted // per_second if wanted < per_second else rest * (wanted // per_second))
    return Converted(made, is_good, f"column {field.name!r}: a time does not fit {field}")


def _text_times(texts: pa.Array, field: Field) -> Converted:
    """Times written after ISO 8601: those alike together, which have a zone or have none, and few decimals or many."""
    reason = f"column {field.name!r}: a string is not {field}"
    if (made := _cast_times(texts, field)) is not None:
        return made._replace(reason=reason)
    numbers, is_good = np.zeros(len(texts), field.dtype), np.zeros(len(texts), bool)
    places: dict[tuple[bool, bool], list[int]] = {}
    for place, text in enumerate(texts.to_pylist()):
        if (found := _TEXT_TIME.fullmatch(text)) is not None:
            places.setdefault((found["zone"] is None, len(found["decimals"] or "") > _MICRO_DECIMALS), []).append(place)
    for some in places.values():
        part = _halved_times(texts.take(pa.array(some)), field)
        numbers[some], is_good[some] = part.numbers, True if part.is_good is None else part.is_good
    return Converted(numbers, is_good, reason)


def _halved_times(texts: pa.Array, field: Field) -> Converted:
    """Times that look alike, in halves where some of them are none."""
    if (made := _cast_times(texts, field)) is not None:
        return made
    if len(texts) == 1:
        return Converted(np.zeros(1, field.dtype), np.zeros(1, bool))
    middle = len(texts) // 2
    halves = [_halved_times(half, field) for half in (texts[:middle], texts[middle:])]
    goods = [np.ones(len(half.numbers), bool) if half.is_good is None else half.is_good for half in halves]
    return Converted(np.concatenate([half.numbers for half in halves]), np.concatenate(goods))


def _cast_times(texts: pa.Array, field: Field) -> Converted | None:
    """All of them as one of the kinds of times that texts can be; None where some are not of it."""
    for kind in _TEXT_TIMES:
        try:
            return _times(texts.cast(kind), field)
        except pa.ArrowInvalid:
            continue
    return None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))
