"""P6: from the SIGKILL of a trainer to the next applied step of the later survivor, against five systems that recover.

Three and five ranks over gloo, one thread each, the same model and 256 rows a step. Every rank leaves a record of each applied step,
stamped with the clock that the killer reads; nothing that a system says about itself is used. Rank 0 is the victim of every other
kill, the others in turn. Four kills a pair. dtrain is a whole job: Kafka, Ray, reader, coordinator; its peers have their rows in
memory. Beside it stands each system's time a step, and that of plain DDP, while nothing dies.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from benchmarks.measure import Figure
from benchmarks.p01_workload import NUM_FEATURES, rows
from benchmarks.p06_loop import ROWS
from benchmarks.p06_systems import ENVIRONMENTS, System, dtrain, nvrx, ray_train, torchft, torchrun
from benchmarks.p06_trial import GIVEN_UP_S, Trial, await_whole, quiet_step_ms, run_trial
from benchmarks.world import a_broker, message, new_topic, produce

WORLD_SIZES = (3, 5)
KILLS_A_PAIR = 4
NUM_STEPS = 30_000
"""Of rows in the topic: more than a session takes."""
ROWS_A_MESSAGE = 1024


class Record:
    """What has been seen of a system with so many ranks."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.step_ms: list[float] = []
        self.num_false_starts = 0

    @property
    def recoveries_s(self) -> list[float]:
        """One a trial."""
        return [trial.recovery_s for trial in self.trials]

    def percentile_s(self, percent: float) -> float:
        """Of the recoveries; of those who did not come back, 60 s."""
        return float(np.percentile(self.recoveries_s, percent)) if self.trials else GIVEN_UP_S

    def sentence(self, name: str) -> str:
        """For people."""
        if not self.trials:
            return f"  {name}: has not trained ({self.num_false_starts} starts)"
        lost = sum(not trial.is_back for trial in self.trials)
        return (
            f"  {name}: {len(self.trials)} faults, {lost} not back in {GIVEN_UP_S:g} s; recovery p50 {self.percentile_s(50):.3f} s, "
            f"p99 {self.percentile_s(99):.3f}, most {max(self.recoveries_s):.3f}; steps again at most "
            f"{max(trial.num_again for trial in self.trials)}; {median(self.step_ms):.2f} ms a step"
        )


Records = Mapping[tuple[str, int], Record]


def run(*, pairs: int) -> Iterator[Figure]:
    """Measure every system at every number of ranks."""
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        topic = new_topic(broker)
        produce(broker, topic, messages())
        source = {"topic": topic, "bootstrap": broker.bootstrap, "start": "earliest"}
        peers = (torchft(is_aggressive=True), torchft(is_aggressive=False), nvrx(is_aggressive=True), nvrx(is_aggressive=False))
        systems = present((dtrain(source), *peers, torchrun(), ray_train()))
        records = measure(systems, pairs=pairs, world_sizes=WORLD_SIZES, kind=signal.SIGKILL)
    yield from _figures(records, [system.name for system in systems])


def messages() -> Iterator[bytes]:
    """NUM_STEPS of rows."""
    few = [
        message({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), NUM_FEATURES), "y": y})
        for x, y in rows(ROWS_A_MESSAGE)
    ]
    return itertools.islice(itertools.cycle(few), NUM_STEPS * ROWS // ROWS_A_MESSAGE)


def present(systems: Sequence[System]) -> list[System]:
    """Those that could be installed, and of them those that begin with a word of ONLY, where that is set."""
    words, found = os.environ.get("ONLY", "").split(","), []
    for system in systems:
        if not any(system.name.startswith(word) for word in words):
            continue
        peer = ENVIRONMENTS.get(type(system))  # type: ignore[arg-type]
        if peer is not None and (why := peer.install()):
            print(f"  {system.name}: not measured, it could not be installed: {why}")
            continue
        found.append(system)
    return found


def measure(systems: Sequence[System], *, pairs: int, world_sizes: Sequence[int], kind: signal.Signals) -> Records:
    """Sessions of all systems in turn, so often; what was seen, by system and number of ranks."""
    records = {(system.name, size): Record() for size in world_sizes for system in systems}
    chance = random.Random(0)
    for number, size, system in itertools.product(range(pairs), world_sizes, systems):
        record = records[system.name, size]
        places = range(number * KILLS_A_PAIR, (number + 1) * KILLS_A_PAIR)
        victims = [0 if place % 2 == 0 else 1 + place // 2 % (size - 1) for place in places]
        session(system, record, num_ranks=size, victims=victims, kind=kind, chance=chance)
        print(f" pair {number + 1}, {size} ranks: {record.sentence(system.name)}", flush=True)
    return records


def session(
    system: System, record: Record, *, num_ranks: int, victims: Sequence[int], kind: signal.Signals, chance: random.Random
) -> None:
    """The victims get the signal one after another, each when the system is whole again; `record` has what was seen."""
    left = list(victims)
    while left and record.num_false_starts < 3:
        with TemporaryDirectory(prefix="p6-") as name:
            folder = Path(name)
            system.open(folder, num_ranks=num_ranks)
            try:
                _strike(system, record, folder, left, num_ranks=num_ranks, kind=kind, chance=chance)
            finally:
                system.close()


def _strike(
    system: System,
    record: Record,
    folder: Path,
    left: list[int],
    *,
    num_ranks: int,
    kind: signal.Signals,
    chance: random.Random,
) -> None:
    """As many of `left` as one start of the system bears."""
    is_fresh = True
    while left:
        if not await_whole(folder, num_ranks=num_ranks):
            record.num_false_starts += is_fresh
            return
        record.step_ms.append(quiet_step_ms(folder))
        ranks = system.ranks()
        trial = run_trial(folder, ranks, rank=left.pop(0), kind=kind, chance=chance)
        record.trials.append(trial)
        is_fresh = False
        if not system.mend(ranks[trial.rank]) or not trial.is_back:
            return


def _figures(records: Records, names: Sequence[str]) -> Iterator[Figure]:
    for size in WORLD_SIZES:
        print(f" {size} ranks, all:")
        for name in names:
            print(records[name, size].sentence(name))
        ours, plain = records.get(("dtrain", size)), next((name for name in names if name.startswith("torchrun")), "")
        if ours is None or not ours.trials:
            continue
        again = max(trial.num_again for trial in ours.trials)
        yield Figure.absolute(again, id="P6", figure=f"steps_again_{size}", goal=1, pairs=len(ours.trials))
        for name in names[1:]:
            theirs = records[name, size]
            for percent, goal in ((50, 0.10), (99, 0.25)):
                yield Figure.absolute(
                    ours.percentile_s(percent),
                    id="P6",
                    figure=f"recovery_p{percent}_s_{size}",
                    goal=goal,
                    peer=theirs.percentile_s(percent),
                    peer_name=name,
                    pairs=len(ours.trials),
                )
            if theirs.step_ms:
                ratio = median(ours.step_ms) / median(theirs.step_ms)
                print(f"  a step of dtrain takes {ratio:.3f} of one of {name}{' (plain DDP)' if name == plain else ''}")
        if plain and records[plain, size].step_ms:
            yield Figure.absolute(
                median(ours.step_ms) / median(records[plain, size].step_ms),
                id="P6",
                figure=f"step_over_ddp_{size}",
                goal=1.05,
                peer_name=f"{plain} DDP",
                pairs=len(ours.step_ms),
            )
