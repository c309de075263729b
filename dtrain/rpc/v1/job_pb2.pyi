from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_STARTING: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_RECOVERING: _ClassVar[JobState]
    JOB_STATE_BLOCKED: _ClassVar[JobState]
    JOB_STATE_SUSPENDING: _ClassVar[JobState]
    JOB_STATE_SUSPENDED: _ClassVar[JobState]
    JOB_STATE_CANCELLING: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_STARTING: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_RECOVERING: JobState
JOB_STATE_BLOCKED: JobState
JOB_STATE_SUSPENDING: JobState
JOB_STATE_SUSPENDED: JobState
JOB_STATE_CANCELLING: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState

class Member(_message.Message):
    __slots__ = ("role", "index", "rank", "pid", "node", "state")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    role: str
    index: int
    rank: int
    pid: int
    node: str
    state: str
    def __init__(self, role: _Optional[str] = ..., index: _Optional[int] = ..., rank: _Optional[int] = ..., pid: _Optional[int] = ..., node: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class PartitionStatus(_message.Message):
    __slots__ = ("partition", "offset", "row", "end_offset")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    partition: str
    offset: int
    row: int
    end_offset: int
    def __init__(self, partition: _Optional[str] = ..., offset: _Optional[int] = ..., row: _Optional[int] = ..., end_offset: _Optional[int] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("attempt", "generation", "world_size", "plan_number", "step", "rows_trained", "rows_rejected", "rejects", "rows_skipped", "rows_filtered", "rows_duplicate", "rows_held_out", "offsets_skipped", "waits_for", "rows_per_s", "loss", "scores", "total_loss", "total_scores", "held_out_loss", "held_out_scores", "partitions", "lag_rows", "lag_s", "freshness_s", "num_recoveries", "last_recovery_s", "last_checkpoint", "last_checkpoint_at_s", "members", "metrics_port", "updated_at_s")
    class RejectsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class TotalScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class HeldOutScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    PLAN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROWS_TRAINED_FIELD_NUMBER: _ClassVar[int]
    ROWS_REJECTED_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FILTERED_FIELD_NUMBER: _ClassVar[int]
    ROWS_DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    ROWS_HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_S_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_LOSS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SCORES_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_LOSS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_SCORES_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    LAG_ROWS_FIELD_NUMBER: _ClassVar[int]
    LAG_S_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_S_FIELD_NUMBER: _ClassVar[int]
    NUM_RECOVERIES_FIELD_NUMBER: _ClassVar[int]
    LAST_RECOVERY_S_FIELD_NUMBER: _ClassVar[int]
    LAST_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    LAST_CHECKPOINT_AT_S_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    METRICS_PORT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_S_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    generation: int
    world_size: int
    plan_number: int
    step: int
    rows_trained: int
    rows_rejected: int
    rejects: _containers.ScalarMap[str, int]
    rows_skipped: int
    rows_filtered: int
    rows_duplicate: int
    rows_held_out: int
    offsets_skipped: int
    waits_for: _containers.RepeatedScalarFieldContainer[str]
    rows_per_s: float
    loss: float
    scores: _containers.ScalarMap[str, float]
    total_loss: float
    total_scores: _containers.ScalarMap[str, float]
    held_out_loss: float
    held_out_scores: _containers.ScalarMap[str, float]
    partitions: _containers.RepeatedCompositeFieldContainer[PartitionStatus]
    lag_rows: int
    lag_s: float
    freshness_s: float
    num_recoveries: int
    last_recovery_s: float
    last_checkpoint: str
    last_checkpoint_at_s: float
    members: _containers.RepeatedCompositeFieldContainer[Member]
    metrics_port: int
    updated_at_s: float
    def __init__(self, attempt: _Optional[int] = ..., generation: _Optional[int] = ..., world_size: _Optional[int] = ..., plan_number: _Optional[int] = ..., step: _Optional[int] = ..., rows_trained: _Optional[int] = ..., rows_rejected: _Optional[int] = ..., rejects: _Optional[_Mapping[str, int]] = ..., rows_skipped: _Optional[int] = ..., rows_filtered: _Optional[int] = ..., rows_duplicate: _Optional[int] = ..., rows_held_out: _Optional[int] = ..., offsets_skipped: _Optional[int] = ..., waits_for: _Optional[_Iterable[str]] = ..., rows_per_s: _Optional[float] = ..., loss: _Optional[float] = ..., scores: _Optional[_Mapping[str, float]] = ..., total_loss: _Optional[float] = ..., total_scores: _Optional[_Mapping[str, float]] = ..., held_out_loss: _Optional[float] = ..., held_out_scores: _Optional[_Mapping[str, float]] = ..., partitions: _Optional[_Iterable[_Union[PartitionStatus, _Mapping]]] = ..., lag_rows: _Optional[int] = ..., lag_s: _Optional[float] = ..., freshness_s: _Optional[float] = ..., num_recoveries: _Optional[int] = ..., last_recovery_s: _Optional[float] = ..., last_checkpoint: _Optional[str] = ..., last_checkpoint_at_s: _Optional[float] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., metrics_port: _Optional[int] = ..., updated_at_s: _Optional[float] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "name", "state", "reason", "message", "spec_json", "created_at_s", "updated_at_s", "incarnation", "status", "code_archive", "code_sha256")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_S_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_S_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_ARCHIVE_FIELD_NUMBER: _ClassVar[int]
    CODE_SHA256_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    name: str
    state: JobState
    reason: str
    message: str
    spec_json: str
    created_at_s: float
    updated_at_s: float
    incarnation: int
    status: JobStatus
    code_archive: str
    code_sha256: str
    def __init__(self, job_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., spec_json: _Optional[str] = ..., created_at_s: _Optional[float] = ..., updated_at_s: _Optional[float] = ..., incarnation: _Optional[int] = ..., status: _Optional[_Union[JobStatus, _Mapping]] = ..., code_archive: _Optional[str] = ..., code_sha256: _Optional[str] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("number", "at_s", "kind", "message")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    AT_S_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    number: int
    at_s: float
    kind: str
    message: str
    def __init__(self, number: _Optional[int] = ..., at_s: _Optional[float] = ..., kind: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("timestamp", "source", "level", "message", "fields")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    timestamp: str
    source: str
    level: str
    message: str
    fields: _containers.ScalarMap[str, str]
    def __init__(self, timestamp: _Optional[str] = ..., source: _Optional[str] = ..., level: _Optional[str] = ..., message: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...
