"""The job file: what a user submits, as immutable values with their meanings and bounds."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self
from urllib.request import url2pathname

from pydantic import BeforeValidator, Field, JsonValue, ValidationError, field_validator, model_validator

from dtrain.errors import SpecError
from dtrain.spec.durations import DurationS, Moment, problem
from dtrain.spec.formats import Format, checked_format
from dtrain.spec.requirements import checked_requirements
from dtrain.spec.section import Section
from dtrain.spec.security import SecuritySpec
from dtrain.spec.transform import TransformSpec

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,54}[a-z0-9])?$"
TASK_PATTERN = r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*|\.[A-Za-z_]\w*)$"
TOPIC_PATTERN = r"^[a-zA-Z0-9._-]{1,249}$"
BUCKET_PATTERN = r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,221}(/[a-zA-Z0-9][a-zA-Z0-9._-]*)*/?"
BUCKET_SCHEMES = ("s3", "gs")
FileFormat = Literal["parquet", "arrow", "csv", "jsonl"]
FILE_FORMATS: dict[str, FileFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


class DeadLetters(Section):
    """Where bad records go, and how many may."""

    send_to: str = Field(
        pattern=TOPIC_PATTERN,
        description="Topic that receives each bad record, with its coordinate and reason as headers.",
    )
    budget: float = Field(
        0.001, ge=0, le=1, description="Share of the window's rows that may be bad, counted from the first 1,000 rows on."
    )
    window: int = Field(100_000, ge=1_000, le=10**12, description="Rows, the last ones trained, that the budget is a share of.")


class LagPolicy(Section):
    """What is done when training cannot keep up."""

    over: DurationS = Field(
        ge=1,
        le=10**8,
        json_schema_extra={"minimum": 1, "maximum": 10**8},
        description="How old a record may get, by its timestamp, before it is trained.",
    )
    do: Literal["skip_to_latest"] = Field(
        description="skip_to_latest: its partition goes on from the newest record; what is passed over is in the log, and counted."
    )


Topic = Annotated[str, Field(pattern=TOPIC_PATTERN)]
PartitionNumber = Annotated[int, Field(ge=0)]
Offsets = dict[PartitionNumber, Annotated[int, Field(ge=0)]]
"""Partition → offset."""
TopicOffsets = dict[Topic, Offsets]
"""The same for each of several topics."""


class FilesSpec(Section):
    """Files to train on, in order of their names, one behind the other."""

    files: str = Field(
        min_length=1,
        description="Which files: a path, file:///path, s3://bucket/key or gs://bucket/key; `*`, `?`, `[…]` stand within one name.",
    )
    format: Literal["auto", "parquet", "arrow", "csv", "jsonl"] = Field(
        "auto",
        description="How they are written; auto: as the suffix says. arrow: IPC files or streams. csv: with a line of names.",
    )
    at_a_time: int = Field(
        1, ge=1, le=64, description="Files that are read side by side; with 1, rows come in the order of the names."
    )

    @field_validator("files")
    @classmethod
    def _files_are_somewhere(cls, value: str) -> str:
        return _checked_files(value)

    @model_validator(mode="after")
    def _format_is_known(self) -> Self:
        if self.format == "auto":
            _format_of(self.files)
        return self

    @property
    def file_format(self) -> FileFormat:
        """How the files are written."""
        return _format_of(self.files) if self.format == "auto" else self.format


def _checked_files(value: str) -> str:
    scheme, found, rest = value.partition("://")
    if found and not value.startswith("file:///") and scheme not in BUCKET_SCHEMES:
        raise problem(f"{scheme}:// is not supported", fix="write a path, file:///path, s3://bucket/key or gs://bucket/key")
    if scheme in BUCKET_SCHEMES and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,221}/.+", rest):
        raise problem(f"what follows {scheme}:// is not a bucket and a key", fix="write for example s3://bucket/2013-*.parquet")
    if "**" in value:
        raise problem("** would go through folders", fix="write * for each folder on the way")
    return value


def _format_of(files: str) -> FileFormat:
    suffix = PurePosixPath(files).suffix.lower()
    if suffix not in FILE_FORMATS:
        reason = f"{suffix or 'a name without suffix'} does not say how the files are written"
        fix = f"name files that end in {', '.join(FILE_FORMATS)}, or say it: `history: {{files: …, format: …}}`"
        raise problem(reason, fix=fix)
    return FILE_FORMATS[suffix]


class SourceSpec(Section):
    """The stream to train on."""

    topic: str = Field(
        "",
        pattern=TOPIC_PATTERN.replace("{1,", "{0,"),
        description="Kafka topic: letters, digits, '.', '_', '-', at most 249. This, `topics` or `pattern`.",
    )
    topics: tuple[Topic, ...] = Field((), max_length=1000, description="Several topics, in place of one.")
    pattern: str = Field(
        "",
        max_length=1000,
        description="All topics whose whole name matches this regular expression, in place of naming them; those that come later too, "
        "unless the job has an `end`. Never those that begin with __, or the one of bad records.",
    )
    partitions: tuple[PartitionNumber, ...] = Field(
        (),
        max_length=10_000,
        description="Only these partitions of each topic; without, all, and those that are added later too, unless the job has an `end`.",
    )
    bootstrap: str = Field("", description="Kafka's first addresses, host:port, separated by commas.")
    files: str = Field("", description="Files in place of a topic; short for `history` without a topic.")
    history: Literal["none"] | FilesSpec = Field(
        "none", description="Files that are trained before the topic's `start`, or alone where there is no topic."
    )
    engine: Literal["kafka-python", "librdkafka"] = Field(
        "kafka-python",
        description="The client that reads: pure Python, or C, which is several times as fast and needs `pip install 'dtrain[librdkafka]'`.",
    )
    security: SecuritySpec = Field(
        default_factory=SecuritySpec, description="Encryption and login, as the brokers want them; see docs/security.md."
    )
    format: Annotated[Format, BeforeValidator(checked_format)] = Field(
        "arrow",
        description="How a message's value is written: an Arrow IPC stream or file; JSON, an object a row; or another format with what it needs, see docs/formats.md.",
    )
    start: Literal["earliest", "latest"] | Moment | Offsets | TopicOffsets = Field(
        "latest",
        description="First record: earliest, latest, a time (ISO 8601), or an offset for each partition; of several topics, by topic.",
    )
    end: Literal["never", "latest"] | Moment | Offsets | TopicOffsets = Field(
        "never",
        description="Where the job has succeeded: never, latest (as of the job's start), a time, or an offset for each partition; "
        "of several topics, by topic.",
    )
    isolation: Literal["read_committed", "read_uncommitted"] = Field(
        "read_committed", description="Whether records of open or aborted transactions are left out."
    )
    readers: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        "auto",
        description="Processes that read and decode, at most one a partition. auto: one, and more while they are what training waits for.",
    )
    on_lag: Literal["wait"] | LagPolicy = Field(
        "wait", description="What to do with records that get too old before they are trained: train them late, or not at all."
    )
    align: DurationS = Field(
        0,
        ge=0,
        le=10**8,
        json_schema_extra={"minimum": 0, "maximum": 10**8},
        description="How far a partition that catches up may run ahead of the others, in its records' timestamps. 0: as far as it likes.",
    )
    on_bad_record: Literal["stop"] | DeadLetters = Field(
        "stop",
        description="What to do with a record that cannot be decoded: stop, or send it to a topic within a budget.",
    )

    @field_validator("bootstrap")
    @classmethod
    def _bootstrap_is_hosts_and_ports(cls, value: str) -> str:
        for address in value.split(",") if value else ():
            port = address.strip().rpartition(":")[2]
            if not re.fullmatch(r"\s*[^:\s]+:[0-9]{1,5}\s*", address) or not 0 < int(port) < 65536:
                raise problem(f"{address.strip()!r} is not host:port", fix="write for example localhost:9092")
        return value

    @field_validator("files")
    @classmethod
    def _files_are_somewhere(cls, value: str) -> str:
        if value:
            _format_of(_checked_files(value))
        return value

    @field_validator("topics", "partitions")
    @classmethod
    def _each_is_named_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        seen = set[object]()
        for item in value:
            if item in seen:
                raise problem(f"{item!r} is named twice", fix="name each once")
            seen.add(item)
        return value

    @field_validator("pattern")
    @classmethod
    def _pattern_is_a_regular_expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise problem(f"{value!r} is no regular expression: {error}", fix="write for example clicks\\..*") from error
        return value

    @model_validator(mode="after")
    def _is_one_stream(self) -> Self:
        topics = [name for name in ("topic", "topics", "pattern") if getattr(self, name)]
        history = self.history != "none"
        if len(topics) > 1:
            reason = f"stands beside `{topics[0]}`, and says something else about the same"
            raise problem(reason, fix="keep one of them", path=f"source.{topics[1]}")
        if self.files and (topics or history):
            other = topics[0] if topics else "history"
            raise problem(
                f"stands beside `source.{other}`",
                fix="write `history: {files: …}` for what comes before a topic",
                path="source.files",
            )
        if not topics and self.backfill is None:
            fix = "add `topic: …`, or `topics`, or `pattern`, or files in their place with `files: …`"
            raise problem("is missing", fix=fix, path="source.topic")
        if not self.bootstrap and (topics or self.dead_letters):
            raise problem("is missing", fix="add `bootstrap: …`, Kafka's first addresses, host:port", path="source.bootstrap")
        if topics and history and self.start == "latest":
            raise problem(
                "latest would leave out what was written since the files were",
                fix="write the time, or the offsets, at which they end",
                path="source.start",
            )
        if not topics and not (self.start in ("earliest", "latest") and self.end in ("never", "latest")):
            field = "start" if self.start not in ("earliest", "latest") else "end"
            raise problem("is for topics: files are trained whole", fix="name the files that are meant", path=f"source.{field}")
        return self

    @property
    def backfill(self) -> FilesSpec | None:
        """The files to train on; None for a topic alone."""
        if self.history != "none":
            return self.history
        return FilesSpec(files=self.files) if self.files else None

    @property
    def named_topics(self) -> tuple[str, ...]:
        """The topics, where they are named."""
        return self.topics or ((self.topic,) if self.topic else ())

    @property
    def has_topics(self) -> bool:
        """Whether a topic is read, beside or in place of files."""
        return bool(self.named_topics or self.pattern)

    @property
    def grows(self) -> bool:
        """Whether partitions and topics that come later are read too: what ends, or was chosen by number, was settled at the beginning."""
        return self.has_topics and self.end == "never" and not self.partitions

    @property
    def dead_letters(self) -> DeadLetters | None:
        """Where bad records go; None where they stop the job."""
        return self.on_bad_record if isinstance(self.on_bad_record, DeadLetters) else None

    @property
    def reject_budget(self) -> float | None:
        """Share of the window's rows that may be bad; None for not one."""
        return self.dead_letters.budget if self.dead_letters is not None else None

    @property
    def reject_window(self) -> int:
        """Rows that the budget is a share of."""
        return (self.dead_letters or DeadLetters(send_to="none")).window


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
    shuffle_rows: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Rows within which the order is drawn anew, by `train.seed`, before steps are cut: a multiple of `rows`. They are "
        "waited for as those of a step, for `max_wait` at most. 0: rows are trained as they come.",
    )

    @property
    def span_rows(self) -> int:
        """Rows that are cut at once."""
        return self.shuffle_rows or self.rows


