"""Crews of make-believe trainers in this process: they answer as `runtime.trainer` does, and train nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dtrain.clock import SystemClock
from dtrain.errors import DtrainError
from dtrain.policy.election import Standing
from dtrain.policy.lease import Place
from dtrain.runtime.crew import Crew, TrainerHandle
from dtrain.runtime.messages import Answer, Assignment, Introduction
from dtrain.spec.job import JobSpec
from dtrain.steplog.progress import Progress

Key = tuple[int, int]


class Calls:
    """Lets an object of this process be called as an actor: `calls.method.remote(...)` gives what can be awaited."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        def remote(*args: Any) -> asyncio.Future[Any]:
            call = asyncio.get_running_loop().create_future()
            try:
                answer = method(*args)
            except DtrainError as error:
                call.set_exception(error)
                return call
            return answer if isinstance(answer, asyncio.Future) else _with_result(call, answer)

        return SimpleNamespace(remote=remote)


def _with_result(call: asyncio.Future[Any], answer: object) -> asyncio.Future[Any]:
    call.set_result(answer)
    return call


class LocalTrainer:
    """Stands where it is put."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.progress = Progress()
        self.confirmed = 0
        self.has_left = self.has_ended = False
        self.introduction = Introduction(number, "here", {}, "seats", ("here", number))

    def introduce(self, *_: object) -> Introduction:
        return self.introduction

    def hear(self) -> None:
        pass

    def live(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def leave(self) -> None:
        self.has_left = True

    def query(self, key: Key, parent_number: int) -> Answer:
        progress = self.progress
        return Answer(Standing(self.confirmed, progress.plan_number, progress.log_hash, True, ""), progress)

    def form(self, assignment: Assignment) -> None:
        self.confirmed = assignment.attempt
        self.stand_at(assignment.plan_number)

    def stand_at(self, plan_number: int) -> None:
        self.progress = replace(self.progress, plan_number=plan_number, log_hash=f"of plan {plan_number}")


class _Pulses:
    """Hears nobody, and misses nobody."""

    def __init__(self) -> None:
        self.places: dict[int, Place] = {}
        self.row_s: Mapping[int, float] = {}

    def terms(self, member: int) -> int:
        return member

    def forget(self, member: int) -> None:
        pass

    def close(self) -> None:
        pass


class _Seats:
    """Stands for a placement group."""

    def __init__(self, name: str, number: int) -> None:
        self.bundle_specs = [{}] * number  # type: ignore[var-annotated]
        self.id = SimpleNamespace(hex=lambda: name)


class LocalCrew(Crew):
    """A crew whose trainers are of `kind`.

    Attributes:
        trainers: all that were made.
        lost: of whose loss somebody was told.
        failures: why none could be started.
    """

    def __init__(
        self, spec: JobSpec, *, seats: int | tuple[int, ...], target: int, kind: type[LocalTrainer] = LocalTrainer
    ) -> None:
        self._kind = kind
        self.trainers: list[LocalTrainer] = []
        self.lost: list[TrainerHandle] = []
        self.failures: list[DtrainError] = []
        super().__init__(
            spec,
            job_id="job",
            incarnation=1,
            place="",
            logs=Path(),
            groups=[_Seats(f"group {i}", n) for i, n in enumerate((seats,) if isinstance(seats, int) else seats)],  # type: ignore[misc]
            target=target,
            coordinator=None,
            clock=SystemClock(),
            on_lost=lambda member, *_: self.lost.append(member),
            on_leaving=lambda _: None,
            on_ready=lambda: None,
            on_failed=self.failures.append,
        )
        self.pulses = _Pulses()  # type: ignore[assignment]

    def _new_actor(self, *_: object) -> Callable[[], Calls]:
        self.trainers.append(self._kind(len(self.trainers) + 1))
        return partial(Calls, self.trainers[-1])

    def _end(self, actor: Calls) -> None:
        actor.inner.has_ended = True

    async def settle(self) -> None:
        """All that is being started is ready, or is not."""
        while self._starting:
            await asyncio.sleep(0)

    def handle(self, number: int) -> TrainerHandle:
        """Of the trainer with this number."""
        return next(member for member in self.ready if member.introduction.pid == number)
