"""What the processes of a job logged: JSON lines in one file a process, merged by time."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from pathlib import Path

from dtrain.job.view import LogLine
from dtrain.logs import printable

_LONGEST_LINE_BYTES = 1 << 20
_LONGEST_VALUE = 4_096
_MOST_FIELDS = 32
_BLOCK_BYTES = 1 << 16


class JobLogs:
    """The lines of every `*.jsonl` in a folder, in order of time, and those that are added later.

    Args:
        folder: of one job; it need not exist yet.
        tail: begin with the last so many lines of all; 0 for all lines.
    """

    def __init__(self, folder: Path, *, tail: int = 0) -> None:
        self._folder = folder
        self._tail = tail
        self._offsets: dict[Path, int] = {}
        self._lines = self._begin()

    def take(self, limit: int) -> list[LogLine]:
        """Up to `limit` further lines; none when there are no more for now. Only whole lines count."""
        batch = list(islice(self._lines, limit))
        if len(batch) < limit:
            self._lines = self._merged()
        return batch

    def _begin(self) -> Iterator[LogLine]:
        if not self._tail:
            yield from self._merged()
            return
        self._offsets = {path: _start_of_last(path, self._tail) for path in self._files()}
        yield from deque(self._merged(), maxlen=self._tail)

    def _files(self) -> list[Path]:
        """Regular files only: a link could lead anywhere."""
        return sorted(path for path in self._folder.glob("*.jsonl") if path.is_file() and not path.is_symlink())

    def _merged(self) -> Iterator[LogLine]:
        for _, line in merge(*[self._read(path) for path in self._files()], key=lambda pair: pair[0]):
            yield line

    def _read(self, path: Path) -> Iterator[tuple[str, LogLine]]:
        """The lines behind the file's offset, each with a time to sort by: its own, or that of the line before."""
        at = ""
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            while (raw := file.readline(_LONGEST_LINE_BYTES)).endswith(b"\n") or len(raw) == _LONGEST_LINE_BYTES:
                self._offsets[path] = file.tell()
                line = parse(raw.decode(errors="replace").rstrip("\n"), source=path.stem)
                at = line.timestamp or at
                yield at, line


def parse(text: str, *, source: str) -> LogLine:
    """A line as its process wrote it; what is no JSON object is all message."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return LogLine(timestamp="", source=source, level="", message=text[:_LONGEST_VALUE])
    texts = {
        printable(key): printable(item if isinstance(item, str) else json.dumps(item))[:_LONGEST_VALUE]
        for key, item in value.items()
    }
    timestamp, level, message = (texts.pop(key, "") for key in ("timestamp", "level", "event"))
    fields = dict(islice(texts.items(), _MOST_FIELDS))
    return LogLine(timestamp=timestamp, source=source, level=level, message=message, fields=fields)


def _start_of_last(path: Path, num_lines: int) -> int:
    """The offset at which the file's last `num_lines` whole lines begin."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        missing = num_lines + 1  # the newline before the first of them
        while end > 0:
            begin = max(0, end - _BLOCK_BYTES)
            file.seek(begin)
            block = file.read(end - begin)
            while (found := block.rfind(b"\n")) >= 0:
                missing -= 1
                if missing == 0:
                    return begin + found + 1
                block = block[:found]
            end = begin
    return 0
