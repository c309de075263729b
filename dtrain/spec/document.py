"""A YAML file as plain values, with the line of every one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from dtrain.errors import SpecError

Path = tuple[str | int, ...]

_MAX_NODES = 10_000
"""Bounds what aliases can blow a small file up to."""
_VARIABLE = re.compile(r"\$(\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}|\$\{")


@dataclass
class Document:
    """What a file says.

    Args:
        value: dicts with text as keys, lists, and scalars; times stay text.
        lines: where each is written, from 1.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of the value at `path`, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def scalar(text: str) -> Any:
    """What `text` means when it is written in a YAML file by itself; the text itself if it means nothing."""
    try:
        return parse(text, environment={}, file="", is_text=lambda _: True).value
    except SpecError:
        return text


def parse(text: str, *, environment: Mapping[str, str], file: str, is_text: Callable[[Path], bool]) -> Document:
    """The document in `text`, with `${VAR}` and `${VAR:-default}` filled in and `$${` as a plain `${`.

    Args:
        text: YAML.
        environment: variables by name; an empty one counts as not set.
        file: its name, for errors.
        is_text: whether what comes out of the environment stays text at a path, whatever it looks like.

    Raises:
        SpecError: it is not YAML, a key stands twice, or a variable is not set.
    """
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        lines = text.splitlines()
        line = min(error.problem_mark.line + 1, len(lines)) if error.problem_mark else 1
        reason = f"is not YAML: {error.problem or error.context}"
        fix = "check the indentation, quotes and brackets here and just above"
        if "${" in lines[line - 1]:
            fix = 'inside { } and [ ] put quotes around variables: "${NAME}"'
        raise SpecError(reason, fix=fix, line=line, file=file) from error
    except YAMLError as error:
        raise SpecError(
            f"is not YAML: {str(error).splitlines()[0]}", fix="save it as plain UTF-8 text", line=1, file=file
        ) from error
    reader = _Reader(environment, file, is_text)
    if node is not None:
        reader.document.value = reader.read(node, ())
    return reader.document


class _Reader:
    def __init__(self, environment: Mapping[str, str], file: str, is_text: Callable[[Path], bool]) -> None:
        self.document = Document()
        self._environment = environment
        self._is_text = is_text
        self._file = file
        self._constructor = YAML(typ="safe", pure=True).constructor

    def read(self, node: Node, path: Path, line: int = 0) -> Any:
        line = line or node.start_mark.line + 1
        self.document.lines[path] = line
        if len(self.document.lines) > _MAX_NODES or len(path) > 50:
            raise self._error("too much is nested or repeated here", "write it without aliases (`*name`)", path, line)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path, line)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, ScalarNode) else ""
            here = (*path, name)
            if not name or name == "<<":
                raise self._error("a key must be a word", "write `key: value`", path, line)
            if name in found:
                first = self.document.lines[here]
                raise self._error(f"stands twice, first in line {first}", "keep one of the two", here, line)
            found[name] = self.read(item, here, line)
        return found

    def _scalar(self, node: Node, path: Path, line: int) -> Any:
        if "${" in node.value:
            text = _VARIABLE.sub(lambda match: self._fill(match, path, line), node.value)
            return text if self._is_text(path) else scalar(text)
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        try:
            value = self._constructor.construct_object(node)
        except (YAMLError, ValueError) as error:
            raise self._error(f"{node.value[:40]!r} cannot be read", "remove the tag (`!...`)", path, line) from error
        if value is not None and not isinstance(value, str | int | float):
            words = f"is {type(value).__name__}, which a job file cannot hold"
            raise self._error(words, "write text, a number, true or false", path, line)
        return value

    def _fill(self, match: re.Match[str], path: Path, line: int) -> str:
        if match[1]:
            return "${"
        name, default = match["name"], match["default"]
        if name is None:
            raise self._error("`${` is not followed by a variable's name", "write ${NAME}, or $${ for a plain ${", path, line)
        if self._environment.get(name):
            return self._environment[name]
        if default is None:
            fix = f"export {name}=..., or write ${{{name}:-default}}"
            raise self._error(f"the environment variable {name} is not set", fix, path, line)
        return str(default)

    def _error(self, reason: str, fix: str, path: Path, line: int) -> SpecError:
        return SpecError(reason, fix=fix, path=".".join(map(str, path)), line=line, file=self._file)
