"""The API: each RPC checks its input, asks the store off the event loop, and answers a message or one of our errors."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import grpc

from dtrain.clock import Clock
from dtrain.code.store import CodeStore, check_name, missing
from dtrain.control.joblogs import JobLogs
from dtrain.control.uploads import Reception
from dtrain.control.wishes import wish, wish_workers
from dtrain.errors import DtrainError, InputError, InternalError, StateError, UnavailableError
from dtrain.job.ids import check_label, new_job_id
from dtrain.job.lifecycle import Event, State
from dtrain.job.protocols import JobRecord, JobStore, Launcher
from dtrain.job.status import Happening, StoredEvent
from dtrain.job.view import ServerInfo
from dtrain.logs import logger
from dtrain.rpc.convert import event_to_message, job_to_message, line_to_message, state_from_message
from dtrain.rpc.errors import abort
from dtrain.rpc.v1 import job_pb2, job_service_pb2_grpc
from dtrain.rpc.v1 import job_service_pb2 as pb
from dtrain.spec.job import JobSpec

MAX_REQUEST_BYTES = 4 << 20
MAX_SPEC_BYTES = 256 << 10
_MAX_PAGE, _PAGE, _MAX_PAGE_BYTES = 1_000, 100, 4 << 20
_MAX_REQUEST_ID = 128
_EVENTS_AT_ONCE = 500
_LINES_AT_ONCE = 50
_POLL_S = 0.2

T = TypeVar("T")
Request = TypeVar("Request")
Context = grpc.aio.ServicerContext[Any, Any]
OnCall = Callable[[str, str], None]
_log = logger(role="api")


@dataclass(slots=True)
class Border:
    """What stands between a handler and the wire: errors become statuses, every end is counted, the end of the server ends streams."""

    on_call: OnCall
    """Told the method and the code of every call that ends."""
    stopping: asyncio.Event

    async def fail(self, method: str, context: Context, error: Exception) -> None:
        """The call ends with `error`; a client never sees a traceback."""
        if not isinstance(error, DtrainError):
            _log.error("a call met a bug", method=method, exc_info=error)
            fix = "the control plane's log has more; please report it"
            error = InternalError(f"{method} met a bug: {type(error).__name__}", fix=fix)
        self.on_call(method, error.code)
        await abort(context, error)

    async def pause(self) -> None:
        """Returns after a moment. Raises `UnavailableError` when the server is about to end."""
        try:
            await asyncio.wait_for(self.stopping.wait(), _POLL_S)
        except TimeoutError:
            return
        raise UnavailableError("dtrain is stopping", fix="start it again with: dtrain up")


def _unary(handler: Callable[[Any, Request], Awaitable[T]]) -> Callable[[Any, Request, Context], Awaitable[T]]:
    @functools.wraps(handler)
    async def answer(self: JobService, request: Request, context: Context) -> Any:
        try:
            message = await handler(self, request)
        except Exception as error:  # the border of an RPC
            return await self.border.fail(handler.__name__, context, error)
        self.border.on_call(handler.__name__, "OK")
        return message

    return answer


def _stream(handler: Callable[[Any, Request], AsyncIterator[T]]) -> Callable[[Any, Request, Context], AsyncIterator[T]]:
    @functools.wraps(handler)
    async def answer(self: JobService, request: Request, context: Context) -> AsyncIterator[Any]:
        try:
            async for message in handler(self, request):
                yield message
        except Exception as error:  # the border of an RPC
            await self.border.fail(handler.__name__, context, error)
        self.border.on_call(handler.__name__, "OK")

    return answer


@dataclass(eq=False)
class JobService(job_service_pb2_grpc.JobServiceServicer):
    """`dtrain.v1.JobService` over a store. Wishes are recorded; the scheduler, woken by `on_change`, fulfils them."""

    store: JobStore
    codes: CodeStore
    launcher: Launcher
    """Asked for checkpoints only."""
    reception: Reception
    border: Border
    threads: ThreadPoolExecutor
    """Where every blocking call runs."""
    logs_dir: Path
    """One folder a job inside it."""
    clock: Clock
    info: ServerInfo
    on_change: Callable[[], None]

    @_unary
    async def CreateJob(self, request: pb.CreateJobRequest) -> pb.CreateJobResponse:  # noqa: N802 the wire's name
        """See the proto."""
        spec = await self._call(_spec, request.spec_json)
        request_id = _request_id(request.request_id)
        await self._check_kept(request.code_archive)
        now_s = self.clock.wall_s()
        record = JobRecord(
            new_job_id(spec.name),
            spec.name,
            spec_json=spec.to_json(),
            code_archive=request.code_archive,
            code_sha256=_code_sha256(request),
            request_id=request_id,
            created_at_s=now_s,
            updated_at_s=now_s,
        )
        told = Happening(at_s=now_s, kind="state", message=State.QUEUED.value)
        kept = await self._call(self.store.create, record, (told,))
        self.on_change()
        return pb.CreateJobResponse(job=job_to_message(kept))

    @_unary
    async def GetJob(self, request: pb.GetJobRequest) -> pb.GetJobResponse:  # noqa: N802
        """See the proto."""
        return pb.GetJobResponse(job=job_to_message(await self._get(request.job)))

    @_unary
    async def ListJobs(self, request: pb.ListJobsRequest) -> pb.ListJobsResponse:  # noqa: N802
        """See the proto."""
        if not 0 <= request.page_size <= _MAX_PAGE:
            raise InputError(f"page_size {request.page_size} is out of bounds", fix=f"use 1 to {_MAX_PAGE:,}, or 0")
        limit = request.page_size or _PAGE
        after = check_label(request.page_token, "page_token") if request.page_token else ""
        state = state_from_message(request.state)
        if request.state and state is None:
            raise InputError(f"there is no state {request.state}", fix="use one of JobState")
        records = await self._call(self.store.page, after=after, limit=limit, state=state)
        jobs = _bounded([job_to_message(record) for record in records])
        is_last = len(records) < limit and len(jobs) == len(records)
        return pb.ListJobsResponse(jobs=jobs, next_page_token="" if is_last else jobs[-1].job_id)

    @_stream
    async def WatchJob(self, request: pb.WatchJobRequest) -> AsyncIterator[pb.WatchJobResponse]:  # noqa: N802
        """See the proto."""
        if request.after_event < 0:
            raise InputError(f"after_event {request.after_event} is negative", fix="use 0 for all events")
        job_id, after, version = (await self._get(request.job)).job_id, request.after_event, -1
        while True:
            record, events = await self._call(self._since, job_id, after)
            if events or record.version != version:
                yield pb.WatchJobResponse(job=job_to_message(record), events=[event_to_message(event) for event in events])
            after, version = after + len(events), record.version
            if len(events) < _EVENTS_AT_ONCE:
                if record.state.is_terminal:
                    return
                await self.border.pause()

    @_unary
    async def SuspendJob(self, request: pb.SuspendJobRequest) -> pb.SuspendJobResponse:  # noqa: N802
        """See the proto."""
        return pb.SuspendJobResponse(job=await self._wish(request.job, Event.SUSPEND))

    @_unary
    async def ResumeJob(self, request: pb.ResumeJobRequest) -> pb.ResumeJobResponse:  # noqa: N802
        """See the proto."""
        await self._check_kept(request.code_archive)
        return pb.ResumeJobResponse(
            job=await self._wish(
                request.job,
                Event.RESUME,
                accept_code_change=request.accept_code_change,
                skip_step=request.skip_step,
                allow_gap=request.allow_gap,
                code=(request.code_archive, _code_sha256(request)),
            )
        )

    @_unary
    async def CancelJob(self, request: pb.CancelJobRequest) -> pb.CancelJobResponse:  # noqa: N802
        """See the proto."""
        return pb.CancelJobResponse(job=await self._wish(request.job, Event.CANCEL))

    @_unary
    async def CheckpointJob(self, request: pb.CheckpointJobRequest) -> pb.CheckpointJobResponse:  # noqa: N802
        """See the proto."""
        record = await self._get(request.job)
        if record.state is not State.RUNNING:
            raise StateError(f"cannot checkpoint a job that is {record.state.value}", fix="possible when it is RUNNING")
        await self._call(self.launcher.checkpoint, record.job_id, record.incarnation)
        return pb.CheckpointJobResponse(job=job_to_message(record))

    @_unary
    async def ScaleJob(self, request: pb.ScaleJobRequest) -> pb.ScaleJobResponse:  # noqa: N802
        """See the proto."""
        job, now_s = check_label(request.job, "job"), self.clock.wall_s()
        record = await self._call(wish_workers, self.store, job, request.workers, now_s=now_s)
        self.on_change()
        return pb.ScaleJobResponse(job=job_to_message(record))

    @_stream
    async def StreamLogs(self, request: pb.StreamLogsRequest) -> AsyncIterator[pb.StreamLogsResponse]:  # noqa: N802
        """See the proto."""
        if request.tail < 0:
            raise InputError(f"tail {request.tail} is negative", fix="use 0 for all lines")
        record = await self._get(request.job)
        logs = JobLogs(self.logs_dir / check_label(record.job_id, "job id"), tail=request.tail)
        is_over = not request.follow
        while True:
            lines = await self._call(logs.take, _LINES_AT_ONCE)
            if lines:
                yield pb.StreamLogsResponse(lines=[line_to_message(line) for line in lines])
            elif is_over:
                return
            else:
                is_over = (await self._get(record.job_id)).state.is_terminal
                await self.border.pause()

    @_unary
    async def GetCode(self, request: pb.GetCodeRequest) -> pb.GetCodeResponse:  # noqa: N802
        """See the proto."""
        return pb.GetCodeResponse(is_kept=await self._call(self.codes.touch, request.code_archive))

    @_unary
    async def UploadCode(self, request: AsyncIterator[pb.UploadCodeRequest]) -> pb.UploadCodeResponse:  # noqa: N802
        """See the proto."""
        sha256, content = await self.reception.receive(request)
        await self._call(self.codes.put, sha256, content)
        return pb.UploadCodeResponse()

    @_unary
    async def GetServerInfo(self, request: pb.GetServerInfoRequest) -> pb.GetServerInfoResponse:  # noqa: ARG002, N802
        """See the proto."""
        return pb.GetServerInfoResponse(**asdict(self.info))

    async def _call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """What the blocking `function` answers; the event loop is free meanwhile."""
        ask = functools.partial(function, *args, **options)
        return await asyncio.get_running_loop().run_in_executor(self.threads, ask)

    async def _get(self, job: str) -> JobRecord:
        return await self._call(self.store.get, check_label(job, "job"))

    async def _check_kept(self, code_archive: str) -> None:
        """A job may be given this code: it is kept, and stays so until the job is."""
        if code_archive and not await self._call(self.codes.touch, code_archive):
            raise missing(code_archive)

    async def _wish(self, job: str, event: Event, **allowed: Any) -> job_pb2.Job:
        check_label(job, "job")
        record = await self._call(wish, self.store, job, event, now_s=self.clock.wall_s(), **allowed)
        self.on_change()
        return job_to_message(record)

    def _since(self, job_id: str, after: int) -> tuple[JobRecord, Sequence[StoredEvent]]:
        """The record first: events that belong to its state are there by then."""
        return self.store.get(job_id), self.store.events(job_id, after=after, limit=_EVENTS_AT_ONCE)


def _spec(text: str) -> JobSpec:
    if len(text) > MAX_SPEC_BYTES:
        raise InputError(f"the spec has {len(text):,} characters", fix=f"use at most {MAX_SPEC_BYTES:,}")
    return JobSpec.from_json(text)


def _code_sha256(request: pb.CreateJobRequest | pb.ResumeJobRequest) -> str:
    return check_name(request.code_sha256) if request.code_archive else ""


def _request_id(text: str) -> str:
    if len(text) > _MAX_REQUEST_ID or not text.isprintable():
        raise InputError("request_id is too long or not printable", fix=f"use up to {_MAX_REQUEST_ID} printable characters")
    return text or uuid4().hex


def _bounded(jobs: list[job_pb2.Job]) -> list[job_pb2.Job]:
    """As many from the front as one message holds; at least one."""
    size = 0
    for count, job in enumerate(jobs):
        size += job.ByteSize()
        if size > _MAX_PAGE_BYTES and count:
            return jobs[:count]
    return jobs
