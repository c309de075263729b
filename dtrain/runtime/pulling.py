"""Pulling: plans and blocks come to a trainer, and are staged, ahead of the step that trains."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from dtrain.errors import UnavailableError
from dtrain.runtime.messages import IssuedPlan, PlanBatch
from dtrain.steplog.entries import StepKind
from dtrain.steplog.progress import Progress

if TYPE_CHECKING:
    from dtrain.train.gradient import SpanBatch
    from dtrain.train.stager import Stager


@dataclass(frozen=True, slots=True)
class StagedPlan:
    """A plan and this rank's rows of it; `sealed` became durable before it."""

    issued: IssuedPlan
    batches: Sequence[SpanBatch]
    sealed: Progress | None


class PlanPuller:
    """Iterates over the plans of a generation, staged one ahead.

    Threads: one of its own pulls and stages; the iterator belongs to the one that trains.

    Args:
        stager: of the generation.
        coordinator: whose plans.
        key: (attempt, generation).
        rank: of this member.
        after: plan number of the replica.
    """

    def __init__(self, stager: Stager, coordinator: Any, *, key: tuple[int, int], rank: int, after: int) -> None:
        self._stager = stager
        self._coordinator = coordinator
        self._key = key
        self._rank = rank
        self._after = after
        self._references: dict[int, Any] = {}  # of parcels that live
        self._parcels: dict[int, Any] = {}  # those that this rank has needed
        self._staged: queue.Queue[StagedPlan | Exception | None] = queue.Queue(maxsize=1)
        self._is_closed = threading.Event()
        threading.Thread(target=self._pull, name="pull", daemon=True).start()

    @property
    def is_starved(self) -> bool:
        """Nothing is staged: the trainer is about to wait."""
        return self._staged.empty()

    def close(self) -> None:
        """The iterator ends soon, whatever is staged."""
        self._is_closed.set()
        with suppress(queue.Full):  # whoever waits for an item gets one, and looks
            self._staged.put_nowait(None)

    def __iter__(self) -> Iterator[StagedPlan]:
        while not self._is_closed.is_set():
            try:
                item = self._staged.get(timeout=0.05)
            except queue.Empty:
                continue
            if isinstance(item, Exception):
                raise item
            if item is None or self._is_closed.is_set():
                return
            yield item

    def _pull(self) -> None:
        try:
            coming = self._ask()
            while not self._is_closed.is_set():
                batch: PlanBatch = ray.get(coming)
                if batch.is_over:
                    self._put(None)
                    return
                self._after = batch.plans[-1].plan.number if batch.plans else self._after
                coming = self._ask()  # comes while these are staged
                self._stage(batch)
        except ActorUnavailableError as error:
            self._put(UnavailableError(f"the coordinator could not be reached: {str(error).splitlines()[0][:200]}"))
        except RayActorError:
            self._put(None)  # the coordinator has died: wait for the next one
        except RayError as error:
            self._put(UnavailableError(f"a block could not be fetched: {str(error).splitlines()[0][:200]}"))
        except Exception as error:  # the top of a thread: the one that trains reports it
            self._put(error)

    def _ask(self) -> Any:
        return self._coordinator.pull.remote(self._key, self._rank, self._after)

    def _stage(self, batch: PlanBatch) -> None:
        sealed = batch.sealed
        self._references.update(batch.parcels)
        for issued in batch.plans:
            plan = issued.plan
            batches: Sequence[SpanBatch] = ()
            if plan.kind is StepKind.DATA and not plan.skipped:
                rows, held_out, part = plan.num_rows, issued.held_out, plan.part
                wanted = self._stager.keys(issued.pieces, num_rows=rows, held_out=held_out, part=part)
                missing = [key for key in wanted if key not in self._parcels]
                self._parcels.update(zip(missing, ray.get([self._references[key] for key in missing]), strict=True))
                batches = self._stager.stage(issued.pieces, self._parcels, num_rows=rows, held_out=held_out, part=part)
            for key in issued.exhausted:
                self._parcels.pop(key, None)
                self._references.pop(key, None)
            self._put(StagedPlan(issued, batches, sealed))
            sealed = None

    def _put(self, item: StagedPlan | Exception | None) -> None:
        while not self._is_closed.is_set():
            try:
                self._staged.put(item, timeout=0.05)
                return
            except queue.Full:
                continue
