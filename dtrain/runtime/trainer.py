"""The trainer: the actor that holds a replica.

It imports torch inside its methods, so that the coordinator can name the class and stay without.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from dtrain import logs
from dtrain.checkpoint.manifest import Snapshot
from dtrain.checkpoint.places import open_store
from dtrain.errors import FencedError, InternalError, UnavailableError
from dtrain.policy.election import Standing
from dtrain.policy.lease import Phase
from dtrain.runtime.delivery import NOTHING, Delivery, program_here, use_packages, with_code_here
from dtrain.runtime.messages import Answer, Assignment, Introduction
from dtrain.runtime.pulse import Beat, Pulse, PulseTerms
from dtrain.spec.job import JobSpec
from dtrain.steplog.positions import Positions

if TYPE_CHECKING:
    from dtrain.rank import Rank
    from dtrain.runtime.generation import Generation
    from dtrain.train.group import Rendezvous, TorchCollective

ORPHANED_S = 60.0
"""After so long without a word from a coordinator a trainer ends itself."""

Key = tuple[int, int]


class Trainer:
    """One process that trains. Ray runs its calls in threads; a generation trains in a thread of its own.

    Args:
        spec_json: the job's spec.
        place: of the job's checkpoints.
        log_file: where to log, and where the task's own prints go.
    """

    def __init__(self, spec_json: str, place: str, log_file: str) -> None:
        logs.configure(file=Path(log_file))
        self._log = logs.logger(role="trainer", pid=os.getpid())
        sys.stdout = logs.LineLog(self._log, "stdout")
        self._spec = JobSpec.from_json(spec_json)
        self._store = open_store(place)
        self._rank: Rank | None = None
        self._code_sha256 = ""
        self._coordinator: Any = None
        self._rendezvous: Rendezvous | None = None
        self._generation: Generation | None = None
        self._forming: TorchCollective | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._lock = threading.Lock()  # for the next three
        self._key: Key = (0, 0)  # the highest that this trainer has been asked about
        self._confirmed = 0  # attempt in which its state was confirmed
        self._replica_lock = threading.Lock()  # one thread at a time touches the replica outside a generation
        self._pulse: Pulse | None = None
        self._is_leaving = False
        self._watched = threading.Event()
        self._heard_s = time.monotonic()
        signal.signal(signal.SIGTERM, self._announce_leave)
        threading.Thread(target=self._end_when_orphaned, name="orphan-watch", daemon=True).start()

    def introduce(self, terms: PulseTerms, coordinator: Any, delivery: Delivery = NOTHING) -> Introduction:
        """Build the task's model, unless that was done, give signs of life from now on, and say who this is. Raises `TaskError`.

        Args:
            terms: of the signs of life.
            coordinator: whose generations this is to be part of. Given now: a first handle of an actor takes Ray a third of a second.
            delivery: of the job's code and the lock of its packages; none of the code where that is a folder which all hosts can read.

        Blocking: while the packages are installed, if this host has not got them. Nobody's lease runs before this has returned.
        """
        _import_torch()
        from dtrain.rank import Rank
        from dtrain.train.group import Rendezvous

        self.hear()
        self._coordinator = coordinator
        if self._rank is None:
            spec = with_code_here(self._spec, delivery)
            self._code_sha256 = program_here(spec, delivery)  # before any of it is imported
            use_packages(delivery, log=self._log)
            self._rank = Rank(spec, self._store)
        if self._rendezvous is None:
            self._rendezvous = Rendezvous(_address())
            _warm_up(self._rendezvous)
        if self._pulse is not None:
            self._pulse.stop()
        self._pulse = Pulse(terms, self._beat)
        group = ray.util.get_current_placement_group()
        return Introduction(
            pid=os.getpid(),
            node=_address(),
            schema=self._rank.schema,
            placement_group=group.id.hex() if group is not None else "",
            store=(self._rendezvous.address, self._rendezvous.port),
            code_sha256=self._code_sha256,
        )

    def hear(self) -> None:
        """A coordinator is there: the trainer does not end itself for a while."""
        self._heard_s = time.monotonic()

    def live(self) -> None:
        """Do not return while this process lives: whoever waits for it hears of the end. A later caller takes the place over."""
        self._watched.set()
        mine = self._watched = threading.Event()
        mine.wait()

    def leave(self) -> None:
        """This process ends; it was not a member any more."""
        self._log.info("leaves")
        os._exit(0)

    def genesis(self, positions: Positions) -> Snapshot:
        """Write the fresh replica's state, for checkpoint 0."""
        return self._built().genesis(positions)

    def query(self, key: Key, parent_number: int) -> Answer:
        """Where this member stands. Its generation is over: it applies nothing more, even if a collective still completes.

        Nor does one begin that is being formed: its `form` fails.

        Args:
            key: of the generation that will be formed.
            parent_number: plan number at which the coordinator wants to know the running hash.

        Raises:
            FencedError: a coordinator with a higher attempt has asked before.
        """
        self.hear()
        with self._lock:
            if key <= self._key:
                raise FencedError(f"generation {self._key} was asked for before {key}")
            self._key, generation, forming = key, self._generation, self._forming
        if forming is not None:
            forming.abandon()
        error = generation.end() if generation is not None else None
        with self._replica_lock, self._lock:
            if self._generation is generation:
                self._generation = None
            replica = self._built().replica
            standing = Standing(
                attempt=self._confirmed,
                plan_number=replica.progress.plan_number,
                log_hash=replica.progress.log_hash,
                is_clean=not replica.is_dirty,
                parent_hash=replica.tail.hash_at(parent_number),
            )
            return Answer(standing, replica.progress, None if isinstance(error, UnavailableError) else error)

    def form(self, assignment: Assignment) -> None:
        """Be part of a generation: form its group, have its state, train. Returns once that has begun.

        Raises:
            UnavailableError: a member did not come, or the generation was ended while it formed.
            CorruptError: the checkpoint's blob is not what was written.
            DriftError: the state is that of another model.
        """
        from dtrain.runtime.generation import Generation
        from dtrain.runtime.pulling import PlanPuller

        self.hear()
        with self._lock:
            self._check(assignment.key)
            if assignment.source >= 0 and assignment.rank not in assignment.behind:
                self._confirmed = assignment.attempt
        rank = self._built()
        stager = rank.new_stager(assignment.rank, shares=assignment.shares)
        puller = PlanPuller(  # plans and blocks come while the group forms
            stager, self._coordinator, key=assignment.key, rank=assignment.rank, after=assignment.plan_number
        )
        try:
            self._take_state(assignment, rank)
            group = _group_of(assignment)
            with self._replica_lock, self._lock:
                self._check(assignment.key, group)
                rank.begin(group)
                self._generation = Generation(rank, group, assignment, puller, self._coordinator, self._writer)
        except BaseException:
            puller.close()
            raise
        self._log.info("forms", generation=assignment.prefix, rank=assignment.rank, shares=assignment.shares)

    def _take_state(self, assignment: Assignment, rank: Rank) -> None:
        """The replica stands where the generation begins: it does already, or it loads the checkpoint, or receives the source's."""
        if assignment.checkpoint is not None:
            blob, progress = assignment.checkpoint
            with self._replica_lock:
                self._check(assignment.key)
                rank.load(blob=blob, progress=progress)
        elif assignment.rank in (assignment.source, *assignment.behind) and assignment.behind:
            channel = _channel_of(assignment)
            with self._replica_lock:
                with self._lock:
                    self._check(assignment.key, channel)
                    self._forming = channel
                rank.exchange(channel, is_source=assignment.rank == assignment.source)
        with self._lock:
            self._check(assignment.key)
            self._confirmed, self._forming = assignment.attempt, None

    def _check(self, key: Key, group: TorchCollective | None = None) -> None:
        if key != self._key:
            if group is not None:
                group.abandon()
            raise UnavailableError("the generation was ended while it formed")

    def _built(self) -> Rank:
        if self._rank is None:
            raise InternalError("a trainer was used before it was introduced")
        return self._rank

    def _beat(self) -> Beat:
        generation = self._generation
        phase, plan_number, row_s = generation.place() if generation is not None else (Phase.IDLE, 0, 0.0)
        return Beat(phase, plan_number, row_s, self._is_leaving)

    def _announce_leave(self, *_: object) -> None:
        """This process was asked to end: it goes on until the coordinator has let it go, at a step's boundary."""
        self._is_leaving = True

    def _end_when_orphaned(self) -> None:
        while time.monotonic() - self._heard_s < ORPHANED_S:
            time.sleep(1.0)
        self._log.warning("no coordinator has spoken; the trainer ends", after_s=ORPHANED_S)
        os._exit(0)


