"""Code on its way in: an archive in parts, and the end of those that no job needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from dtrain.clock import Clock
from dtrain.code.store import CodeStore, check_name, check_size
from dtrain.errors import InputError, UnavailableError
from dtrain.job.protocols import JobStore
from dtrain.logs import logger
from dtrain.rpc.v1 import job_service_pb2 as pb

_AT_ONCE = 2
"""So many archives are held in memory."""
_LONGEST_S = 300.0
_SWEEP_EVERY_S, _UNUSED_S = 60.0, 900.0
_log = logger(role="api")


class Reception:
    """Takes archives, a few at a time.

    Args:
        longest_s: that one may take to come.
    """

    def __init__(self, *, longest_s: float = _LONGEST_S) -> None:
        self._longest_s = longest_s
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def receive(self, parts: AsyncIterator[pb.UploadCodeRequest]) -> tuple[str, bytes]:
        """The digest that an archive is said to have, and its bytes: as many as were announced, and not looked at.

        Raises:
            InputError: its first message is wrong, or others come than it says.
            UnavailableError: it did not come in time.
        """
        try:
            async with asyncio.timeout(self._longest_s), self._turn:
                return await _received(parts)
        except TimeoutError as error:
            raise UnavailableError(f"the code did not come in {self._longest_s:g} s", fix="send it again") from error


async def _received(parts: AsyncIterator[pb.UploadCodeRequest]) -> tuple[str, bytes]:
    sha256, num_bytes, content = "", 0, bytearray()
    async for part in parts:
        if not sha256:
            sha256, num_bytes = check_name(part.code_archive), part.num_bytes
            check_size(num_bytes)
        content += part.chunk
        if len(content) > num_bytes:
            break
    if not sha256 or len(content) != num_bytes:
        raise InputError(f"{len(content):,} bytes of code came, {num_bytes:,} were announced", fix="send it again")
    return sha256, bytes(content)


async def sweep_for_ever(codes: CodeStore, jobs: JobStore, *, clock: Clock) -> None:
    """Now and then the archives go that no job refers to which may still run."""
    while True:
        await asyncio.sleep(_SWEEP_EVERY_S)
        try:
            await asyncio.to_thread(sweep, codes, jobs, now_s=clock.wall_s())
        except Exception as error:  # the top of a task: the next time may be better
            _log.error("code that nobody needs was not removed", exc_info=error)


def sweep(codes: CodeStore, jobs: JobStore, *, now_s: float) -> int:
    """Archives that no unsettled job refers to are gone, if they were not touched for a while; how many. Blocking."""

    def used() -> set[str]:
        return {record.code_archive for record in jobs.unsettled()}

    return codes.sweep(used=used, before_s=now_s - _UNUSED_S)
