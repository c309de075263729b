"""The SDK: jobs on a dtrain that runs somewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import grpc

from dtrain.client.packing import folder_to_send, pack_code
from dtrain.code.archive import Archive
from dtrain.errors import UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.view import Job, LogLine, ServerInfo, Update
from dtrain.rpc.connection import Connection
from dtrain.rpc.convert import event_from_message, job_from_message, line_from_message, state_to_message
from dtrain.rpc.errors import from_call
from dtrain.rpc.v1 import job_service_pb2 as pb
from dtrain.rpc.v1 import job_service_pb2_grpc
from dtrain.spec.job import JobSpec

T = TypeVar("T")

_WAITS_S = (0.1, 0.2, 0.4)
"""Between the tries of a call."""
_LONGEST_WAIT_S = 1.0
_PATIENCE_S = 60.0
"""How long a watch keeps looking for a server that is gone."""
_SLOWEST_BYTES_PER_S = 250_000
_CHUNK_BYTES = 1 << 20
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy in the environment knows nothing of a loopback address
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),  # less than a call's tries take together
    ("grpc.keepalive_time_ms", 20_000),
)


class Client:
    """Jobs on the dtrain at an address. Use it in a `with` block, or close it. A `job` is an id, or a name for the newest of it.

    A call that failed because the server was not there is repeated for a moment: each of them changes nothing the second time.

    Args:
        address: host:port of the API.
        token: as in the server's token file.
        timeout_s: of each call, all its tries together; streams have none.

    Threads: safe to use from several.
    """

    def __init__(self, address: str = "127.0.0.1:7400", *, token: str, timeout_s: float = 10.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub: Any = job_service_pb2_grpc.JobServiceStub(self._channel)  # type: ignore[no-untyped-call]

    @classmethod
    def from_home(cls, home: Path | None = None, *, timeout_s: float = 10.0) -> Self:
        """A client of the dtrain that was started with this home; ~/.dtrain by default.

        Raises:
            UnavailableError: none was started with it.
            AuthError: its token cannot be read.
        """
        connection = Connection.load(home or Path.home() / ".dtrain")
        return cls(connection.address, token=connection.token(), timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The connection is closed, and with it every stream."""
        self._channel.close()

    def submit(self, spec: JobSpec, *, request_id: str | None = None, besides: Sequence[Path] = ()) -> Job:
        """A new job, kept durably by the time this returns; and its code with it, which its folder is not needed for any more.

        Args:
            spec: what to train on what.
            request_id: submitting again with it and the same spec and code answers the same job; a fresh one by default.
            besides: folders that are no code, wherever they are, besides those that hold the job's checkpoints and files.

        Raises:
            ConflictError: the request id was used for another spec, or other code.
            InputError: the code cannot be packed: it holds a link, or is too large.
        """
        code = self._sent(spec, Path(spec.code), besides) if spec.code else {}
        request = pb.CreateJobRequest(request_id=request_id or uuid4().hex, spec_json=spec.to_json(), **code)
        return self._job(self._stub.CreateJob, request)

    def get(self, job: str) -> Job:
        """The job with this id, or the newest with this name. Raises `NotFoundError`."""
        return self._job(self._stub.GetJob, pb.GetJobRequest(job=job))

    def list(self, *, state: State | None = None) -> Iterator[Job]:
        """Every job, or those in `state`, in order of creation."""
        token = ""
        while True:
            page = self._call(self._stub.ListJobs, pb.ListJobsRequest(page_token=token, state=state_to_message(state)))
            yield from map(job_from_message, page.jobs)
            token = page.next_page_token
            if not token:
                return

    def watch(self, job: str, *, after: int = 0) -> Iterator[Update]:
        """The job now and whenever it changes, with each event numbered above `after` once, in order; ends after its terminal state.

        A lost connection is made again, for up to a minute without an answer.
        """
        seen, deadline_s, wait_s = after, math.inf, _WAITS_S[0]
        job = self.get(job).job_id  # or a newer job of that name would be followed after a reconnect
        while True:
            try:
                for message in self._stream(self._stub.WatchJob, pb.WatchJobRequest(job=job, after_event=seen)):
                    deadline_s, wait_s = math.inf, _WAITS_S[0]
                    update = Update(job_from_message(message.job), tuple(map(event_from_message, message.events)))
                    yield update
                    seen = update.events[-1].number if update.events else seen
                return
            except UnavailableError:
                now_s = time.monotonic()
                deadline_s = min(deadline_s, now_s + _PATIENCE_S)  # from the first failure on: before it, a job may be quiet
                if now_s >= deadline_s:
                    raise
                time.sleep(wait_s)
                wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)

    def wait(self, job: str, *, until: Collection[State], timeout_s: float | None = None) -> Job:
        """The job, once it is in one of the states, or over; without `timeout_s` there is no end of waiting.

        Raises:
            UnavailableError: it was not there in time.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            found = self.get(job)
            if found.state in until or found.state.is_terminal:
                return found
            if deadline_s is not None and time.monotonic() >= deadline_s:
                wanted = " or ".join(sorted(until))
                raise UnavailableError(
                    f"{found.job_id} is {found.state.value}, not {wanted}, after {timeout_s:g} s", fix="wait longer"
                )
            time.sleep(0.1)

    def suspend(self, job: str) -> Job:
        """The job is asked for a last checkpoint and a stop; no error when it was before."""
        return self._job(self._stub.SuspendJob, pb.SuspendJobRequest(job=job))

    def resume(
        self,
        job: str,
        *,
        accept_code_change: bool = False,
        skip_step: bool = False,
        allow_gap: bool = False,
        code: Path | None = None,
        keep_code: bool = False,
        besides: Sequence[Path] = (),
    ) -> Job:
        """A suspended or blocked job is queued again, to go on where it stopped.

        Args:
            job: id or name.
            accept_code_change: even if the task's code is not the checkpoint's any more. The code in the folder that the job was
                submitted from is sent, if that is here.
            skip_step: without the rows of the step that killed its processes; the log says so.
            allow_gap: from where records are left, if its topic has lost some; the log says so.
            code: with the code in this folder.
            keep_code: with the code that the job has, whatever became of the folder that it was submitted from.
            besides: as of `submit`.

        Raises:
            DriftError: the code in its folder was changed since, and none of these says what to do about it.
        """
        found = self.get(job)
        folder = code or folder_to_send(found, is_change_accepted=accept_code_change, is_code_kept=keep_code)
        sent = self._sent(JobSpec.from_json(found.spec_json), folder, besides) if folder else {}
        request = pb.ResumeJobRequest(
            job=found.job_id, accept_code_change=accept_code_change, skip_step=skip_step, allow_gap=allow_gap, **sent
        )
        return self._job(self._stub.ResumeJob, request)

    def scale(self, job: str, workers: int) -> Job:
        """So many workers train, as soon as there is room; without a restart. Between `workers.min` and `workers.max`."""
        return self._job(self._stub.ScaleJob, pb.ScaleJobRequest(job=job, workers=workers))

    def cancel(self, job: str) -> Job:
        """The job is ended for good; its checkpoints stay."""
        return self._job(self._stub.CancelJob, pb.CancelJobRequest(job=job))

    def checkpoint(self, job: str) -> Job:
        """A running job is asked for a checkpoint; its status names it once it is durable."""
        return self._job(self._stub.CheckpointJob, pb.CheckpointJobRequest(job=job))

    def logs(self, job: str, *, tail: int | None = None, follow: bool = False) -> Iterator[LogLine]:
        """What the job's processes logged, in order of time: all of it or the last `tail` lines.

        `follow`: and then what is logged from now on, until the job is over.
        """
        if tail == 0 and not follow:
            return
        request = pb.StreamLogsRequest(job=job, tail=tail or 0, follow=follow)
        for message in self._stream(self._stub.StreamLogs, request):
            yield from map(line_from_message, message.lines)

    def server_info(self) -> ServerInfo:
        """What answers at the address."""
        found = self._call(self._stub.GetServerInfo, pb.GetServerInfoRequest())
        return ServerInfo(found.version, started_at_s=found.started_at_s, metrics_address=found.metrics_address)

    def _sent(self, spec: JobSpec, folder: Path, besides: Sequence[Path]) -> dict[str, str]:
        """The code in `folder` is kept by the server: what a request says of it. It is sent only if it is not there yet."""
        archive = pack_code(spec, folder, besides=besides)
        if not self._call(self._stub.GetCode, pb.GetCodeRequest(code_archive=archive.sha256)).is_kept:
            longest_s = self._timeout_s + len(archive.content) / _SLOWEST_BYTES_PER_S
            self._call(partial(_upload, self._stub), archive, timeout_s=longest_s)
        return {"code_archive": archive.sha256, "code_sha256": archive.code_sha256}

    def _job(self, method: Callable[..., Any], request: Any) -> Job:
        return job_from_message(self._call(method, request).job)

    def _call(self, method: Callable[..., Any], request: Any, *, timeout_s: float | None = None) -> Any:
        """The answer. Tried again while the server is not there: every request is the same the second time."""
        deadline_s = time.monotonic() + (timeout_s or self._timeout_s)
        for wait_s in (*_WAITS_S, None):
            try:
                return method(request, timeout=max(0.01, deadline_s - time.monotonic()), metadata=self._metadata)
            except grpc.RpcError as call:
                error = from_call(call, address=self._address)
                if not isinstance(error, UnavailableError) or wait_s is None or time.monotonic() + wait_s >= deadline_s:
                    raise error from call
            time.sleep(wait_s)
        raise AssertionError("unreachable")

    def _stream(self, method: Callable[..., Any], request: Any) -> Iterator[Any]:
        """The answers, until the server or the caller ends them."""
        call = method(request, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_call(error, address=self._address) from error
        finally:
            call.cancel()


def _upload(stub: Any, archive: Archive, **options: Any) -> Any:
    """The answer to all parts of `archive`; they are compressed on the way."""
    return stub.UploadCode(_parts(archive), compression=grpc.Compression.Gzip, **options)


def _parts(archive: Archive) -> Iterator[pb.UploadCodeRequest]:
    yield pb.UploadCodeRequest(code_archive=archive.sha256, num_bytes=len(archive.content))
    for at in range(0, len(archive.content), _CHUNK_BYTES):
        yield pb.UploadCodeRequest(chunk=archive.content[at : at + _CHUNK_BYTES])
