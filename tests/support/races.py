"""Coordinators that race for one checkpoint folder, one file operation at a time, in an order that a seed decides.

The real `claim` and `commit` run in threads of which only one moves at a time: each stops before every file operation until
the scheduler lets it go on, so a pause or a kill may fall between any two. The oracle reads the folder with a plain store.
"""

import random
import threading
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from pathlib import Path

from dtrain.checkpoint.attempts import claim
from dtrain.checkpoint.commit import commit
from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import CorruptError, FencedError
from dtrain.steplog.entries import GENESIS, extend_hash
from dtrain.steplog.fences import ManifestRef
from tests.support.checkpoints import BEGIN, extend, make_manifest, merged
from tests.support.faulty_files import HookedFiles

WRITES = {"create", "delete"}


class ViolationError(Exception):
    """An invariant does not hold."""


class _Killed(BaseException):
    pass


class Actor:
    """A program that stops before every file operation."""

    def __init__(self, program: Callable[["Actor"], None]) -> None:
        self.next_operation, self.is_over, self.error = "", False, None
        self._go, self._stopped, self._is_killed = threading.Semaphore(0), threading.Semaphore(0), False
        threading.Thread(target=self._main, args=(program,), daemon=True).start()

    def stop_before(self, operation: str, name: str) -> None:
        self.next_operation = operation
        self._stopped.release()
        self._go.acquire()
        if self._is_killed:
            raise _Killed

    def step(self) -> str:
        """One operation further; which one it was."""
        done = self.next_operation
        self._go.release()
        self._stopped.acquire()
        return done

    def kill(self) -> None:
        self._is_killed = True
        self.step()

    def _main(self, program: Callable[["Actor"], None]) -> None:
        self._go.acquire()
        try:
            program(self)
        except (_Killed, FencedError):
            pass
        except BaseException as error:
            self.error = error
        self.is_over = True
        self._stopped.release()


class Race:
    """One history. `run` raises ViolationError when an invariant breaks."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.rng, self.store = root, rng, open_store(root)
        self.live: list[Actor] = []
        self.incarnation, self.faults = 0, rng.choice((1, 2, 4, 8))
        self.flushed: set[ManifestRef] = set()
        self.effects: list[Manifest] = []
        self.trace: list[str] = []

    def launch(self) -> Actor:
        self.incarnation += 1
        incarnation = self.incarnation
        actor = Actor(lambda me: self._coordinate(me, incarnation))
        self.live.append(actor)
        self.trace.append(f"launch c{incarnation}")
        return actor

    def run(self, *, num_operations: int = 150) -> None:
        try:
            actor = self.launch()
            for _ in range(num_operations):
                actor = self._next(actor)
                if actor.step() in WRITES:
                    self._check()
                self._bury(actor)
            self._finish()
        finally:
            for actor in self.live:
                actor.kill()

    def _next(self, actor: Actor) -> Actor:
        """Who moves: mostly whoever moved last, so that the others are paused for long; now and then a fault comes first."""
        chance = self.rng.random()
        if self.faults and chance < 0.06:
            self.faults -= 1
            if chance < 0.03 and self.live:
                victim = self.rng.choice(self.live)
                victim.kill()
                self._bury(victim)
            else:
                return self.launch()
        if not self.live:
            return self.launch()
        return self.rng.choice(self.live) if chance > 0.8 or actor not in self.live else actor

    def _bury(self, actor: Actor) -> None:
        if actor.is_over:
            self.live.remove(actor)
            if actor.error:
                raise ViolationError(f"a coordinator failed: {actor.error!r}") from actor.error

    def _finish(self) -> None:
        """Whatever has happened, a last incarnation alone takes the job over; then those that were paused wake up."""
        last = self.launch()
        while not last.is_over:
            last.step()
        self._bury(last)
        self._check()
        if not any(m.ref.attempt == max(self.store.attempts()) for m in self.effects):
            raise ViolationError("the last incarnation got nothing done")
        for actor in list(self.live):
            while not actor.is_over:
                if actor.step() in WRITES:
                    self._check()
            self._bury(actor)

    def _coordinate(self, me: Actor, incarnation: int) -> None:
        store = CheckpointStore(HookedFiles(self.root, me.stop_before))
        attempt = claim(store, incarnation=incarnation, on_skip=self._refuse_skip)
        parent = attempt.parent
        for _ in range(4):
            # Rows differ by attempt, so that the histories of two attempts do.
            progress = extend(store, merged(store, parent.progress), rows=attempt.number) if parent else BEGIN
            parent = make_manifest(store, attempt.number, progress)
            self._commit(store, parent)

    def _commit(self, store: CheckpointStore, manifest: Manifest) -> None:
        def after() -> None:
            self.effects.append(manifest)

        commit(store, manifest=manifest, keep=2, before=lambda: self.flushed.add(manifest.ref), after=after)

    def _refuse_skip(self, text: str) -> None:
        raise ViolationError(f"inv 6: {text}")

    def _check(self) -> None:
        line = [self.store.read_manifest(ref) for ref in self.store.history()]
        for manifest in line:
            self._verify(manifest)
            if manifest.ref not in self.flushed:
                raise ViolationError(f"inv 13: {manifest.name} counts and its dead letters were not flushed")
        if self.effects and not line:
            raise ViolationError("inv 6: no checkpoint is left")
        if line and line[0].ref.plan_number != 0:
            raise ViolationError("inv 7: checkpoint 0 is gone")
        for earlier, later in pairwise(line):
            if not self._extends(later, earlier):
                raise ViolationError(f"inv 5: {earlier.name} and {later.name} both count and contradict each other")
        for manifest in self.effects:
            if not self._extends(line[-1], manifest):
                raise ViolationError(f"inv 13: effects of {manifest.name} left, and {line[-1].name} does not hold it")

    def _verify(self, manifest: Manifest) -> None:
        try:
            self.store.verify(manifest)
        except CorruptError as error:
            raise ViolationError(f"inv 6: {manifest.name} counts and is not whole: {error}") from error

    def _extends(self, later: Manifest, earlier: Manifest) -> bool:
        if later.progress.plan_number < earlier.progress.plan_number:
            return False
        entries = [e for e in self.store.entries(later.progress) if e.number <= earlier.progress.plan_number]
        return reduce(extend_hash, entries, GENESIS) == earlier.progress.log_hash
