"""The SDK against a real server, a real store, and the launcher's twin."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from dtrain.client.client import Client
from dtrain.client.health import is_serving
from dtrain.errors import AuthError, ConflictError, InputError, NotFoundError, SpecError, StateError, UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.memory import MemoryLauncher
from dtrain.job.protocols import JobRecord
from dtrain.job.status import Member, Outcome
from dtrain.rpc.connection import Connection
from dtrain.rpc.v1 import job_service_pb2 as pb
from tests.support.control_plane import a_control_plane, a_spec, eventually


@pytest.fixture
def launcher() -> MemoryLauncher:
    return MemoryLauncher()


@pytest.fixture
def connection(tmp_path: Path, launcher: MemoryLauncher) -> Iterator[Connection]:
    with a_control_plane(tmp_path, launcher) as made:
        yield made


@pytest.fixture
def client(tmp_path: Path, connection: Connection) -> Iterator[Client]:
    with Client.from_home(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """One without jobs, for calls that change nothing."""
    with a_control_plane(tmp_path_factory.mktemp("shared"), MemoryLauncher()) as made:
        yield made


@pytest.fixture(scope="module")
def visitor(shared: Connection) -> Iterator[Client]:
    with Client(shared.address, token=shared.token()) as made:
        yield made


def running(client: Client, name: str = "flights") -> str:
    job = client.submit(a_spec(name)).job_id
    client.wait(job, until={State.RUNNING}, timeout_s=60)
    return job


def test_job_submitted_runs_suspends_resumes_and_is_cancelled(client: Client, launcher: MemoryLauncher) -> None:
    job = client.submit(a_spec()).job_id
    started = client.wait(job, until={State.RUNNING}, timeout_s=60)
    assert (started.incarnation, started.name) == (1, "flights")
    client.suspend(job)
    stopped = client.wait(job, until={State.SUSPENDED}, timeout_s=60)
    assert launcher.coordinators == {}
    client.resume(job)
    again = client.wait(job, until={State.RUNNING}, timeout_s=60)
    assert again.incarnation == 2
    assert again.status.step >= stopped.status.step > 0
    client.cancel(job)
    assert client.wait(job, until={State.CANCELLED}, timeout_s=60).state is State.CANCELLED
    assert launcher.coordinators == {}


def test_submit_twice_with_a_request_id_makes_one_job(client: Client) -> None:
    first = client.submit(a_spec(), request_id="mine")
    assert client.submit(a_spec(), request_id="mine").job_id == first.job_id
    with pytest.raises(ConflictError, match="another spec"):
        client.submit(a_spec("other"), request_id="mine")
    assert len(list(client.list())) == 1


def test_submit_keeps_the_spec_with_its_defaults(client: Client) -> None:
    assert client.submit(a_spec()).spec_json == a_spec().to_json()


def test_list_goes_through_every_page(client: Client) -> None:
    made = [client.submit(a_spec(f"job-{number}")).job_id for number in range(105)]
    assert [job.job_id for job in client.list()] == made
    client.cancel(made[-1])  # it was still queued: four of them fit
    assert [job.job_id for job in client.list(state=State.CANCELLED)] == made[-1:]


def test_list_of_large_specs_fits_into_messages(client: Client) -> None:
    spec = a_spec().model_copy(update={"params": {"table": "x" * 200_000}})
    made = [client.submit(spec).job_id for _ in range(30)]
    assert [job.job_id for job in client.list()] == made


def test_job_is_found_by_name_and_the_newest_wins(client: Client) -> None:
    client.submit(a_spec())
    newest = client.submit(a_spec())
    assert client.get("flights").job_id == newest.job_id


def test_checkpoint_of_a_running_job_shows_in_its_status(client: Client) -> None:
    job = running(client)
    client.checkpoint(job)
    eventually(lambda: client.get(job).status.last_checkpoint != "")


def test_checkpoint_of_a_job_that_does_not_run_is_refused(client: Client) -> None:
    job = client.submit(a_spec(cpus=99)).job_id
    with pytest.raises(StateError, match="QUEUED"):
        client.checkpoint(job)


def test_job_that_has_to_wait_says_why(client: Client) -> None:
    job = client.submit(a_spec(cpus=99)).job_id
    eventually(lambda: "the whole cluster has 4 CPUs" in client.get(job).message)


@pytest.mark.parametrize("permission", ["accept_code_change", "skip_step", "allow_gap"])
def test_resume_with_a_permission_tells_it_to_the_launcher(
    client: Client, launcher: MemoryLauncher, monkeypatch: pytest.MonkeyPatch, permission: str
) -> None:
    job = running(client)
    launcher.finish(job, Outcome.BLOCKED, reason="DRIFT", message="the code changed")
    assert client.wait(job, until={State.BLOCKED}, timeout_s=60).reason == "DRIFT"
    seen: list[JobRecord] = []
    monkeypatch.setattr(launcher, "launch", seen.append)
    client.resume(job, **{permission: True})
    eventually(lambda: len(seen) > 0)
    found = {name: getattr(seen[0], name) for name in ("accept_code_change", "skip_step", "allow_gap")}
    assert found == dict.fromkeys(found, False) | {permission: True}


def test_watch_gives_every_event_once_and_ends_with_the_job(client: Client, launcher: MemoryLauncher) -> None:
    job = client.submit(a_spec()).job_id
    updates = []
    for update in client.watch(job):
        updates.append(update)
        if update.job.state is State.RUNNING and update.job.status.step > 2:
            launcher.finish(job, Outcome.SUCCEEDED)
    numbers = [event.number for update in updates for event in update.events]
    assert numbers == list(range(1, len(numbers) + 1))
    states = [event.happening.message for update in updates for event in update.events if event.happening.kind == "state"]
    assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert updates[-1].job.state is State.SUCCEEDED


def test_watch_goes_on_behind_the_last_event_seen(client: Client) -> None:
    job = running(client)
    client.cancel(job)
    everything = [event for update in client.watch(job) for event in update.events]
    rest = [event for update in client.watch(job, after=everything[1].number) for event in update.events]
    assert rest == everything[2:]


def test_watch_with_more_events_than_a_message_holds_gives_all(client: Client, launcher: MemoryLauncher) -> None:
    job = running(client)
    for _ in range(1_200):
        launcher.checkpoint(job, 1)
    client.cancel(job)
    numbers = [event.number for update in client.watch(job) for event in update.events]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 1_200


def test_wait_that_takes_too_long_says_where_the_job_stands(client: Client) -> None:
    job = running(client)
    with pytest.raises(UnavailableError, match=r"is RUNNING, not SUCCEEDED, after 0\.2 s"):
        client.wait(job, until={State.SUCCEEDED}, timeout_s=0.2)


def test_logs_are_merged_cut_and_followed(client: Client, launcher: MemoryLauncher, tmp_path: Path) -> None:
    job = running(client)
    folder = tmp_path / "logs" / job
    folder.mkdir(parents=True)
    for number, process in enumerate(["trainer-0", "coordinator"], 1):
        lines = [json.dumps({"timestamp": f"T{number + 2 * i}", "level": "info", "event": "x", "i": i}) for i in range(3)]
        (folder / f"{process}.jsonl").write_text("\n".join(lines) + "\n")
    assert [line.timestamp for line in client.logs(job)] == ["T1", "T2", "T3", "T4", "T5", "T6"]
    assert [(line.source, line.fields["i"]) for line in client.logs(job, tail=2)] == [("trainer-0", "2"), ("coordinator", "2")]
    followed = client.logs(job, tail=1, follow=True)
    assert next(followed).timestamp == "T6"
    with (folder / "trainer-0.jsonl").open("a") as file:
        file.write('{"timestamp": "T7", "event": "last words"}\n')
    assert next(followed).message == "last words"
    launcher.finish(job, Outcome.SUCCEEDED)
    assert list(followed) == []


@pytest.mark.parametrize("job", ["../../etc", "a/b", "", "A", "x" * 64, "a\x00", "-a", "flights;drop table jobs", "ä", "."])
@pytest.mark.parametrize("verb", ["get", "suspend", "resume", "cancel", "checkpoint", "logs", "watch"])
def test_job_that_is_no_name_is_refused_everywhere(visitor: Client, verb: str, job: str) -> None:
    with pytest.raises(InputError, match="is not a name"):
        list(getattr(visitor, verb)(job))


@pytest.mark.parametrize("verb", ["get", "suspend", "resume", "cancel", "checkpoint", "logs", "watch"])
def test_job_that_does_not_exist_is_not_found_everywhere(visitor: Client, verb: str) -> None:
    with pytest.raises(NotFoundError, match="no job 'nothing'"):
        list(getattr(visitor, verb)("nothing"))


def test_wish_that_is_not_possible_says_what_is(client: Client) -> None:
    job = running(client)
    client.cancel(job)
    client.wait(job, until={State.CANCELLED}, timeout_s=60)
    client.cancel(job)
    with pytest.raises(StateError, match="it is over"):
        client.suspend(job)


def test_spec_that_is_wrong_is_refused_with_its_field(client: Client) -> None:
    value = json.loads(a_spec().to_json())
    value["batch"]["rows"] = -1
    with pytest.raises(SpecError) as caught:
        client._call(client._stub.CreateJob, pb.CreateJobRequest(spec_json=json.dumps(value)))
    assert caught.value.path == "batch.rows"


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateJobRequest(),
        pb.CreateJobRequest(spec_json="[" * 100_000),
        pb.CreateJobRequest(spec_json="x" * 300_000),
        pb.CreateJobRequest(spec_json=a_spec().to_json(), request_id="x" * 129),
        pb.CreateJobRequest(spec_json=a_spec().to_json(), request_id="a\nb"),
        pb.ListJobsRequest(page_size=-1),
        pb.ListJobsRequest(page_size=1_001),
        pb.ListJobsRequest(page_token="../.."),
        pb.ListJobsRequest(state=99),  # type: ignore[arg-type]
    ],
    ids=lambda request: f"{type(request).__name__}-{len(str(request))}",
)
def test_malformed_request_is_an_invalid_argument(visitor: Client, request_: object) -> None:
    method = {pb.CreateJobRequest: "CreateJob", pb.ListJobsRequest: "ListJobs"}[type(request_)]
    with pytest.raises(InputError):
        visitor._call(getattr(visitor._stub, method), request_)
    assert visitor.server_info().version


@pytest.mark.parametrize("negative", [pb.WatchJobRequest(job="a", after_event=-1), pb.StreamLogsRequest(job="a", tail=-1)])
def test_negative_number_in_a_stream_request_is_an_invalid_argument(visitor: Client, negative: object) -> None:
    method = visitor._stub.WatchJob if isinstance(negative, pb.WatchJobRequest) else visitor._stub.StreamLogs
    with pytest.raises(InputError, match="negative"):
        list(visitor._stream(method, negative))


def test_body_that_is_too_large_is_refused_and_others_are_served(visitor: Client) -> None:
    with pytest.raises(InputError, match="too large"):
        visitor._call(visitor._stub.GetJob, pb.GetJobRequest(job="x" * (5 << 20)))
    assert list(visitor.list()) == []


def test_random_bytes_never_hurt_the_server(visitor: Client) -> None:
    chance = random.Random(7)
    methods = [method.name for method in pb.DESCRIPTOR.services_by_name["JobService"].methods]
    for _ in range(300):
        call = visitor._channel.unary_unary(f"/dtrain.v1.JobService/{chance.choice(methods)}")
        error = call.future(chance.randbytes(chance.randrange(200)), metadata=visitor._metadata, timeout=5).exception()
        assert not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        assert "Traceback" not in str(error)
    assert visitor.server_info().version


def test_bug_in_the_server_reaches_the_client_without_a_traceback(
    client: Client, launcher: MemoryLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = running(client)
    monkeypatch.setattr(launcher, "checkpoint", lambda *_: 1 / 0)
    with pytest.raises(Exception, match=r"CheckpointJob met a bug: ZeroDivisionError; .*report it") as caught:
        client.checkpoint(job)
    assert "line " not in str(caught.value)


class _Bearer(grpc.StreamStreamClientInterceptor):
    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    def intercept_stream_stream(self, continuation, details, requests):  # type: ignore[no-untyped-def]
        return continuation(details._replace(metadata=self._metadata), requests)


def _methods(connection: Connection) -> list[str]:
    """Every method that the server says it has."""
    with grpc.insecure_channel(connection.address) as channel:
        known = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, _Bearer(connection.token())))
        pool = DescriptorPool(known)
        found = [method for name in known.get_services() for method in pool.FindServiceByName(name).methods]
        return [f"/{method.containing_service.full_name}/{method.name}" for method in found]


@pytest.mark.parametrize("token", [None, "", "wrong", "Bearer", "prefix"])
def test_every_call_but_health_needs_the_token(shared: Connection, token: str | None) -> None:
    methods = _methods(shared)
    assert len([name for name in methods if "dtrain.v1.JobService" in name]) == 13
    assert len([name for name in methods if "ServerReflection" in name]) == 1
    given = shared.token()[:-1] if token == "prefix" else token
    metadata = None if given is None else (("authorization", f"Bearer {given}"),)
    with grpc.insecure_channel(shared.address) as channel:
        for name in methods:
            answers = channel.unary_stream(name)(
                b"", metadata=metadata, timeout=5
            )  # on the wire a single answer is a stream too
            if not name.startswith("/grpc.health"):
                with pytest.raises(grpc.RpcError):
                    next(answers)
                assert answers.code() is grpc.StatusCode.UNAUTHENTICATED, name


@pytest.mark.parametrize("service", ["", "dtrain.v1.JobService"])
def test_health_needs_no_token(shared: Connection, service: str) -> None:
    with grpc.insecure_channel(shared.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_client_with_the_wrong_token_is_told_so(shared: Connection) -> None:
    with Client(shared.address, token="wrong") as client, pytest.raises(AuthError, match="token"):
        client.server_info()


def test_client_without_a_server_is_told_how_to_start_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Client(address, token="x") as client, pytest.raises(UnavailableError, match="dtrain up"):
            client.get("flights")


def test_proxy_in_the_environment_is_not_asked(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Client.from_home(tmp_path) as other:
        assert other.server_info() == client.server_info()


def test_port_that_is_taken_is_named_with_the_fix_and_nothing_is_left(connection: Connection, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with (
        pytest.raises(UnavailableError, match=f"{connection.address} is taken"),
        a_control_plane(other, MemoryLauncher(), address=connection.address),
    ):
        pass
    assert not (other / "connection.json").exists()
    with a_control_plane(other, MemoryLauncher()):
        pass


def test_home_that_is_taken_is_refused(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="another dtrain"), a_control_plane(tmp_path, MemoryLauncher()):
        pass


def test_files_of_a_home_are_their_owners_alone(connection: Connection) -> None:
    assert stat.S_IMODE(os.stat(connection.token_file).st_mode) == 0o600


def test_metrics_and_targets_are_served(client: Client, connection: Connection, launcher: MemoryLauncher) -> None:
    job = running(client)
    coordinator = launcher.coordinators[job]
    coordinator.status = replace(coordinator.status, metrics_port=12345)
    eventually(lambda: client.get(job).status.metrics_port == 12345)

    def targets() -> list[dict[str, object]]:
        with urlopen(f"http://{connection.metrics_address}/sd") as answer:
            return json.load(answer)

    eventually(lambda: targets() == [{"targets": ["127.0.0.1:12345"], "labels": {"__meta_dtrain_job_id": job}}])
    with urlopen(f"http://{connection.metrics_address}/metrics") as answer:
        text = answer.read().decode()
    assert 'dtrain_jobs{state="RUNNING"} 1.0' in text
    assert 'dtrain_rpc_requests_total{code="OK",method="CreateJob"} 1.0' in text
    assert "dtrain_scheduler_cycle_seconds_bucket" in text


def test_jobs_metrics_are_on_their_nodes_where_the_settings_say_so(tmp_path: Path, launcher: MemoryLauncher) -> None:
    with a_control_plane(tmp_path, launcher, is_job_metrics_on_node=True) as connection, Client.from_home(tmp_path) as client:
        job = running(client)
        members = (Member("trainer", 0, 0, 2, "10.0.0.2", "training"), Member("coordinator", 1, -1, 1, "10.0.0.1", "running"))
        coordinator = launcher.coordinators[job]
        coordinator.status = replace(coordinator.status, metrics_port=12345, members=members)
        eventually(lambda: client.get(job).status.metrics_port == 12345)

        def targets() -> list[str]:
            with urlopen(f"http://{connection.metrics_address}/sd") as answer:
                return [target for entry in json.load(answer) for target in entry["targets"]]

        eventually(lambda: targets() == ["10.0.0.1:12345"])


def test_token_of_a_file_elsewhere_is_the_one_that_counts(tmp_path: Path, launcher: MemoryLauncher) -> None:
    token_file = tmp_path / "mounted"
    token_file.write_text("from-a-secret\n")
    with a_control_plane(tmp_path / "home", launcher, token_file=token_file) as connection:
        with Client(connection.address, token="from-a-secret") as client:
            assert client.server_info().version
        assert not (tmp_path / "home" / "token").exists()
        assert Connection.load(tmp_path / "home").token() == "from-a-secret"


def test_health_check_of_containers_asks_without_a_token(shared: Connection) -> None:
    assert is_serving(shared.address)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not is_serving(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
