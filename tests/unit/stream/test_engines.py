"""Engines: which client reads, and what is said where it is not installed."""

from __future__ import annotations

import sys

import kafka.errors
import pytest
from confluent_kafka import KafkaError

from dtrain.clock import SystemClock
from dtrain.errors import AuthError, StateError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.stream import librdkafka
from dtrain.stream.kafka import Heard, KafkaLog, new_log


def spec(engine: str) -> SourceSpec:
    return SourceSpec.model_validate({"topic": "t", "bootstrap": "127.0.0.1:1", "engine": engine})


def test_engine_is_that_of_the_spec() -> None:
    assert isinstance(new_log(spec("kafka-python"), clock=SystemClock()), KafkaLog)
    assert type(new_log(spec("librdkafka"), clock=SystemClock())).__name__ == "LibrdkafkaLog"


def test_engine_that_is_not_installed_is_refused_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dtrain.stream.librdkafka", raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(StateError, match=r"librdkafka.*confluent_kafka.*pip install 'dtrain\[librdkafka\]'"):
        new_log(spec("librdkafka"), clock=SystemClock())


def test_refusal_that_was_heard_is_said_where_nobody_answers_by_kafka_python() -> None:
    heard = Heard("h:1")
    heard(kafka.errors.SaslAuthenticationFailedError("wrong password"))
    heard(kafka.errors.KafkaConnectionError("closed"))
    said = heard.error_of(kafka.errors.KafkaTimeoutError("unable to bootstrap"))
    assert isinstance(said, AuthError)
    assert "wrong password" in str(said)
    heard.well()
    assert isinstance(heard.error_of(kafka.errors.KafkaTimeoutError("late")), UnavailableError)


def test_refusal_that_was_heard_is_said_where_nobody_answers_by_librdkafka() -> None:
    heard = librdkafka.Heard("h:1", topics="t")
    heard(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    heard(KafkaError(KafkaError._TRANSPORT, "closed"))
    said = heard.error_of(KafkaError(KafkaError._TIMED_OUT, "late"))
    assert isinstance(said, AuthError)
    assert "wrong password" in str(said)
    assert isinstance(heard.well(said), AuthError)
    assert isinstance(heard.error_of(KafkaError(KafkaError._TIMED_OUT, "late")), UnavailableError)
