"""Protobuf messages to plain values and back. The fields of both have the same names, which a test makes sure of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from google.protobuf.message import Message

from dtrain.job.lifecycle import State
from dtrain.job.status import Happening, JobStatus, StoredEvent
from dtrain.job.view import Job, LogLine
from dtrain.rpc.v1 import job_pb2

_PREFIX = "JOB_STATE_"


def state_to_message(state: State | None) -> str:
    """The wire's name of a state; None is UNSPECIFIED."""
    return _PREFIX + (state.value if state else "UNSPECIFIED")


def state_from_message(number: int) -> State | None:
    """The state with this number; None for UNSPECIFIED and for numbers of a later version."""
    name = job_pb2.JobState.Name(number) if number in job_pb2.JobState.values() else ""
    return State.__members__.get(name.removeprefix(_PREFIX))


def status_to_message(status: JobStatus) -> job_pb2.JobStatus:
    """A status on the wire."""
    return job_pb2.JobStatus(**status.to_dict())


def status_from_message(message: job_pb2.JobStatus) -> JobStatus:
    """The status that was sent."""
    return JobStatus.from_dict(_plain(message))


def job_to_message(job: Job) -> job_pb2.Job:
    """What clients may know of a job."""
    told = {name: getattr(job, name) for name in job_pb2.Job.DESCRIPTOR.fields_by_name}
    return job_pb2.Job(**told | {"state": state_to_message(job.state), "status": status_to_message(job.status)})


def job_from_message(message: job_pb2.Job) -> Job:
    """The job that was sent; a state of a later version reads as BLOCKED, because only a person can tell."""
    plain = _plain(message)
    plain["state"] = state_from_message(message.state) or State.BLOCKED
    plain["status"] = status_from_message(message.status)
    return Job(**plain)


def event_to_message(event: StoredEvent) -> job_pb2.JobEvent:
    """An event on the wire."""
    told = event.happening
    return job_pb2.JobEvent(number=event.number, at_s=told.at_s, kind=told.kind, message=told.message)


def event_from_message(message: job_pb2.JobEvent) -> StoredEvent:
    """The event that was sent."""
    return StoredEvent(message.number, Happening(at_s=message.at_s, kind=message.kind, message=message.message))


def line_to_message(line: LogLine) -> job_pb2.LogLine:
    """A log line on the wire."""
    return job_pb2.LogLine(**asdict(line))


def line_from_message(message: job_pb2.LogLine) -> LogLine:
    """The log line that was sent."""
    return LogLine(**_plain(message))


def _plain(message: Message) -> dict[str, Any]:
    """A message's fields as plain values, nested messages as dicts; fields that were not set and could have been are left out."""
    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            continue
        if isinstance(value, Mapping):
            value = dict(value)
        elif field.is_repeated:
            value = [_plain(item) if isinstance(item, Message) else item for item in value]
        plain[field.name] = value
    return plain
