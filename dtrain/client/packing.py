"""Which folder's code a job is sent with, and what in it is none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.request import url2pathname

from dtrain.code.archive import Archive, pack
from dtrain.code.digest import digest_code
from dtrain.code.tree import pattern_of
from dtrain.errors import DriftError
from dtrain.job.view import Job
from dtrain.spec.job import JobSpec
from dtrain.spec.requirements import requirements_of


def pack_code(spec: JobSpec, folder: Path, *, besides: Sequence[Path] = ()) -> Archive:
    """The code in `folder`, without the job's checkpoints and files, which may lie there too.

    Raises:
        InputError: it cannot be packed, see `pack`; or its file of requirements has a line that is none.
    """
    requirements_of(spec.requirements, code=str(folder))
    root = Path(os.path.abspath(folder))
    places = [spec.checkpoint.to, *map(str, besides)]
    patterns = [pattern_of(path) for place in places for path in _below(root, place)]
    if spec.source.backfill is not None:
        patterns += [f"/{path}" for path in _below(root, spec.source.backfill.files)]  # a pattern already
    return pack(root, besides=patterns, requirements=spec.requirements_file)


def folder_to_send(job: Job, *, is_change_accepted: bool, is_code_kept: bool) -> Path | None:
    """The folder whose code a resumed job is to go on with; None for the code that it has.

    Nothing is sent that the user did not ask for: who submitted a job says which folder that is.

    Raises:
        DriftError: the code there is not the job's any more, and the user said neither to take it nor to leave it.
    """
    if is_code_kept or not job.code_archive:  # without one, the job's processes read the folder themselves
        return None
    spec = JobSpec.from_json(job.spec_json)
    folder = Path(spec.code)
    if not folder.is_dir():
        return None
    if is_change_accepted:
        return folder
    if digest_code(folder, requirements=spec.requirements_file) != job.code_sha256:
        raise DriftError(
            f"the code in {folder} was changed since it was sent",
            fix="restore it; or resume with --accept-code-change to go on with it, or with --keep-code to go on without it",
        )
    return None


def _below(root: Path, place: str) -> Iterator[str]:
    """`place` as a relative path, if it is a local one below `root`."""
    if place.startswith("file://"):
        place = url2pathname(place.removeprefix("file://"))
    if "://" not in place:
        path = Path(os.path.normpath(place))
        for below in {root, root.resolve()}:
            if path.is_relative_to(below) and path != below:
                yield path.relative_to(below).as_posix()
