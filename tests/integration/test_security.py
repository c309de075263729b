"""A broker that wants encryption and a login: both engines, every client of theirs, and what they say when it is refused."""

from __future__ import annotations

import json
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deploy.kafka.jars import resolved
from dtrain.cli.exits import Exit
from dtrain.cli.main import run
from dtrain.data.schema import Schema
from dtrain.errors import AuthError, DtrainError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import Reject, RowRange
from dtrain.stream.kafka import KafkaSource
from tests.support.certificates import Authority
from tests.support.commands import as_a_process
from tests.support.kafka import REPOSITORY
from tests.support.messages import json_object
from tests.support.secured import CLIENT_ID, CLIENT_SECRET, PASSWORD, USER, Secured, TokenServer, secured_broker, token_server

SCHEMA = Schema({"y": "int64"})
CANARIES = (PASSWORD, CLIENT_SECRET)
pytestmark = [
    pytest.mark.skipif(not resolved(REPOSITORY / "build" / "kafka").is_dir(), reason="needs a broker of its own"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as secured:
        yield secured


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with token_server() as tokens:
        yield tokens


@pytest.fixture(params=["kafka-python", "librdkafka"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """References to what the broker and the server of tokens know: some in the environment, some in files."""
    monkeypatch.setenv("KAFKA_USER", USER)
    monkeypatch.setenv("OAUTH_SECRET", CLIENT_SECRET)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "client").write_text(CLIENT_ID)
    return {
        "login": {"username": {"env": "KAFKA_USER"}, "password": {"file": str(tmp_path / "password")}},
        "client": {"client_id": {"file": str(tmp_path / "client")}, "client_secret": {"env": "OAUTH_SECRET"}},
    }


def a_source(secured: Secured, topic: str, *, engine: str, **security: Any) -> KafkaSource:
    listener = security["protocol"].upper()
    spec = {"topic": topic, "bootstrap": secured.addresses[listener], "engine": engine, "format": "json", "security": security}
    return KafkaSource(SourceSpec.model_validate(spec | {"start": "earliest", "end": "latest"}))


def use_all_clients(source: KafkaSource, secured: Secured, topic: str) -> None:
    """What consumer, admin client and producer do for a job."""
    ends = source.resolve_end()
    assert ends is not None
    found: list[int] = []
    with closing(source), closing(source.follow(source.resolve_start(), schema=SCHEMA, ends=ends)) as feed:
        deadline = time.monotonic() + 90
        while len(found) < 50 and time.monotonic() < deadline:
            found += [y for block in feed.poll(max_wait_s=0.2) for y in block.batch["y"].to_pylist()]
        partition = Partition(topic, 0)
        reject = RowRange(partition, Position(0), Position(1), 0, rejects=(Reject(0, 0, "bad"),))
        source.send_rejects([reject], to_topic=f"{topic}-bad", job_id="j")
        source.commit({partition: Position(7)}, group=f"g-{topic}")
    assert found == list(range(50))
    assert len(secured.kafka.read(f"{topic}-bad")) == 1
    with secured.kafka.admin() as admin:
        assert [stored.offset for stored in admin.list_group_offsets({f"g-{topic}": None})[f"g-{topic}"].values()] == [7]


@pytest.fixture
def topic(secured: Secured) -> str:
    topic = secured.kafka.new_topic()
    secured.kafka.produce(topic, 0, [json_object(y=y) for y in range(50)])
    return topic


@pytest.mark.parametrize("mechanism", ["plain", "scram-sha-256", "scram-sha-512"])
def test_login_by_password_lets_every_client_in(
    secured: Secured, topic: str, engine: str, secrets: Mapping[str, Any], mechanism: str
) -> None:
    security = {"protocol": "sasl_ssl", "mechanism": mechanism, "ca": str(secured.authority.ca), **secrets["login"]}
    use_all_clients(a_source(secured, topic, engine=engine, **security), secured, topic)


def test_login_without_encryption_lets_every_client_in(
    secured: Secured, topic: str, engine: str, secrets: Mapping[str, Any]
) -> None:
    security = {"protocol": "sasl_plaintext", "mechanism": "scram-sha-512", **secrets["login"]}
    use_all_clients(a_source(secured, topic, engine=engine, **security), secured, topic)


def test_login_by_token_lets_every_client_in(
    secured: Secured, topic: str, engine: str, secrets: Mapping[str, Any], tokens: TokenServer
) -> None:
    oauth = {"token_url": tokens.url, "scope": "kafka", **secrets["client"]}
    security = {"protocol": "sasl_ssl", "mechanism": "oauthbearer", "ca": str(secured.authority.ca), "oauth": oauth}
    use_all_clients(a_source(secured, topic, engine=engine, **security), secured, topic)
    assert tokens.asked == [{"grant_type": "client_credentials", "scope": "kafka"}]  # kept, and shared by the clients


def test_certificate_of_ones_own_lets_every_client_in(secured: Secured, topic: str, engine: str) -> None:
    cert, key = secured.authority.sign("client")
    security = {"protocol": "ssl", "ca": str(secured.authority.ca), "cert": str(cert), "key": str(key)}
    use_all_clients(a_source(secured, topic, engine=engine, **security), secured, topic)


def test_token_that_ends_is_renewed_while_a_feed_goes_on(
    secured: Secured, topic: str, engine: str, secrets: Mapping[str, Any], tokens: TokenServer
) -> None:
    tokens.life_s = 4.0
    oauth = {"token_url": tokens.url, **secrets["client"]}
    security = {"protocol": "sasl_ssl", "mechanism": "oauthbearer", "ca": str(secured.authority.ca), "oauth": oauth}
    source = a_source(secured, topic, engine=engine, **security)
    found: list[int] = []
    with closing(source), closing(source.follow(source.resolve_start(), schema=SCHEMA, ends=None)) as feed:
        for number in range(50, 60):
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                found += [y for block in feed.poll(max_wait_s=0.2) for y in block.batch["y"].to_pylist()]
            secured.kafka.produce(topic, 0, [json_object(y=number)])
        deadline = time.monotonic() + 90
        while len(found) < 60 and time.monotonic() < deadline:
            found += [y for block in feed.poll(max_wait_s=0.2) for y in block.batch["y"].to_pylist()]
    assert found == list(range(60))
    assert len(tokens.asked) > 2


def refusal(source: KafkaSource, kind: type[DtrainError] = AuthError) -> str:
    """What is said, with all that a traceback shows, in which no secret may be."""
    with closing(source), pytest.raises(kind) as caught:
        source.resolve_start()
    told = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=False).format())
    assert not any(canary in told for canary in CANARIES)
    return str(caught.value)


def test_wrong_password_is_refused_in_words(
    secured: Secured, topic: str, engine: str, secrets: Mapping[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("wrong")
    security = {"protocol": "sasl_ssl", "mechanism": "scram-sha-512", "ca": str(secured.authority.ca), **secrets["login"]}
    said = refusal(a_source(secured, topic, engine=engine, **security))
    assert "lets nobody in" in said
    assert "source.security" in said


def test_broker_of_another_authority_is_not_trusted(
    secured: Secured, topic: str, engine: str, secrets: Mapping[str, Any], tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    security = {"protocol": "sasl_ssl", "mechanism": "plain", "ca": str(stranger.ca), **secrets["login"]}
    assert "certificate" in refusal(a_source(secured, topic, engine=engine, **security))


def test_client_without_certificate_is_refused(secured: Secured, topic: str, engine: str) -> None:
    security = {"protocol": "ssl", "ca": str(secured.authority.ca)}
    assert "certificate" in refusal(a_source(secured, topic, engine=engine, **security))


def test_secret_that_is_not_there_is_named(secured: Secured, topic: str, engine: str) -> None:
    login = {"username": {"env": "NOT_SET_ANYWHERE"}, "password": {"file": "/nowhere/password"}}
    security = {"protocol": "sasl_ssl", "mechanism": "plain", "ca": str(secured.authority.ca), **login}
    assert "NOT_SET_ANYWHERE" in refusal(a_source(secured, topic, engine=engine, **security))


def test_certificate_that_is_not_there_is_named(secured: Secured, topic: str, engine: str) -> None:
    said = refusal(a_source(secured, topic, engine=engine, protocol="ssl", ca="/nowhere/ca.pem"))
    assert "`source.security.ca`" in said
    assert "/nowhere/ca.pem" in said


@pytest.mark.parametrize(("status", "kind"), [(401, AuthError), (503, UnavailableError)])
def test_token_server_that_gives_none_is_named(
    secured: Secured, topic: str, engine: str, secrets: Mapping[str, Any], tokens: TokenServer, status: int, kind: Any
) -> None:
    tokens.status = status
    oauth = {"token_url": tokens.url, **secrets["client"]}
    security = {"protocol": "sasl_ssl", "mechanism": "oauthbearer", "ca": str(secured.authority.ca), "oauth": oauth}
    said = refusal(a_source(secured, topic, engine=engine, **security), kind)
    assert tokens.url in said
    assert str(status) in said


JOB = """\
name: line
task: {module}:Line
source:
  topic: {topic}
  bootstrap: "{bootstrap}"
  engine: {engine}
  format: json
  start: earliest
  end: latest
  security: {security}
  on_bad_record: {{send_to: {topic}-bad, budget: 1}}
batch: {{rows: 16, max_wait: 50ms}}
checkpoint: {{to: checkpoints, every: 500ms}}
"""
TASK = """\
import dtrain
from torch import nn

class Line(dtrain.Task):
    features = dtrain.Schema({"y": "int64"})
    def model(self, params): return Model()
    def loss(self, outputs, batch): return (outputs - 1) ** 2

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)
    def forward(self, y): return self.line(y.float().unsqueeze(1)).squeeze(1)
"""


@pytest.mark.parametrize("password", [PASSWORD, f"wrong-{PASSWORD}"])
def test_secrets_are_in_nothing_that_a_job_writes(
    secured: Secured, topic: str, engine: str, tmp_path: Path, password: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole job, one that is let in and one that is not: checkpoints, specs in them, logs, output, errors."""
    secured.kafka.produce(topic, 0, [b"bad"])
    login = {"username": {"env": "KAFKA_USER"}, "password": {"env": "KAFKA_PASSWORD"}}
    security = {"protocol": "sasl_ssl", "mechanism": "scram-sha-256", "ca": str(secured.authority.ca), **login}
    module = f"line_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{module}.py").write_text(TASK)
    bootstrap = secured.addresses["SASL_SSL"]
    (tmp_path / "job.yaml").write_text(
        JOB.format(module=module, topic=topic, bootstrap=bootstrap, engine=engine, security=json.dumps(security))
    )
    with as_a_process(tmp_path, KAFKA_USER=USER, KAFKA_PASSWORD=password, HOME=str(tmp_path)):
        code = run(["local", "job.yaml", "--output", "json"])
    out, err = capfd.readouterr()
    assert (code == Exit.OK) == ("succeeded" in out) == (password == PASSWORD), out + err
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    written += [out.encode(), err.encode()]
    assert b"KAFKA_PASSWORD" in b"".join(written)
    assert not any(password.encode() in content for content in written)