class WorkersSpec(Section):
    """The processes that train."""

    min: int = Field(1, ge=1, le=1024, description="Workers without which the job does not start.")
    max: int = Field(1, ge=1, le=1024, description="Workers that the job uses when there is room.")
    cpus: float = Field(1, gt=0, le=1024, description="CPUs of each worker.")
    gpus: float = Field(0, ge=0, le=16, description="GPUs of each worker; with any, the gradients travel by NCCL.")
    spares: int = Field(0, ge=0, le=64, description="More workers that are started and wait, to take the place of a lost one.")
    hot: bool = Field(
        False, description="Spares follow every step without computing any of it, so that taking over costs no copy."
    )
    lease: DurationS = Field(
        1.0,
        ge=0.1,
        le=60,
        json_schema_extra={"minimum": 0.1, "maximum": 60},
        description="A worker that gives no sign of life for so long is taken for lost.",
    )


class ScheduleSpec(Section):
    """How the learning rate goes, as a share of the rate that the task's optimizer begins with."""

    name: Literal["constant", "linear", "cosine"] = Field(description="How it falls behind the warm-up.")
    warmup_steps: int = Field(0, ge=0, le=10**9, description="Steps in which it rises from 0, evenly.")
    total_steps: int = Field(
        0, ge=0, le=10**9, description="Step at which linear and cosine have reached `floor`, where they stay."
    )
    floor: float = Field(0.0, ge=0, le=1, description="Share of the full rate that linear and cosine reach.")


