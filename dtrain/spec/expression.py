"""Expressions over columns, as `price > 0 and carrier in ['AA', 'UA']`: read as Python's, and never run as Python.

There are names of columns (`pixels[3]` is an element of one with a shape), numbers, texts, `+ - * /`, `abs()`, comparisons,
`in` and `not in` with a list, `and`, `or`, `not`. Texts are compared with a column's name, for equality alone. Everything else
is refused.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

from dtrain.spec.durations import problem

MAX_CHARACTERS = 10_000
MAX_DEPTH = 100
_MAX_INTEGER = 2**63 - 1
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_FIX = "use columns, numbers, texts, + - * /, abs(), comparisons, in, not in, and, or, not"


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that holds only what is allowed.

    Args:
        tree: Python's, of the allowed nodes alone.
        texts: column → the texts that it is compared with, in the order written; empty for one that is not.
    """

    tree: ast.expr
    texts: Mapping[str, tuple[str, ...]]


def parse(text: str) -> Expression:
    """The expression that `text` writes.

    Raises:
        PydanticCustomError: it is not one; says where.
    """
    if len(text) > MAX_CHARACTERS:
        raise problem(f"it has more than {MAX_CHARACTERS:,} characters", fix="write a `map` in its place")
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python, about its own style
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error) or "it is nested too deeply"
        raise problem(f"{text[:60]!r} is not an expression: {what}", fix=_FIX) from error
    if _depth(tree) > MAX_DEPTH:
        raise problem(f"{text[:60]!r} is nested more than {MAX_DEPTH} deep", fix="write a `map` in its place")
    texts: dict[str, tuple[str, ...]] = {}
    for name, found in _condition(tree):
        known = texts.get(name, ())
        texts[name] = (*known, *(one for one in dict.fromkeys(found) if one not in known))
    return Expression(tree, texts)


def _depth(tree: ast.AST) -> int:
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    return depth


_Columns = Iterator[tuple[str, tuple[str, ...]]]


def _condition(node: ast.expr) -> _Columns:
    """Check what is to be true or false; yields every column, with the texts that it is compared with there."""
    match node:
        case ast.BoolOp(values=values):
            for value in values:
                yield from _condition(value)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield from _condition(operand)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for a, op, b in zip((left, *comparators), ops, comparators, strict=False):
                yield from _comparison(a, op, b)
        case ast.Name(id=name):
            yield name, ()
        case ast.Constant(value=True | False):
            pass
        case _:
            raise _refused(node, "is neither true nor false")


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Columns:
    if isinstance(op, ast.In | ast.NotIn):
        items = right.elts if isinstance(right, ast.List | ast.Tuple) and right.elts else None
        if items is None or not all(isinstance(item, ast.Constant | ast.UnaryOp) for item in items):
            raise _refused(right, "is not a list of numbers or texts")
    elif isinstance(op, _COMPARISONS):
        items = [right]
    else:
        raise _refused(right, "cannot be compared so")
    texts = tuple(item.value for item in (left, *items) if isinstance(item, ast.Constant) and isinstance(item.value, str))
    if not texts:
        for item in (left, *items):
            yield from ((name, ()) for name in _number(item))
        return
    names = [item for item in (left, *items) if not isinstance(item, ast.Constant)]
    is_equality = isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn)
    if not is_equality or len(names) != 1 or not isinstance(names[0], ast.Name) or len(texts) + 1 != len((left, *items)):
        raise _refused(right, "is a text: compare it with a column, by ==, !=, in or not in")
    yield names[0].id, texts


def _number(node: ast.expr) -> Iterator[str]:
    """Check what is to be a number; yields the columns in it."""
    match node:
        case ast.Name(id=name):
            yield name
        case ast.Constant(value=int() | float() as value) if abs(value) <= _MAX_INTEGER or isinstance(value, float):
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            yield from _number(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            yield from _number(left)
            yield from _number(right)
        case ast.Call(func=ast.Name(id="abs"), args=[inner], keywords=[]):
            yield from _number(inner)
        case ast.Subscript(value=ast.Name(id=name), slice=index) if all(_is_index(item) for item in _items(index)):
            yield name
        case _:
            raise _refused(node, "is no number and no column")


def _items(index: ast.expr) -> list[ast.expr]:
    return index.elts if isinstance(index, ast.Tuple) else [index]


def _is_index(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= _MAX_INTEGER


def _refused(node: ast.expr, what: str) -> PydanticCustomError:
    return problem(f"{ast.unparse(node)[:60]!r} {what}", fix=_FIX)
