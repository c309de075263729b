"""`source.security`: references instead of secrets, and which fields go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dtrain.errors import AuthError, SpecError
from dtrain.spec.job import JobSpec
from dtrain.spec.load import load_job
from dtrain.spec.secrets import Secret
from dtrain.spec.security import SecuritySpec

LOGIN = "username: {env: USER_NAME}, password: {file: password}"
OAUTH = "oauth: {token_url: 'https://login/token', client_id: {env: ID}, client_secret: {file: secrets/client}}"
JOB = """\
name: line
task: line:Line
source: {{topic: t, bootstrap: "h:1", security: {security}}}
checkpoint: {{to: checkpoints}}
"""


def load(folder: Path, security: str) -> JobSpec:
    (folder / "line.py").touch()
    (folder / "job.yaml").write_text(JOB.format(security=security))
    return load_job(folder / "job.yaml", environment={})


@pytest.mark.parametrize(
    "security",
    [
        "{}",
        "{protocol: ssl}",
        "{protocol: ssl, ca: ca.pem, cert: c.pem, key: k.pem}",
        f"{{protocol: sasl_plaintext, mechanism: scram-sha-256, {LOGIN}}}",
        f"{{protocol: sasl_ssl, mechanism: plain, ca: ca.pem, {LOGIN}}}",
        f"{{protocol: sasl_ssl, mechanism: oauthbearer, {OAUTH}}}",
    ],
)
def test_security_that_fits_survives_the_store(tmp_path: Path, security: str) -> None:
    spec = load(tmp_path, security)
    assert JobSpec.from_json(spec.to_json()) == spec


def test_paths_of_security_are_taken_from_the_job_files_folder(tmp_path: Path) -> None:
    found = load(tmp_path, f"{{protocol: sasl_ssl, mechanism: plain, ca: tls/ca.pem, {LOGIN}}}").source.security
    assert (found.ca, found.cert) == (f"{tmp_path}/tls/ca.pem", "")
    assert (found.username, found.password) == (Secret(env="USER_NAME"), Secret(file=f"{tmp_path}/password"))
    oauth = load(tmp_path, f"{{protocol: sasl_ssl, mechanism: oauthbearer, {OAUTH}}}").source.security.oauth
    assert oauth != "none"
    assert oauth.client_secret.file == f"{tmp_path}/secrets/client"


@pytest.mark.parametrize(
    ("security", "field", "reason"),
    [
        ("{protocol: sasl_ssl}", "mechanism", "is missing with protocol sasl_ssl"),
        ("{protocol: ssl, mechanism: plain}", "mechanism", "means nothing with protocol ssl"),
        ("{protocol: sasl_ssl, mechanism: plain, username: {env: A}}", "password", "is missing with mechanism plain"),
        (f"{{protocol: sasl_ssl, mechanism: oauthbearer, {LOGIN}}}", "username", "means nothing with mechanism oauthbearer"),
        ("{protocol: sasl_ssl, mechanism: oauthbearer}", "oauth", "is missing with mechanism oauthbearer"),
        (f"{{protocol: sasl_plaintext, mechanism: plain, {LOGIN}, ca: a}}", "ca", "means nothing with protocol"),
        ("{protocol: ssl, cert: a}", "key", "is missing with protocol ssl"),
        ("{ca: a}", "ca", "means nothing with protocol plaintext"),
    ],
)
def test_security_that_does_not_fit_is_refused_by_field(tmp_path: Path, security: str, field: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        load(tmp_path, security)
    assert caught.value.path == f"source.security.{field}"


@pytest.mark.parametrize("url", ["http://login.example/token", "https://me:canary@login/token", "ftp://login", "canary"])
def test_token_url_that_is_not_safe_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SpecError, match=r"oauth\.token_url"):
        load(tmp_path, f"{{protocol: sasl_ssl, mechanism: oauthbearer, {OAUTH.replace('https://login/token', url)}}}")


@pytest.mark.parametrize("written", ["hunter2", "{env: hunter2!}", "{env: A, file: hunter2}", "[hunter2]", "{}", "{env: ''}"])
@pytest.mark.parametrize("field", ["password", "username"])
def test_secret_that_is_written_out_is_refused_and_not_repeated(tmp_path: Path, written: str, field: str) -> None:
    other = {"password": "username", "username": "password"}[field]
    with pytest.raises(SpecError, match=f"source.security.{field}") as caught:
        load(tmp_path, f"{{protocol: sasl_ssl, mechanism: plain, {other}: {{env: B}}, {field}: {written}}}")
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_spec_that_was_not_checked_does_not_repeat_a_secret_either() -> None:
    security: dict[str, Any] = {"protocol": "sasl_ssl", "mechanism": "plain", "username": "hunter2", "password": "hunter2"}
    with pytest.raises(ValidationError) as caught:
        SecuritySpec.model_validate(security)
    assert "hunter2" not in str(caught.value)


def test_secret_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", " spaces count ")
    (tmp_path / "secret").write_text("line\r\n")
    assert Secret(env="A_SECRET").read() == " spaces count "
    assert Secret(file=str(tmp_path / "secret")).read() == "line"


def test_secret_that_is_nowhere_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_SECRET", raising=False)
    (tmp_path / "empty").write_text("\n")
    for secret, named in (
        (Secret(env="A_SECRET"), "A_SECRET"),
        (Secret(file="/nowhere/secret"), "/nowhere/secret"),
        (Secret(file=str(tmp_path / "empty")), "is empty"),
    ):
        with pytest.raises(AuthError, match=named):
            secret.read()
