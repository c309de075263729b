"""The job file: what a user submits, as immutable values with their meanings and bounds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.request import url2pathname

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from dtrain.spec.durations import DurationS, Moment, problem

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,54}[a-z0-9])?$"
TASK_PATTERN = r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*|\.[A-Za-z_]\w*)$"
TOPIC_PATTERN = r"^[a-zA-Z0-9._-]{1,249}$"


class Section(BaseModel):
    """A part of the job file: immutable, and nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_timedelta="float")


class DeadLetters(Section):
    """Where bad records go, and how many may."""

    send_to: str = Field(
        pattern=TOPIC_PATTERN,
        description="Topic that receives each bad record, with its coordinate and reason as headers.",
    )
    budget: float = Field(
        0.001, ge=0, le=1, description="Share of all rows that may be bad, counted from the first 1,000 rows on."
    )


Offsets = dict[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class SourceSpec(Section):
    """The stream to train on."""

    topic: str = Field(pattern=TOPIC_PATTERN, description="Kafka topic: letters, digits, '.', '_', '-', at most 249.")
    bootstrap: str = Field(min_length=1, description="Kafka's first addresses, host:port, separated by commas.")
    format: Literal["arrow", "json"] = Field(
        "arrow", description="How a message's value is written: an Arrow IPC stream, or one JSON object."
    )
    start: Literal["earliest", "latest"] | Moment | Offsets = Field(
        "latest", description="First record: earliest, latest, a time (ISO 8601), or an offset for each partition."
    )
    end: Literal["never", "latest"] | Moment | Offsets = Field(
        "never",
        description="Where the job has succeeded: never, latest (as of the job's start), a time, or an offset for each partition.",
    )
    isolation: Literal["read_committed", "read_uncommitted"] = Field(
        "read_committed", description="Whether records of open or aborted transactions are left out."
    )
    on_bad_record: Literal["stop"] | DeadLetters = Field(
        "stop",
        description="What to do with a record that cannot be decoded: stop, or send it to a topic within a budget.",
    )

    @field_validator("bootstrap")
    @classmethod
    def _bootstrap_is_hosts_and_ports(cls, value: str) -> str:
        for address in value.split(","):
            port = address.strip().rpartition(":")[2]
            if not re.fullmatch(r"\s*[^:\s]+:[0-9]{1,5}\s*", address) or not 0 < int(port) < 65536:
                raise problem(f"{address.strip()!r} is not host:port", fix="write for example localhost:9092")
        return value

    @property
    def dead_letters(self) -> DeadLetters | None:
        """Where bad records go; None where they stop the job."""
        return self.on_bad_record if isinstance(self.on_bad_record, DeadLetters) else None

    @property
    def reject_budget(self) -> float | None:
        """Share of all rows that may be bad; None for not one."""
        return self.dead_letters.budget if self.dead_letters is not None else None


class BatchSpec(Section):
    """How the stream is cut into steps."""

    rows: int = Field(512, ge=1, le=1_000_000, description="Rows of a full step, over all workers.")
    max_wait: DurationS = Field(
        0.2,
        ge=0.001,
        le=3600,
        json_schema_extra={"minimum": 0.001, "maximum": 3600},
        description="Longest wait of a row for its step to fill; then a shorter step is cut.",
    )
    num_slices: int = Field(
        8, ge=1, le=1024, description="Parts of each step that workers share out; no more workers than this can help."
    )
    order: Literal["arrival", "strict"] = Field(
        "arrival",
        description="arrival: whatever has come. strict: a fixed share of every partition in each step, whenever it comes.",
    )


class WorkersSpec(Section):
    """The processes that train."""

    min: int = Field(1, ge=1, le=1024, description="Workers without which the job does not start.")
    max: int = Field(1, ge=1, le=1024, description="Workers that the job uses when there is room.")
    cpus: float = Field(1, gt=0, le=1024, description="CPUs of each worker.")
    gpus: float = Field(0, ge=0, le=16, description="GPUs of each worker; with any, the gradients travel by NCCL.")


class TrainSpec(Section):
    """The arithmetic."""

    seed: int = Field(0, ge=0, lt=2**31, description="Seed of initial weights and of everything random in a step.")
    reduction: Literal["mean", "sum"] = Field(
        "mean", description="Whether a step's gradient is the mean or the sum over its rows."
    )
    numerics: Literal["fast", "exact"] = Field(
        "fast",
        description="fast: equal up to rounding for any number of workers. exact: equal to the last bit, on the same build.",
    )


class CheckpointSpec(Section):
    """Where the truth is kept."""

    to: str = Field(
        min_length=1, description="Folder for checkpoints, as file:///path or a path; each job makes its own inside."
    )
    every: DurationS = Field(
        30.0,
        ge=0.05,
        le=86_400,
        json_schema_extra={"minimum": 0.05, "maximum": 86_400},
        description="Time between checkpoints.",
    )
    keep: int = Field(
        5, ge=2, le=10_000, description="How many are kept, besides checkpoint 0's record of where the job began."
    )

    @field_validator("to")
    @classmethod
    def _to_is_local(cls, value: str) -> str:
        if "://" in value and not value.startswith("file:///"):
            raise problem(
                f"{value.split('://')[0]}:// is not supported yet",
                fix="write file:///path or a path: a folder that all workers can reach",
            )
        return value

    def folder_of(self, job_id: str) -> Path:
        """The folder of this job's checkpoints."""
        home = url2pathname(self.to.removeprefix("file://")) if self.to.startswith("file://") else self.to
        return Path(home) / job_id


class EvaluateSpec(Section):
    """The score of each row before it is trained on."""

    window: int = Field(10_000, ge=1, le=100_000_000, description="Rows over which windowed scores are taken.")
    metrics: tuple[Literal["accuracy", "auroc"], ...] = Field((), description="Besides the loss.")


class JobSpec(Section):
    """A whole job."""

    name: str = Field(pattern=NAME_PATTERN, description="a-z, 0-9 and '-', at most 56; the job's id begins with it.")
    task: str = Field(pattern=TASK_PATTERN, description="module:Class in `code`, or of an installed package.")
    code: str = Field(
        "", description="Folder of the task's module, from the job file's folder; readable where the workers run."
    )
    params: dict[str, JsonValue] = Field(
        default_factory=dict, description="Whatever the task wants to know; handed to its methods."
    )
    source: SourceSpec = Field(description="The stream to train on.")
    batch: BatchSpec = Field(default_factory=BatchSpec, description="How the stream is cut into steps.")
    workers: WorkersSpec = Field(default_factory=WorkersSpec, description="The processes that train.")
    train: TrainSpec = Field(default_factory=TrainSpec, description="The arithmetic.")
    checkpoint: CheckpointSpec = Field(description="Where the truth is kept.")
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec, description="Scores.")
    queue: Literal["default"] = Field("default", description="The queue that the job waits in.")

    @model_validator(mode="after")
    def _relations(self) -> Self:
        workers, num_slices, bad = self.workers, self.batch.num_slices, self.source.dead_letters
        if workers.min > workers.max:
            reason = f"{workers.min} is more than `workers.max` ({workers.max})"
            raise problem(reason, fix=f"raise that or use at most {workers.max}", path="workers.min")
        if workers.max > num_slices:
            reason = f"{workers.max} is more than `batch.num_slices` ({num_slices})"
            raise problem(reason, fix=f"raise that or use at most {num_slices}", path="workers.max")
        if workers.gpus and self.train.numerics == "exact":
            raise problem(
                "exact is not promised on GPUs yet", fix="write fast, or leave `workers.gpus` out", path="train.numerics"
            )
        if bad is not None and bad.send_to == self.source.topic:
            reason = f"{bad.send_to!r} is the topic that the job trains on"
            raise problem(reason, fix="name another one", path="source.on_bad_record.send_to")
        return self

    def to_json(self) -> str:
        """The spec with every default filled in, as canonical JSON."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """The spec that `to_json` wrote, nothing converted; pydantic's ValidationError for anything else."""
        return cls.model_validate_json(text, strict=True)


def json_schema() -> dict[str, Any]:
    """The job file's JSON schema, for editors."""
    schema = JobSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "dtrain job"}
