"""Every error that dtrain raises, as one tree.

    DtrainError                      what went wrong, and what to do about it
    ├── InputError                   the caller's words are wrong               INVALID_ARGUMENT
    │   ├── SpecError                a job file: path, line, reason, fix        INVALID_ARGUMENT
    │   ├── TaskError                user code: not importable, wrong shapes    INVALID_ARGUMENT
    │   └── RequirementsError        packages: not to be had beside the base    INVALID_ARGUMENT
    ├── NotFoundError                no such job, checkpoint, topic             NOT_FOUND
    ├── ConflictError                the name is taken by something else        ALREADY_EXISTS
    ├── StateError                   not possible in this state                 FAILED_PRECONDITION
    │   ├── DataLossError            retention, truncation, another topic       FAILED_PRECONDITION
    │   ├── BadRecordError           more bad records than the job allows       FAILED_PRECONDITION
    │   ├── NonFiniteError           the loss or a gradient is NaN or infinite  FAILED_PRECONDITION
    │   ├── DivergenceError          replicas of one job are not the same       FAILED_PRECONDITION
    │   ├── DriftError               code or numerics changed since             FAILED_PRECONDITION
    │   ├── PoisonError              a step kills whoever computes it           FAILED_PRECONDITION
    │   └── FencedError              a later attempt owns this job              FAILED_PRECONDITION
    ├── AuthError                    no token, or the wrong one                 UNAUTHENTICATED
    ├── UnavailableError             try again: broker, store, control plane    UNAVAILABLE        retriable
    │   ├── CollectiveError          a rank was lost                            UNAVAILABLE        retriable
    │   └── MemberLostError          a generation ended: a new attempt follows  UNAVAILABLE        retriable
    ├── StorageError                 disk full, read-only, no permission        RESOURCE_EXHAUSTED retriable
    ├── CorruptError                 a digest does not verify                   DATA_LOSS
    └── InternalError                a bug of ours                              INTERNAL

A foreign error is mapped once, in the file that owns the import, with `raise ... from`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar


class DtrainError(Exception):
    """What went wrong in one sentence, and what the user can do about it.

    Args:
        reason: one sentence that names the thing that is wrong.
        fix: one sentence that says what to do; empty when there is nothing to do.
    """

    code: ClassVar[str] = "INTERNAL"
    retriable: ClassVar[bool] = False

    def __init__(self, reason: str, *, fix: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.reason}; {self.fix}" if self.fix else self.reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), dict(self.__dict__)))


def _rebuild(kind: type[DtrainError], fields: dict[str, Any]) -> DtrainError:
    """An error as it was before pickling: Ray carries errors between processes."""
    error = kind.__new__(kind)
    Exception.__init__(error, fields.get("reason", ""))
    error.__dict__.update(fields)
    return error


class InputError(DtrainError):
    """The caller's words are wrong; the same call will fail again."""

    code = "INVALID_ARGUMENT"


class SpecError(InputError):
    """A job file has a problem at one place.

    Args:
        reason: what is wrong there.
        fix: what to write instead.
        path: the field, dotted, as `workers.max`.
        line: its line in the file, from 1; 0 when the spec did not come from a file.
        file: the file's name; empty when the spec did not come from a file.
        others: what else is wrong in the same file, in order of lines.
    """

    def __init__(
        self, reason: str, *, fix: str = "", path: str = "", line: int = 0, file: str = "", others: Iterable[SpecError] = ()
    ) -> None:
        super().__init__(reason, fix=fix)
        self.path = path
        self.line = line
        self.file = file
        self.others = tuple(others)

    def __str__(self) -> str:
        line = f"line {self.line}" if self.line else ""
        place = ":".join(str(part) for part in (self.file, self.line) if part) if self.file else line
        where = ", ".join(part for part in (place, f"`{self.path}`" if self.path else "") if part)
        return f"{where}: {super().__str__()}" if where else super().__str__()


class TaskError(InputError):
    """The user's task cannot be imported or does not keep its contract."""


class RequirementsError(InputError):
    """The packages that the user's code requires cannot be had, or not beside those that the workers have."""


class NotFoundError(DtrainError):
    """There is no such job, checkpoint, topic or file."""

    code = "NOT_FOUND"


class ConflictError(DtrainError):
    """The name or request id is taken by something else."""

    code = "ALREADY_EXISTS"


class StateError(DtrainError):
    """The thing exists, but not in a state in which this is possible."""

    code = "FAILED_PRECONDITION"


class DataLossError(StateError):
    """Records that the job still has to train are gone from the topic, or are others than before."""


class BadRecordError(StateError):
    """More records could not be decoded than `source.on_bad_record` allows."""


class NonFiniteError(StateError):
    """The loss or a gradient of a step is NaN or infinite; the step was not applied."""


class DivergenceError(StateError):
    """Ranks that applied the same steps have different weights."""


class DriftError(StateError):
    """Code, schema or numerics differ from those of the checkpoint."""


class PoisonError(StateError):
    """A step has killed every process that tried to compute it; it was not applied.

    Args:
        reason: one sentence that names its rows.
        fix: how to go on.
        ranges: its row ranges.
    """

    def __init__(self, reason: str, *, fix: str = "", ranges: Sequence[Any] = ()) -> None:
        super().__init__(reason, fix=fix)
        self.ranges = tuple(ranges)


class FencedError(StateError):
    """A later attempt owns this job: whoever sees this must stop writing and exit."""


class AuthError(DtrainError):
    """No token, or not the right one."""

    code = "UNAUTHENTICATED"


class UnavailableError(DtrainError):
    """Something outside does not answer now; the same call may work later."""

    code = "UNAVAILABLE"
    retriable = True


class CollectiveError(UnavailableError):
    """A rank was lost in a collective: its buffers are undefined and the step must not be applied."""


class MemberLostError(UnavailableError):
    """A member is gone: the generation has ended, and the job goes on from a checkpoint under a new attempt."""


class StorageError(DtrainError):
    """A store could not be written or read: disk full, read-only, no permission."""

    code = "RESOURCE_EXHAUSTED"
    retriable = True


class CorruptError(DtrainError):
    """What was read is not what was written: a digest does not verify."""

    code = "DATA_LOSS"


class InternalError(DtrainError):
    """A bug of dtrain's."""
