"""Who imports whom in dtrain/, read from the source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = "dtrain.rpc.v1"


@dataclass(frozen=True)
class Import:
    """`source`, a module of dtrain, imports `target`, any module; `is_early` if it does so when it is imported itself."""

    source: str
    target: str
    is_early: bool


def unit(module: str) -> str:
    """The package or top module of dtrain that `module` belongs to: `dtrain.stream.kafka` → `stream`."""
    return [*module.split("."), ""][1]


@cache
def modules() -> dict[str, Path]:
    """Every module of dtrain by its name, the generated ones left out."""
    found = {}
    for path in sorted((ROOT / "dtrain").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not name.startswith(GENERATED):
            found[name] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import statement, those inside functions and for type checkers included."""
    return tuple(
        found for name, path in modules().items() for found in _of_body(name, ast.parse(path.read_text()), is_early=True)
    )


def _of_body(name: str, node: ast.AST, *, is_early: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(name, alias.name, is_early) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(name, _target(child.module or "", alias.name), is_early) for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (found for part in child.body for found in _of_body(name, ast.Module([part], []), is_early=False))
            yield from (found for part in child.orelse for found in _of_body(name, ast.Module([part], []), is_early=is_early))
        else:
            is_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _of_body(name, child, is_early=is_early and not is_later)


def _target(module: str, name: str) -> str:
    """The module that `from module import name` imports, where it is dtrain's."""
    return f"{module}.{name}" if f"{module}.{name}" in modules() else module


@cache
def loaded_with(module: str) -> frozenset[str]:
    """Everything that importing `module` imports at once: modules of dtrain, and names of outside packages."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [found.target for found in imports() if found.source == name and found.is_early]
    return frozenset(name if name in modules() else name.split(".")[0] for name in seen)
