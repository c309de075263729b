"""Code that comes in parts, and code that nobody needs any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from dtrain.code.archive import LIMITS, pack
from dtrain.code.memory import MemoryCodeStore
from dtrain.control.uploads import Reception, sweep
from dtrain.errors import InputError, UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.memory import MemoryJobStore
from dtrain.job.protocols import JobRecord
from dtrain.rpc.v1 import job_service_pb2 as pb
from tests.support.code import write_code

NAME = "a" * 64


async def stream(*parts: pb.UploadCodeRequest, is_stuck: bool = False) -> AsyncIterator[pb.UploadCodeRequest]:
    for part in parts:
        yield part
    if is_stuck:
        await asyncio.Event().wait()


def receive(*parts: pb.UploadCodeRequest, is_stuck: bool = False) -> tuple[str, bytes]:
    return asyncio.run(Reception(longest_s=0.2).receive(stream(*parts, is_stuck=is_stuck)))


def test_parts_are_put_together() -> None:
    first = pb.UploadCodeRequest(code_archive=NAME, num_bytes=5, chunk=b"ab")
    assert receive(first, pb.UploadCodeRequest(chunk=b"cd"), pb.UploadCodeRequest(chunk=b"e")) == (NAME, b"abcde")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "0 bytes of code came"),
        ([pb.UploadCodeRequest(chunk=b"x")], "no sha256"),
        ([pb.UploadCodeRequest(code_archive="../x", num_bytes=1)], "no sha256"),
        ([pb.UploadCodeRequest(code_archive=NAME)], "has 1 to"),
        ([pb.UploadCodeRequest(code_archive=NAME, num_bytes=-1)], "has 1 to"),
        ([pb.UploadCodeRequest(code_archive=NAME, num_bytes=LIMITS.max_archive_bytes + 1)], "has 1 to"),
        ([pb.UploadCodeRequest(code_archive=NAME, num_bytes=3, chunk=b"ab")], "2 bytes of code came, 3 were announced"),
        ([pb.UploadCodeRequest(code_archive=NAME, num_bytes=1, chunk=b"ab")], "2 bytes of code came, 1 were announced"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: list[pb.UploadCodeRequest], words: str) -> None:
    with pytest.raises(InputError, match=words):
        receive(*parts)


def test_more_than_was_announced_is_refused_without_waiting_for_the_rest() -> None:
    with pytest.raises(InputError, match="1 were announced"):
        receive(pb.UploadCodeRequest(code_archive=NAME, num_bytes=1, chunk=b"ab"), is_stuck=True)


def test_upload_that_gets_stuck_ends_and_gives_its_turn_back() -> None:
    async def main() -> None:
        reception = Reception(longest_s=0.2)
        part = pb.UploadCodeRequest(code_archive=NAME, num_bytes=1)
        for _ in range(3):
            with pytest.raises(UnavailableError, match=r"did not come in 0\.2 s"):
                await reception.receive(stream(part, is_stuck=True))
        assert await reception.receive(stream(part, pb.UploadCodeRequest(chunk=b"x"))) == (NAME, b"x")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("state", "has_actors", "is_needed"),
    [
        (State.QUEUED, False, True),
        (State.RUNNING, True, True),
        (State.SUSPENDED, False, True),
        (State.BLOCKED, False, True),
        (State.CANCELLED, True, True),
        (State.SUCCEEDED, False, False),
        (State.FAILED, False, False),
    ],
)
def test_code_stays_as_long_as_a_job_may_run_it(tmp_path: Path, state: State, has_actors: bool, is_needed: bool) -> None:
    archive = pack(write_code(tmp_path, {"task.py": "a = 1"}))
    codes, jobs = MemoryCodeStore(), MemoryJobStore()
    codes.put(archive.sha256, archive.content)
    record = JobRecord("a-1", "a", code_archive=archive.sha256, has_actors=has_actors)
    jobs.create(replace(record, state=state))
    assert sweep(codes, jobs, now_s=0.0) == 0  # it came a moment ago
    sweep(codes, jobs, now_s=1e12)
    assert codes.touch(archive.sha256) is is_needed