class EarlyStopSpec(Section):
    """When more training is not worth it."""

    metric: Literal["loss", "accuracy", "auroc"] = Field("loss", description="The windowed score that has to get better.")
    patience_rows: int = Field(ge=1, le=10**12, description="Rows without a better score after which the job has succeeded.")
    min_delta: float = Field(0.0, ge=0, le=10**9, description="By how much a score has to be better than the best one before.")


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
    micro_batch_rows: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Most rows in one forward; gradients of several add up. 0: all rows of a worker's share.",
    )
    clip_norm: float = Field(
        0.0, ge=0, le=10**9, description="Largest L2 norm of a step's gradient; longer ones are scaled. 0: any."
    )
    weight_decay: Literal["task"] | Annotated[float, Field(ge=0, le=10**9)] = Field(
        "task",
        description="Weight decay in place of the task's, save in parameter groups that the task left out of it (0 beside others).",
    )
    schedule: Literal["task"] | ScheduleSpec = Field("task", description="Of the learning rate, stepped once a step.")
    on_non_finite: Literal["stop", "skip"] = Field(
        "stop",
        description="What to do with a step whose loss or gradient is NaN or infinite: stop, or leave its rows out, by the log.",
    )
    early_stop: Literal["never"] | EarlyStopSpec = Field("never", description="When the job ends before the stream does.")
    check_every: int = Field(
        1000, ge=0, le=10**9, description="Steps between comparisons of the workers' weights, bit by bit. 0: never."
    )


