"""The control plane, composed: store, launcher, scheduler, API, metrics; one process, stopped by SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dtrain import __version__
from dtrain.clock import SystemClock
from dtrain.control.auth import TokenInterceptor, token_in
from dtrain.control.scheduler import Scheduler
from dtrain.control.service import MAX_REQUEST_BYTES, Border, JobService
from dtrain.control.store import SqlJobStore
from dtrain.errors import InputError, StorageError, UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.protocols import Launcher
from dtrain.job.view import ServerInfo
from dtrain.metrics.control import ControlMetrics
from dtrain.rpc.connection import Connection
from dtrain.rpc.v1 import job_service_pb2, job_service_pb2_grpc

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
        home: its folder: jobs.db, token, connection.json, and a lock that only one server holds.
        logs_dir: one folder a job inside it.
        address: host:port of the API; port 0 for a free one.
        metrics_address: host:port of /metrics and /sd; port 0 for a free one.
    """

    home: Path
    logs_dir: Path
    address: str = DEFAULT_ADDRESS
    metrics_address: str = "127.0.0.1:0"


def serve(settings: Settings, launcher: Launcher, *, on_ready: Callable[[Connection], None] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then ends in good order: calls are answered, the cycle is finished. Jobs train on.

    Args:
        settings: where.
        launcher: what makes jobs run.
        on_ready: called once, when calls are answered and connection.json is written.

    Raises:
        UnavailableError: a port is taken, or another control plane has this home.
        StorageError: the home cannot be written.
        CorruptError: the job store is damaged; nothing was changed.
    """
    asyncio.run(_serve(settings, launcher, on_ready))


async def _serve(settings: Settings, launcher: Launcher, on_ready: Callable[[Connection], None] | None) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = ControlPlane(settings, launcher)
    try:
        connection = await server.start()
        if on_ready is not None:
            on_ready(connection)
        await stopped.wait()
    finally:
        await server.stop()


class ControlPlane:
    """All parts of a control plane in this process. `start` makes them, `stop` ends those that were made."""

    def __init__(self, settings: Settings, launcher: Launcher) -> None:
        self._settings = settings
        self._launcher = launcher
        self._stopping = asyncio.Event()
        self._undo: list[Callable[[], Any]] = []
        self._server: grpc.aio.Server | None = None

    async def start(self) -> Connection:
        """Calls are answered from now on, and jobs looked after. Raises as `serve`."""
        home, clock = self._settings.home, SystemClock()
        _take(home, self._undo)
        token = token_in(home / "token")
        store = SqlJobStore.open(home / "jobs.db")
        self._undo.append(store.close)
        metrics = ControlMetrics(
            version=__version__, states=[s for s in State if not s.is_terminal], jobs=lambda: _seen(scheduler)
        )
        scheduler = Scheduler(store, self._launcher, clock=clock, on_cycle=metrics.observe_cycle)
        host, port = _host_and_port(self._settings.metrics_address)
        metrics_address = f"{host}:{metrics.serve(host=host, port=port)}"
        self._undo.append(metrics.close)
        threads = ThreadPoolExecutor(8, thread_name_prefix="api")
        self._undo.append(threads.shutdown)
        service = JobService(
            store,
            self._launcher,
            border=Border(metrics.count_rpc, self._stopping),
            threads=threads,
            logs_dir=self._settings.logs_dir,
            clock=clock,
            info=ServerInfo(version=__version__, started_at_s=clock.wall_s(), metrics_address=metrics_address),
            on_change=scheduler.wake,
        )
        auth = TokenInterceptor(token, on_refusal=lambda: metrics.count_rpc("any", "UNAUTHENTICATED"))
        address = await self._listen(service, auth)
        scheduler.start()
        self._undo.append(scheduler.stop)
        connection = Connection(address, str(home / "token"), metrics_address=metrics_address, pid=os.getpid())
        connection.save(home)
        return connection

    async def stop(self) -> None:
        """Nothing of this control plane is left; jobs train on."""
        self._stopping.set()  # streams end by it, so that the server need not wait for them
        if self._server is not None:
            await self._server.stop(_GRACE_S)
        while self._undo:
            await asyncio.to_thread(self._undo.pop())

    async def _listen(self, service: JobService, auth: TokenInterceptor) -> str:
        host, port = _host_and_port(self._settings.address)
        self._server = grpc.aio.server(interceptors=[auth], options=_OPTIONS, maximum_concurrent_rpcs=_MAX_CALLS)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(service, self._server)  # type: ignore[no-untyped-call]
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, self._server)
        reflection.enable_server_reflection((_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise UnavailableError(
                f"the address {host}:{port} is taken or not ours",
                fix="stop what listens there, or choose another with --address",
            ) from error
        await self._server.start()
        for name in ("", _SERVICE):
            await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{host}:{port}"


def _seen(scheduler: Scheduler) -> list[tuple[str, str, int]]:
    """State, id and metrics port of each job as of the last cycle; a job that holds nothing serves nothing."""
    return [
        (record.state.value, record.job_id, record.status.metrics_port if record.state.holds_resources else 0)
        for record in scheduler.snapshot
        if not record.state.is_terminal
    ]


def _take(home: Path, undo: list[Callable[[], Any]]) -> None:
    """`home` exists, and belongs to this process until it ends, however it ends."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (home / "lock").open("w")
    except OSError as error:
        raise StorageError(
            f"{home} cannot be written: {error.strerror}", fix="make it writable, or use another home"
        ) from error
    undo.append(lock.close)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UnavailableError(f"another dtrain runs with the home {home}", fix="stop it with: dtrain down") from error


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InputError(f"{address!r} is not host:port", fix=f"write for example {DEFAULT_ADDRESS}")
    return host, int(port)
