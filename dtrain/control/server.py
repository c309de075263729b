"""The control plane, composed: store, launcher, scheduler, API, metrics; one process, stopped by SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dtrain import __version__
from dtrain.clock import SystemClock
from dtrain.code.folder import FolderCodeStore
from dtrain.code.store import Quota
from dtrain.control.auth import TokenInterceptor, token_in
from dtrain.control.scheduler import Scheduler
from dtrain.control.service import MAX_REQUEST_BYTES, Border, JobService
from dtrain.control.store import SqlJobStore
from dtrain.control.uploads import Reception, sweep_for_ever
from dtrain.errors import StorageError, UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.protocols import Launcher
from dtrain.job.status import JobStatus
from dtrain.job.view import ServerInfo
from dtrain.metrics.control import ControlMetrics
from dtrain.rpc.connection import Connection, host_and_port
from dtrain.rpc.v1 import job_service_pb2, job_service_pb2_grpc

CODE = "code"
"""The folder in a home where the code of its jobs is kept."""
DEFAULT_ADDRESS = "127.0.0.1:7400"
_SERVICE = job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name
_GRACE_S = 2.0
_MAX_CALLS = 1_000
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # a client's quiet watch makes sure that we live
    ("grpc.so_reuseport", 0),  # or a second server would share the port, and get half of the calls
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a control plane lives.

    Args:
        home: its folder: jobs.db, code/, token, connection.json, and a lock that only one server holds.
        logs_dir: one folder a job inside it.
        address: host:port of the API; port 0 for a free one.
        metrics_address: host:port of /metrics and /sd; port 0 for a free one.
        token_file: holds the token that callers show; None for the home's, which is made if missing.
        is_job_metrics_on_node: jobs answer /metrics at their node's address, not on loopback.
        code_quota: of the code that jobs were submitted with.
    """

    home: Path
    logs_dir: Path
    address: str = DEFAULT_ADDRESS
    metrics_address: str = "127.0.0.1:0"
    token_file: Path | None = None
    is_job_metrics_on_node: bool = False
    code_quota: Quota = field(default_factory=Quota)


async def serve(settings: Settings, launcher: Launcher, *, on_ready: Callable[[Connection], None] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then ends in good order: calls are answered, the cycle is finished. Jobs train on.

    `on_ready` is called once, when calls are answered and connection.json is written.

    Raises:
        UnavailableError: a port is taken, or another control plane has this home.
        StorageError: the home cannot be written.
        CorruptError: the job store is damaged; nothing was changed.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with control_plane(settings, launcher) as connection:
        if on_ready is not None:
            on_ready(connection)
        await stopped.wait()


@asynccontextmanager
async def control_plane(settings: Settings, launcher: Launcher) -> AsyncIterator[Connection]:
    """Within the block calls are answered and jobs looked after; behind it nothing of that is left, and jobs train on.

    Raises as `serve`.
    """
    home, clock, stopping = settings.home, SystemClock(), asyncio.Event()
    async with AsyncExitStack() as parts:
        parts.enter_context(_taken(home))
        token = token_in(token_file := settings.token_file or home / "token")
        store = parts.enter_context(closing(SqlJobStore.open(home / "jobs.db")))
        codes = FolderCodeStore(home / CODE, quota=settings.code_quota, clock=clock)
        metrics = ControlMetrics(
            version=__version__, states=[s for s in State if not s.is_terminal], jobs=lambda: _seen(scheduler, settings)
        )
        scheduler = Scheduler(store, launcher, clock=clock, on_cycle=metrics.observe_cycle)
        parts.callback(scheduler.stop)
        host, port = host_and_port(settings.metrics_address)
        metrics_address = f"{host}:{metrics.serve(host=host, port=port)}"
        parts.callback(metrics.close)
        service = JobService(
            store,
            codes,
            launcher,
            Reception(),
            border=Border(metrics.count_rpc, stopping),
            threads=parts.enter_context(ThreadPoolExecutor(8, thread_name_prefix="api")),
            logs_dir=settings.logs_dir,
            clock=clock,
            info=ServerInfo(version=__version__, started_at_s=clock.wall_s(), metrics_address=metrics_address),
            on_change=scheduler.wake,
        )
        auth = TokenInterceptor(token, on_refusal=lambda: metrics.count_rpc("any", "UNAUTHENTICATED"))
        server = grpc.aio.server(interceptors=[auth], options=_OPTIONS, maximum_concurrent_rpcs=_MAX_CALLS)
        parts.push_async_callback(server.stop, _GRACE_S)
        parts.callback(stopping.set)  # streams end by it, so that the server need not wait for them
        address = await _listen(server, service, settings.address)
        scheduler.start()
        parts.callback(asyncio.create_task(sweep_for_ever(codes, store, clock=clock)).cancel)
        connection = Connection(address, str(token_file), metrics_address=metrics_address, pid=os.getpid())
        connection.save(home)
        yield connection


async def _listen(server: grpc.aio.Server, service: JobService, address: str) -> str:
    """`server` answers calls of `service`, of health and of reflection; returns where."""
    host, port = host_and_port(address)
    job_service_pb2_grpc.add_JobServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        fix = "stop what listens there, or choose another with --address"
        raise UnavailableError(f"the address {host}:{port} is taken or not ours", fix=fix) from error
    await server.start()
    for name in ("", _SERVICE):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    return f"{host}:{port}"


def _seen(scheduler: Scheduler, settings: Settings) -> list[tuple[str, str, str]]:
    """State, id and host:port of /metrics of each job as of the last cycle; a job that holds nothing serves nothing."""
    return [
        (record.state.value, record.job_id, _metrics_of(record.status, settings) if record.state.holds_resources else "")
        for record in scheduler.snapshot
        if not record.state.is_terminal
    ]


def _metrics_of(status: JobStatus, settings: Settings) -> str:
    nodes = (
        [member.node for member in status.members if member.role == "coordinator"] if settings.is_job_metrics_on_node else []
    )
    return f"{nodes[0] if nodes else '127.0.0.1'}:{status.metrics_port}" if status.metrics_port else ""


@contextmanager
def _taken(home: Path) -> Iterator[None]:
    """`home` exists, and belongs to this process until the block or the process ends."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (home / "lock").open("w")
    except OSError as error:
        fix = "make it writable, or use another home"
        raise StorageError(f"{home} cannot be written: {error.strerror}", fix=fix) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UnavailableError(f"another dtrain runs with the home {home}", fix="stop it with: dtrain down") from error
        yield
