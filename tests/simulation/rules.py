"""The rules of the protocol, one switch each: what the simulator must notice when it is taken out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dtrain.checkpoint.attempts import Attempt, _newest_sound, claim
from dtrain.checkpoint.files import Files
from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import FencedError
from dtrain.policy.election import Election, Standing, adopt, elect
from dtrain.steplog import fences
from dtrain.steplog.fences import Fence, ManifestRef


@dataclass(frozen=True)
class Rules:
    """True is what dtrain does; False takes the rule out."""

    claim_first: bool = True  # claim a fence, then list, then name the parent (False: list, then claim with the parent)
    close_lower: bool = True  # the claimer voids lower fences that have not named a parent, before it lists
    recheck: bool = True  # after a manifest, look for a later fence before any effect
    all_fences: bool = True  # a manifest must not be later than the parent of EVERY later fence (False: only of the next)
    by_number: bool = True  # one number over data and control steps orders everything (False: the data step)
    promise: bool = True  # answering a query ends the old generation for that member
    adopt_min: bool = True  # a live trainer behind the parent is not a source
    lineage_hash: bool = True  # whose log holds the parent, highest attempt first; who has an equal log keeps its replica
    confirmed: bool = True  # a state belongs to the attempt in which it was confirmed, not to the last one that was heard of
    plans_fixed: bool = True  # an issued plan never changes within an attempt (False: only within a generation)
    rollback_claims: bool = True  # going back to a checkpoint takes a new attempt
    segments_in_replica: bool = True  # the names of sealed segments are replica state
    snapshot_tag: bool = True  # a snapshot is tagged with its attempt; other attempts' are dropped
    snapshot_abandon: bool = True  # a generation that ends abandons a checkpoint without blobs; another is cut
    adopt_atomic: bool = True  # a half-received state is no state
    keep_counting: bool = True  # keep-N counts only manifests that count
    rejects_from_log: bool = True  # dead letters are flushed from the log (False: from what this coordinator cut)
    attempt_check: bool = True  # trainers refuse messages of lower attempts
    dirty_check: bool = True  # a replica whose apply block did not end is never a source


class RuledStore(CheckpointStore):
    """The real store, less the rules that are off."""

    def __init__(self, files: Files, rules: Rules) -> None:
        super().__init__(files)
        self.rules = rules
        self._steps: dict[ManifestRef, int] = {}

    def put_manifest(self, manifest: Manifest) -> None:
        self._steps[manifest.ref] = manifest.progress.step
        super().put_manifest(manifest)

    def void(self, attempt: int) -> None:
        if self.rules.close_lower:
            super().void(attempt)

    def attempts(self, *, after: int = 0) -> list[int]:
        return super().attempts(after=after) if self.rules.recheck or not after else []

    def history(self) -> list[ManifestRef]:
        if self.rules.all_fences and self.rules.by_number:
            return super().history()
        found, known = self.manifests(), self.fences()
        if not self.rules.by_number:
            return sorted((ref for ref in found if self._counts_by_step(ref, known)), key=lambda ref: (self._steps[ref], ref))
        return [ref for ref in found if fences.counts(ref, [f for f in known.values() if f.attempt == ref.attempt + 1])]

    def keep(self, number: int) -> list[ManifestRef]:
        if self.rules.keep_counting:
            return super().keep(number)
        times = self._manifest_times()
        doomed = self.manifests()[:-number]
        for ref in doomed:
            self.files.delete(f"manifests/{ref.name}.json", seen_s=times.get(ref, 0.0))
        return doomed

    def _counts_by_step(self, ref: ManifestRef, known: Mapping[int, Fence]) -> bool:
        later = [fence for fence in known.values() if fence.attempt > ref.attempt and fence.is_named and not fence.is_void]
        return all(fence.parent is not None and self._steps[ref] <= self._steps[fence.parent] for fence in later)


def claim_by(rules: Rules, store: CheckpointStore, *, incarnation: int, on_skip: Callable[[str], None]) -> Attempt:
    """An attempt, claimed as dtrain does, or the wrong way round."""
    if rules.claim_first:
        return claim(store, incarnation=incarnation, on_skip=on_skip)
    parent = _newest_sound(store, attempt=10**6, on_skip=on_skip)
    known = store.fences()
    number = max(known, default=0) + 1
    if any(fence.incarnation > incarnation for fence in known.values()):
        raise FencedError("a higher incarnation holds the fence")
    if not store.create_fence(number, incarnation=incarnation):
        return claim_by(rules, store, incarnation=incarnation, on_skip=on_skip)
    if not store.name_parent(number, parent.ref if parent else None):
        raise FencedError("a later attempt has closed this one")
    return Attempt(number, parent)


def elect_by(rules: Rules, standings: Mapping[int, Standing], *, attempt: int) -> Election | None:
    """The source within an attempt."""
    return elect(_blurred(rules, standings), attempt=attempt)


def adopt_by(rules: Rules, standings: Mapping[int, Standing], *, parent: Manifest) -> Election | None:
    """The source of an attempt that takes the job over; what a rule tells apart is made equal where it is off."""
    parent_hash = parent.progress.log_hash
    if not rules.adopt_min:
        behind = {key for key, s in standings.items() if s.plan_number < parent.ref.plan_number}
        standings = {key: replace(s, parent_hash=parent_hash) if key in behind else s for key, s in standings.items()}
    if not rules.lineage_hash:
        ahead = {key: s for key, s in standings.items() if s.plan_number >= parent.ref.plan_number and s.attempt}
        standings = {**standings, **{key: replace(s, attempt=1, parent_hash=parent_hash) for key, s in ahead.items()}}
    return adopt(_blurred(rules, standings), parent_hash=parent_hash)


def _blurred(rules: Rules, standings: Mapping[int, Standing]) -> Mapping[int, Standing]:
    """Without hashes, replicas are told apart by their plan number alone."""
    if rules.lineage_hash:
        return standings
    return {key: replace(s, log_hash=str(s.plan_number)) for key, s in standings.items()}
