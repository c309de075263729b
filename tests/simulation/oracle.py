"""The oracle: knows everything, and raises as soon as an invariant of the architecture does not hold."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from dtrain.checkpoint.manifest import Manifest
from dtrain.errors import CorruptError, NotFoundError
from dtrain.steplog.entries import Entry
from dtrain.steplog.fences import ManifestRef
from dtrain.steplog.progress import Progress
from tests.simulation.process import Generation, ViolationError
from tests.simulation.stream import Coordinate, is_at_end, rejects_in
from tests.simulation.trainer import Trainer, Weights

if TYPE_CHECKING:
    from tests.simulation.world import World


class Oracle:
    """Reads the disk with the real store, and the replicas' weights as no process can."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._contents: dict[bytes, Weights] = {}
        self._names: dict[Weights, bytes] = {}
        self._weights: dict[ManifestRef, Weights] = {}
        self._progress: dict[ManifestRef, Progress] = {}
        self._states: dict[tuple[Generation, int], Weights] = {}
        self._changes = 0
        self._effects: list[tuple[str, ManifestRef]] = []
        self.line: list[ManifestRef] = []
        """The sound checkpoints that count, oldest first."""
        self.newest_attempt = 0
        self.has_begun = False
        """A coordinator has seen that its checkpoint 0, or its parent, stands."""
        self.damaged: set[ManifestRef] = set()
        """Falling back past one of these may orphan its effects."""
        self.dead_letters: set[Coordinate] = set()

    def encode(self, weights: Weights) -> bytes:
        """A blob that stands for these weights."""
        content = self._names.setdefault(weights, b"weights %d" % len(self._names))
        self._contents[content] = weights
        return content

    def decode(self, content: bytes) -> Weights:
        return self._contents[content]

    def effect(self, what: str, ref: tuple[int, int]) -> None:
        """Something left the system because of a checkpoint."""
        self._effects.append((what, ManifestRef(*ref)))

    def look(self) -> None:
        """After every event: the disk, where it has changed."""
        disk = self._world.disk
        if disk.changes != self._changes:
            self._changes, unreadable, disk.unreadable = disk.changes, disk.unreadable, set()
            self._look_at_store()
            disk.unreadable = unreadable

    def see(self, trainer: Trainer) -> None:
        """A replica has moved or was confirmed."""
        place = trainer.generation, trainer.replica.progress.plan_number
        weights = trainer.replica.weights
        if self._states.setdefault(place, weights) != weights:
            raise ViolationError(f"inv 4: two replicas of {place[0]} at plan {place[1]} differ")
        for newest in self.line[-1:]:
            is_newer = trainer.generation[0] == newest.attempt == self.newest_attempt and place[1] >= newest.plan_number
            if is_newer and not _extends(weights, self._weights[newest]):
                raise ViolationError(f"inv 5: {trainer.name} of the newest attempt contradicts {newest.name}")

    def end(self) -> None:
        """SUCCEEDED was said and some time has passed."""
        done, newest = self._world.done, self.line[-1]
        assert done is not None
        if done.ref not in self.damaged and not is_at_end(self._progress[newest]):
            raise ViolationError(f"inv 13: SUCCEEDED was said of {done.name}, and the newest that counts is {newest.name}")
        for what, ref in self._effects:
            one, other = self._weights[ref], self._weights[newest]
            if ref not in self.damaged and not (_extends(one, other) or _extends(other, one)):
                raise ViolationError(f"inv 13: the job {what} for {ref.name}, which {newest.name} contradicts")

    def _look_at_store(self) -> None:
        store = self._world.store
        for ref in store.manifests():
            if ref not in self._weights:
                self._look_at_manifest(store.read_manifest(ref))
        line = [ref for ref in store.history() if ref not in self.damaged]
        self.line, self.newest_attempt = line, max(store.fences(), default=0)
        if self.has_begun and not line:
            raise ViolationError("inv 6: no sound checkpoint is left")
        for earlier, later in pairwise(line):
            if not _extends(self._weights[later], self._weights[earlier]):
                raise ViolationError(f"inv 5: {earlier.name} and {later.name} both count and contradict each other")
        for ref in line:
            gone = rejects_in(entry for entry in self._weights[ref] if isinstance(entry, Entry)) - self.dead_letters
            if gone:
                raise ViolationError(f"inv 13: {ref.name} counts, and dead letters {gone} were never flushed")

    def _look_at_manifest(self, manifest: Manifest) -> None:
        store = self._world.store
        self._progress[manifest.ref] = manifest.progress
        self._weights[manifest.ref] = weights = self.decode(store.read_blob(manifest.blob))
        try:
            store.verify(manifest)
            entries = tuple(store.entries(manifest.progress))
        except (CorruptError, NotFoundError) as error:
            raise ViolationError(f"inv 2: {manifest.name} is not sound: {error.reason}") from error
        if entries != weights:
            raise ViolationError(f"inv 2: the log of {manifest.name} is not what is in its weights")


def _extends(later: Weights, earlier: Weights) -> bool:
    return later[: len(earlier)] == earlier
