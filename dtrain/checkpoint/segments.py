"""Log segments in files: written, read, merged in tiers, and deleted when they were joined into others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dtrain.checkpoint.files import Files
from dtrain.errors import CorruptError, NotFoundError
from dtrain.steplog import segments
from dtrain.steplog.entries import Entry
from dtrain.steplog.progress import Progress
from dtrain.steplog.segments import Segment


class SegmentStore:
    """The step log of one job.

    Args:
        files: of this job alone.
    """

    def __init__(self, files: Files) -> None:
        self.files = files

    def put_segment(self, entries: Sequence[Entry]) -> Segment:
        """The segment of `entries` (>= 1, consecutive) is durable."""
        segment, content = segments.seal(entries)
        self.files.put(_name(segment), content)
        return segment

    def read_segment(self, segment: Segment, *, after: int = 0) -> Iterator[Entry]:
        """The entries of `segment` above `after`. Raises `CorruptError` if they are missing or others."""
        if segment.last <= after:
            return
        content = self._read(_name(segment))
        if not segment.is_index:
            yield from segments.unseal(segment, content, after=after)
            return
        for part in segments.listed(segment, content):
            yield from self.read_segment(part, after=after)

    def entries(self, progress: Progress, *, after: int = 0) -> Iterator[Entry]:
        """Every entry up to `progress.plan_number` with a number above `after`, in order, read segment by segment.

        Raises:
            CorruptError: a segment is missing or other, or the sealed segments do not hold all entries.
        """
        segments.check_tiling(progress.segments, first=1, last=progress.plan_number)
        for segment in progress.segments:
            yield from self.read_segment(segment, after=after)

    def merge(self, line: Sequence[Segment]) -> tuple[Segment, ...]:
        """The same log with ten segments of a tier merged into one, which is durable, where there are ten.

        To be called once for each checkpoint, with what the one before it named: all that is merged has been named by then.
        """
        place = segments.ripe(line)
        group = line[place]
        if not group:
            return tuple(line)
        merged, content = segments.merge(group, self._contents(group))
        self.files.put(_name(merged), content)
        return (*line[: place.start], merged, *line[place.stop :])

    def _contents(self, group: Sequence[Segment]) -> list[bytes]:
        """What is to be joined, verified; nothing where an index is to be made, also because something is not what was written."""
        if not segments.is_joined(group):
            return []
        try:
            return [self._joinable(segment) for segment in group]
        except CorruptError:
            return []

    def _joinable(self, segment: Segment) -> bytes:
        content = self._read(_name(segment))
        segments.unseal(segment, content, after=segment.last)
        return content

    def collect_segments(self, doomed: Iterable[Segment], *, newest: Sequence[Segment]) -> None:
        """Those of `doomed` are deleted that were joined into one in `newest`."""
        for segment in doomed:
            above = next((other for other in newest if other.first <= segment.first and segment.last <= other.last), None)
            if above is not None and not self._may_lead_to(above, segment):
                self.files.delete(_name(segment))

    def collect_orphans(self, line: Iterable[Segment], *, before_s: float) -> None:
        """Segments that were written before that time of the files' own clock are deleted, unless those of `line` lead to them."""
        named = {_file(segment): segment for segment in line}
        old = {name: at for name, at in self.files.modified("segments").items() if at <= before_s and name not in named}
        try:
            needed = self._files_below(named.values()) if old else set()
        except CorruptError:
            return  # what it lists is not known
        for name in old.keys() - needed:
            self.files.delete(f"segments/{name}", seen_s=old[name])

    def _files_below(self, line: Iterable[Segment]) -> set[str]:
        """The files of segments that the indexes among `line` list, at any depth."""
        parts = [part for segment in line if segment.is_index for part in segments.listed(segment, self._read(_name(segment)))]
        return {_file(part) for part in parts} | self._files_below(parts) if parts else set()

    def _may_lead_to(self, above: Segment, segment: Segment) -> bool:
        try:
            return self._leads_to(above, segment)
        except CorruptError:  # what it lists is not known: whoever reads the log is told
            return True

    def _leads_to(self, above: Segment, segment: Segment) -> bool:
        """Whether `segment` is `above`, or in it as a file of its own."""
        if above == segment or not above.is_index:
            return above == segment
        parts = segments.listed(above, self._read(_name(above)))
        return any(self._leads_to(part, segment) for part in parts if part.first <= segment.first and segment.last <= part.last)

    def _read(self, name: str) -> bytes:
        try:
            return self.files.read(name)
        except NotFoundError as error:
            raise CorruptError(f"{name} is missing") from error


def _file(segment: Segment) -> str:
    return f"{segment.sha256}.jsonl"


def _name(segment: Segment) -> str:
    return f"segments/{_file(segment)}"