def _import_torch() -> None:
    """What a trainer needs of torch is there, and is never looked through for garbage: half a second less now, and no pause for it in a step."""
    if "torch" in sys.modules:
        return
    gc.disable()
    try:
        import dtrain.rank
        import dtrain.train.group  # noqa: F401
    finally:
        gc.enable()
    gc.freeze()


def _warm_up(rendezvous: Rendezvous) -> None:
    """What a first generation needs is imported, and has run once: members wait for a newcomer."""
    import dtrain.runtime.generation
    import dtrain.runtime.pulling  # noqa: F401

    _join((rendezvous.address, rendezvous.port), "warm-up", rank=0, world_size=1).warm_up()


def _group_of(assignment: Assignment) -> TorchCollective:
    """Of all members."""
    return _join(
        assignment.store,
        assignment.prefix,
        rank=assignment.rank,
        world_size=len(assignment.shares),
        backend=assignment.backend,
    )


def _channel_of(assignment: Assignment) -> TorchCollective:
    """Of the source and of those who receive its state."""
    ranks = (assignment.source, *assignment.behind)
    prefix = f"{assignment.prefix}-state"
    return _join(assignment.store, prefix, rank=ranks.index(assignment.rank), world_size=len(ranks))


def _join(store: tuple[str, int], prefix: str, *, rank: int, world_size: int, backend: str = "gloo") -> TorchCollective:
    from dtrain.train.group import GroupTerms, TorchCollective

    return TorchCollective(GroupTerms(prefix, *store, rank, world_size, backend, address=_address()))


def _address() -> str:
    """The address of this node, as the members of a group reach it."""
    address: str = ray.util.get_node_ip_address()
    return address
