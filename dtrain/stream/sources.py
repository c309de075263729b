"""Which source a job file means: the one place that decides it."""

from __future__ import annotations

import gc

from dtrain.clock import SystemClock
from dtrain.data.transforms import transforms_of
from dtrain.spec.job import JobSpec, SourceSpec
from dtrain.stream.files import FileLog
from dtrain.stream.files_places import open_place
from dtrain.stream.files_source import FileSource
from dtrain.stream.kafka import KafkaSource, new_log
from dtrain.stream.source import Source


def open_source(spec: JobSpec) -> Source:
    """The source of a job, with the job's transforms. Nothing is asked of it yet.

    Raises:
        InputError: what the spec needs is not installed.
    """
    source = _of_section(spec.source)
    source.transform_rows(transforms_of(spec))
    return source


def collect_seldom() -> None:
    """From now on this process, which does little but read, looks for garbage in cycles some thirty times less often.

    Why: records come by the thousand, and are in no cycles; but each new thousand has Python walk over all that live. Where a message is one
    row, that takes a third of the time.
    """
    gc.set_threshold(20_000, 50, 100)


def _of_section(spec: SourceSpec) -> Source:
    history, clock = spec.backfill, SystemClock()
    if history is None:
        return KafkaSource(spec, clock=clock)
    live = KafkaSource(spec, clock=clock) if spec.has_topics else None
    letters = new_log(spec, clock=clock) if spec.bootstrap and live is None else None
    files = FileLog(history, open_place(history.files), letters=letters, clock=clock)
    return FileSource(spec, history, files, live=live, clock=clock)