class CheckpointSpec(Section):
    """Where the truth is kept."""

    to: str = Field(
        min_length=1,
        description="Where checkpoints go: a path, file:///path, s3://bucket/prefix or gs://bucket/prefix; each job has its own place inside.",
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
    def _to_is_a_place(cls, value: str) -> str:
        scheme, found, rest = value.partition("://")
        if found and not value.startswith("file:///") and scheme not in BUCKET_SCHEMES:
            raise problem(
                f"{scheme}:// is not supported",
                fix="write a path or file:///path that all workers can reach, s3://bucket/prefix or gs://bucket/prefix",
            )
        if scheme in BUCKET_SCHEMES and not re.fullmatch(BUCKET_PATTERN, rest):
            raise problem(
                f"what follows {scheme}:// is not a bucket and a prefix",
                fix="write letters, digits and '.', '_', '-', '/' alone; credentials come from the workers' environment",
            )
        return value

    def place_of(self, job_id: str) -> str:
        """Where this job's checkpoints are: a folder's path, or a URL below a bucket."""
        if self.to.partition("://")[0] in BUCKET_SCHEMES:
            return f"{self.to.rstrip('/')}/{job_id}"
        home = url2pathname(self.to.removeprefix("file://")) if self.to.startswith("file://") else self.to
        return str(Path(home) / job_id)


class EvaluateSpec(Section):
    """The score of each row before it is trained on, and of rows that never are."""

    window: int = Field(10_000, ge=1, le=100_000_000, description="Rows over which windowed scores are taken.")
    metrics: tuple[Literal["accuracy", "auroc"], ...] = Field((), description="Besides the loss.")
    held_out: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of rows, drawn by seed and coordinate, that are never trained and scored as the model stands at their step.",
    )


