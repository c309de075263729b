"""The filter of a job, over whole batches: which rows the user's expression holds for."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from dtrain.data.schema import Field, Schema
from dtrain.data.staging import rows_of
from dtrain.errors import InputError
from dtrain.spec.expression import Expression

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class Filter:
    """Says of each row of a batch whether it is kept. What it says of a row depends on that row alone.

    Integers are computed as int64, which wraps around; division by zero gives infinities and NaN; nothing but `!=` holds for NaN.

    Args:
        expression: what must hold.
        schema: of the batches.

    Raises:
        InputError: a column is unknown, or of another kind than the expression takes it for.
    """

    def __init__(self, expression: Expression, schema: Schema) -> None:
        self._tree = expression.tree
        self._fields = {field.name: field for field in schema.fields}
        self(pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema.arrow], schema=schema.arrow))

    def __call__(self, batch: pa.RecordBatch) -> np.ndarray:
        """[rows] bool."""
        with np.errstate(all="ignore"):
            return np.broadcast_to(self._condition(self._tree, batch), batch.num_rows)

    def _condition(self, node: ast.expr, batch: pa.RecordBatch) -> Any:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return np.logical_and.reduce([np.broadcast_to(self._condition(v, batch), batch.num_rows) for v in values])
            case ast.BoolOp(values=values):
                return np.logical_or.reduce([np.broadcast_to(self._condition(v, batch), batch.num_rows) for v in values])
            case ast.UnaryOp(operand=operand):
                return ~np.asarray(self._condition(operand, batch))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                pairs = zip((left, *comparators), ops, comparators, strict=False)
                return np.logical_and.reduce([self._comparison(a, op, b, batch) for a, op, b in pairs])
            case ast.Constant(value=value):
                return np.bool_(value)
        name = ast.unparse(node)
        if self._field(name).dtype != "bool":
            raise _wrong(name, "is neither true nor false", fix=f"compare it, as {name} != 0")
        return self._column(name, batch).astype(bool)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr, batch: pa.RecordBatch) -> np.ndarray:
        is_among = isinstance(op, ast.In | ast.NotIn)
        items = right.elts if isinstance(right, ast.List | ast.Tuple) else [right]
        if any(isinstance(item, ast.Constant) and isinstance(item.value, str) for item in (left, *items)):
            found = self._is_text(left, items, batch)
            is_negated = isinstance(op, ast.NotIn | ast.NotEq)
        elif is_among:
            values = self._number(left, batch)
            found = np.logical_or.reduce([np.equal(values, self._number(item, batch)) for item in items])
            is_negated = isinstance(op, ast.NotIn)
        else:
            found = _COMPARISONS[type(op)](self._number(left, batch), self._number(right, batch))
            is_negated = False
        rows = np.broadcast_to(found, batch.num_rows)
        return ~rows if is_negated else rows

    def _is_text(self, left: ast.expr, items: list[ast.expr], batch: pa.RecordBatch) -> np.ndarray:
        """Where a column's text is one of some: a comparison of their places in its vocabulary."""
        name = next(node.id for node in (left, *items) if isinstance(node, ast.Name))
        texts = [str(node.value) for node in (left, *items) if isinstance(node, ast.Constant)]
        field = self._field(name)
        return np.isin(self._column(name, batch), [_place(field, text) for text in texts])

    def _number(self, node: ast.expr, batch: pa.RecordBatch) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand, batch)
            case ast.UnaryOp(operand=operand):
                return self._number(operand, batch)
            case ast.BinOp(left=left, op=op, right=right):
                a, b = self._number(left, batch), self._number(right, batch)
                return _ARITHMETIC[type(op)](np.asarray(a)[()], b)  # by NumPy's rules, where both are plain numbers too
            case ast.Call(args=[inner]):
                return np.abs(self._number(inner, batch))
            case ast.Subscript(value=ast.Name(id=name), slice=index):
                return self._element(name, ast.literal_eval(index), batch)
        return self._plain(ast.unparse(node), batch)

    def _plain(self, name: str, batch: pa.RecordBatch) -> np.ndarray:
        field = self._field(name)
        if field.shape:
            raise _wrong(
                name, f"is {field}, not one number", fix=f"name an element, as {name}[{', '.join('0' * len(field.shape))}]"
            )
        if _is_text_column(field):
            raise _wrong(name, "is a text, not a number", fix="compare it with texts, by ==, !=, in or not in")
        _check_unhashed(field)
        return _wide(self._column(name, batch))

    def _element(self, name: str, index: int | tuple[int, ...], batch: pa.RecordBatch) -> np.ndarray:
        field, places = self._field(name), index if isinstance(index, tuple) else (index,)
        if len(places) != len(field.shape) or any(place >= size for place, size in zip(places, field.shape, strict=True)):
            raise _wrong(name, f"is {field}: it has no element {list(places)}", fix="correct the index; it counts from 0")
        _check_unhashed(field)
        values = self._column(name, batch)
        return _wide(values.reshape(len(values), field.size)[:, np.ravel_multi_index(places, field.shape)])

    def _column(self, name: str, batch: pa.RecordBatch) -> np.ndarray:
        return rows_of(batch.column(name), self._field(name))

    def _field(self, name: str) -> Field:
        if name not in self._fields:
            raise _wrong(name, "is no column of the task", fix="declare it in `transform.columns`, as {NAME: float32}")
        return self._fields[name]


def _wide(values: np.ndarray) -> np.ndarray:
    """Integers and truth values as int64, so that small types do not wrap around; halves as float32."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _is_text_column(field: Field) -> bool:
    return str(field).startswith("string")


def _check_unhashed(field: Field) -> None:
    if field.column.buckets:
        raise _wrong(field.name, "is hashed: its numbers are not those of the stream", fix="compare a column without buckets")


def _place(field: Any, text: str) -> int:
    """The number that stands for `text` in the column.

    Raises:
        InputError: there is none for it alone.
    """
    if not _is_text_column(field) or field.shape:
        raise _wrong(field.name, f"is {field}, not a text", fix="compare it with numbers")
    if field.words is None:
        raise _wrong(field.name, "is hashed: different texts may be the same in it", fix="give it a vocabulary")
    place = field.words.index(text).as_py()
    if place < 0:
        raise _wrong(field.name, f"has a vocabulary without {text!r}", fix="add it, or leave it out of the filter")
    return int(place) + int(field.column.unknown == "zero")


def _wrong(name: str, what: str, *, fix: str) -> InputError:
    return InputError(f"`transform.filter`: {name!r} {what}", fix=fix)
