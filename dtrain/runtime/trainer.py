"""The trainer: the actor that holds a replica.

It imports torch inside its methods, so that the coordinator can name the class and stay without.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from dtrain import logs
from dtrain.checkpoint.manifest import Snapshot
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import DtrainError, InternalError, UnavailableError
from dtrain.runtime.messages import Assignment, Introduction
from dtrain.spec.job import JobSpec
from dtrain.steplog.positions import Positions

if TYPE_CHECKING:
    from dtrain.rank import Rank
    from dtrain.runtime.generation import Generation
    from dtrain.train.collective import Collective
    from dtrain.train.group import Rendezvous

ORPHANED_S = 60.0
"""After so long without a word from a coordinator a trainer ends itself."""


class Trainer:
    """One process that trains. Ray runs its calls in threads; a generation trains in a thread of its own.

    Args:
        spec_json: the job's spec.
        folder: of the job's checkpoints.
        log_file: where to log, and where the task's own prints go.
    """

    def __init__(self, spec_json: str, folder: str, log_file: str) -> None:
        logs.configure(file=Path(log_file))
        self._log = logs.logger(role="trainer", pid=os.getpid())
        sys.stdout = logs.LineLog(self._log, "stdout")
        self._spec = JobSpec.from_json(spec_json)
        self._store = CheckpointStore(Path(folder))
        self._rank: Rank | None = None
        self._rendezvous: Rendezvous | None = None
        self._generation: Generation | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._lock = threading.Lock()
        self._replica_lock = threading.Lock()
        self._ticket = 0
        self._watched = threading.Event()
        self._heard_s = time.monotonic()
        threading.Thread(target=self._end_when_orphaned, name="orphan-watch", daemon=True).start()

    def introduce(self) -> Introduction:
        """Build the task's model, unless that was done, and say who this is. Raises `TaskError`."""
        from dtrain.rank import Rank

        self.hear()
        self._rank = self._rank or Rank(self._spec, self._store)
        return Introduction(os.getpid(), _address(), self._rank.schema)

    def hear(self) -> None:
        """A coordinator is there: the trainer does not end itself for a while."""
        self._heard_s = time.monotonic()

    def live(self) -> None:
        """Do not return while this process lives: whoever waits for it hears of the end. A later caller takes the place over."""
        self._watched.set()
        mine = self._watched = threading.Event()
        mine.wait()

    def genesis(self, positions: Positions) -> Snapshot:
        """Write the fresh replica's state, for checkpoint 0."""
        return self._built().genesis(positions)

    def host(self) -> tuple[str, int]:
        """Where the next group's store listens, in this process."""
        from dtrain.train.group import Rendezvous

        self._rendezvous = self._rendezvous or Rendezvous(_address())
        return self._rendezvous.address, self._rendezvous.port

    def end(self) -> DtrainError | None:
        """The generation is over for this member: it applies nothing more under it, even if a collective still completes.

        Nor does one begin that is being formed: its `form` fails.

        Returns:
            What ended it here before, if anything did.
        """
        return self._retire()[1]

    def form(self, assignment: Assignment, coordinator: Any) -> None:
        """Be part of a generation: form its group, adopt its state, train. Returns once that has begun.

        Raises:
            UnavailableError: a member did not come, or the generation was ended while it formed.
            CorruptError: the checkpoint's blob is not what was written.
            DriftError: it is that of another model.
        """
        from dtrain.runtime.generation import Generation
        from dtrain.train.group import GroupTerms, TorchCollective

        ticket, _ = self._retire()
        group = TorchCollective(
            GroupTerms(
                prefix=assignment.prefix,
                host=assignment.host,
                port=assignment.port,
                rank=assignment.rank,
                world_size=assignment.world_size,
                backend=assignment.backend,
            )
        )
        with self._replica_lock:  # one thread at a time touches the replica
            self._check(ticket, group)
            rank = self._built()
            rank.load(blob=assignment.blob, progress=assignment.progress)
            rank.join(group)
            with self._lock:
                self._check(ticket, group)
                self._generation = Generation(rank, group, assignment, coordinator, self._writer)
        self._log.info("forms", generation=assignment.prefix, rank=assignment.rank, world_size=assignment.world_size)

    def _retire(self) -> tuple[int, DtrainError | None]:
        """The generation has ended, and none that is being formed will begin; a ticket for a newer one, and what was raised."""
        self.hear()
        with self._lock:
            self._ticket += 1
            ticket, generation = self._ticket, self._generation
        error = generation.end() if generation is not None else None
        with self._lock:
            if self._generation is generation:
                self._generation = None  # forgotten only now: whoever asks meanwhile must wait for its end too
        return ticket, error

    def _check(self, ticket: int, group: Collective) -> None:
        if ticket != self._ticket:
            group.abandon()
            raise UnavailableError("the generation was ended while it formed")

    def _built(self) -> Rank:
        if self._rank is None:
            raise InternalError("a trainer was used before it was introduced")
        return self._rank

    def _end_when_orphaned(self) -> None:
        while time.monotonic() - self._heard_s < ORPHANED_S:
            time.sleep(1.0)
        self._log.warning("no coordinator has spoken; the trainer ends", after_s=ORPHANED_S)
        os._exit(0)


def _address() -> str:
    """The address of this node, as the members of a group reach it."""
    address: str = ray.util.get_node_ip_address()
    return address