class JobSpec(Section):
    """A whole job."""

    name: str = Field(pattern=NAME_PATTERN, description="a-z, 0-9 and '-', at most 56; the job's id begins with it.")
    task: str = Field(pattern=TASK_PATTERN, description="module:Class in `code`, or of an installed package.")
    code: str = Field(
        "",
        description="Folder of the task's module, from the job file's folder. It is sent when the job is submitted; see docs/code.md.",
    )
    requirements: tuple[str, ...] | str = Field(
        (),
        description='Packages that the code needs and the workers may lack, as [einops==0.8.1, "tokenizers>=0.21"]; or the name of a file '
        "in `code` that lists them, as requirements.txt. Their versions are settled once, when the job begins; see docs/code.md.",
    )
    params: dict[str, JsonValue] = Field(
        default_factory=dict, description="Whatever the task wants to know; handed to its methods."
    )
    source: SourceSpec = Field(description="The stream to train on.")
    transform: TransformSpec = Field(
        default_factory=TransformSpec, description="What becomes of decoded rows before they are trained."
    )
    batch: BatchSpec = Field(default_factory=BatchSpec, description="How the stream is cut into steps.")
    workers: WorkersSpec = Field(default_factory=WorkersSpec, description="The processes that train.")
    train: TrainSpec = Field(default_factory=TrainSpec, description="The arithmetic.")
    checkpoint: CheckpointSpec = Field(description="Where the truth is kept.")
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec, description="Scores.")
    queue: Literal["default"] = Field("default", description="The queue that the job waits in.")

    @field_validator("requirements")
    @classmethod
    def _requirements_are_packages(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        return checked_requirements(value)

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
        rows, shuffle_rows = self.batch.rows, self.batch.shuffle_rows
        if shuffle_rows % rows:
            reason = f"{shuffle_rows} is no multiple of `batch.rows` ({rows})"
            nearest = max(1, shuffle_rows // rows) * rows
            raise problem(reason, fix=f"write {nearest}, or 0 for no shuffle", path="batch.shuffle_rows")
        schedule, stop = self.train.schedule, self.train.early_stop
        if isinstance(schedule, ScheduleSpec) and schedule.name != "constant" and schedule.total_steps <= schedule.warmup_steps:
            reason = f"{schedule.total_steps} leaves {schedule.name} no step behind a warm-up of {schedule.warmup_steps}"
            raise problem(reason, fix="write the step at which it ends", path="train.schedule.total_steps")
        if isinstance(stop, EarlyStopSpec) and stop.metric not in ("loss", *self.evaluate.metrics):
            reason = f"{stop.metric!r} is not scored"
            raise problem(reason, fix=f"add {stop.metric} to `evaluate.metrics`, or write loss", path="train.early_stop.metric")
        if self.source.align and self.batch.order == "strict":
            raise problem(
                "partitions go in a fixed order already",
                fix="leave it out, or write `batch.order: arrival`",
                path="source.align",
            )
        if self.source.on_lag != "wait" and self.source.end != "never":
            raise problem("the job has an `end`, which it trains up to", fix="leave one of them out", path="source.on_lag")
        if bad is not None and bad.send_to in self.source.named_topics:
            reason = f"{bad.send_to!r} is a topic that the job trains on"
            raise problem(reason, fix="name another one", path="source.on_bad_record.send_to")
        return self

    @property
    def requirements_file(self) -> str:
        """The file in `code` that lists the requirements; empty where none does."""
        return self.requirements if isinstance(self.requirements, str) else ""

    @property
    def shuffle_seed(self) -> int | None:
        """Seed of the order of rows; None where they are trained as they come."""
        return self.train.seed if self.batch.shuffle_rows else None

    def to_json(self) -> str:
        """The spec with every default filled in, as canonical JSON."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """The spec that `to_json` wrote, nothing converted.

        Raises:
            SpecError: it is something else, or was written by a dtrain that took what this one does not.
        """
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            context = first.get("ctx", {}) if first["type"] == "problem" else {}
            path = str(context.get("path", "")) or ".".join(map(str, first["loc"]))
            raise SpecError(str(context.get("reason", first["msg"])), fix=str(context.get("fix", "")), path=path) from error


def json_schema() -> dict[str, Any]:
    """The job file's JSON schema, for editors."""
    schema = JobSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "dtrain job"}
