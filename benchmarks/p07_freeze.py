"""P7: from the SIGSTOP of a trainer to the next applied step of the later survivor, against torchft, nvidia-resiliency-ext, torchrun.

Three ranks; all else as in P6. A stopped process keeps its sockets open, so that only a lease, a heartbeat or a timeout finds out. The peers get
timeouts so short that a slow step would already end a healthy job. Then ten minutes (two a pair) of dtrain beside as many busy processes
as there are cores and two more, at each lease: a member that is evicted there was evicted falsely.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure
from benchmarks.p06_recovery import measure, messages, present
from benchmarks.p06_systems import Dtrain, dtrain, nvrx, torchft, torchrun
from benchmarks.p06_trial import await_whole
from benchmarks.traces import live, read_traces
from benchmarks.world import a_broker, new_topic, produce
from dtrain.spec.job import WorkersSpec

LEASES_S = (1.0, 0.25)
GRACE_S = 0.3
NUM_RANKS = 3
PATIENCE_S = 0.5
"""The peers' timeout of a collective."""
LOAD_S = 120.0
"""Of full CPU load, a pair and lease."""


def run(*, pairs: int) -> Iterator[Figure]:
    """Measure every system, then look for false evictions."""
    if "lease" not in WorkersSpec.model_fields:
        print("  there is no `workers.lease` yet: dtrain is measured with its built-in one")
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        topic = new_topic(broker)
        produce(broker, topic, messages())
        source = {"topic": topic, "bootstrap": broker.bootstrap, "start": "earliest"}
        ours = [_dtrain(source, lease_s=lease_s) for lease_s in LEASES_S]
        aggressive = [factory(is_aggressive=True, timeout_s=PATIENCE_S) for factory in (torchft, nvrx)]
        systems = present([*ours, *aggressive, torchrun(timeout_s=PATIENCE_S)])
        records = measure(systems, pairs=pairs, world_sizes=(NUM_RANKS,), kind=signal.SIGSTOP)
        for system in systems:
            print(records[system.name, NUM_RANKS].sentence(system.name))
        for system, lease_s in zip(ours, LEASES_S, strict=True):
            if system not in systems or not records[system.name, NUM_RANKS].trials:
                continue
            seen = records[system.name, NUM_RANKS]
            for peer in systems[len(ours) :]:
                yield Figure.absolute(
                    max(seen.recoveries_s),
                    id="P7",
                    figure=f"freeze_max_s_lease_{lease_s:g}",
                    goal=lease_s + GRACE_S,
                    peer=max(records[peer.name, NUM_RANKS].recoveries_s, default=None),
                    peer_name=peer.name,
                    pairs=len(seen.trials),
                )
            evicted = sum(_false_evictions(system) for _ in range(pairs))
            yield Figure.absolute(evicted, id="P7", figure=f"false_evictions_lease_{lease_s:g}", goal=0, pairs=pairs)


def _dtrain(source: Mapping[str, object], *, lease_s: float) -> Dtrain:
    workers = {"lease": f"{lease_s * 1000:g}ms"} if "lease" in WorkersSpec.model_fields else {}
    return dtrain(source, name=f"dtrain lease {lease_s:g} s", workers=workers)


def _false_evictions(system: Dtrain) -> int:
    """How many processes have stopped to train, or begun to, while every core was busy."""
    with TemporaryDirectory(prefix="p7-") as name, ExitStack() as stack:
        folder = Path(name)
        system.open(folder, num_ranks=NUM_RANKS)
        stack.callback(system.close)
        if not await_whole(folder, num_ranks=NUM_RANKS):
            raise SystemExit("dtrain has not begun to train")
        before = live(read_traces(folder), within_s=1.0)
        for _ in range((os.cpu_count() or 1) + 2):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        time.sleep(LOAD_S)
        return len(before ^ live(read_traces(folder), within_s=10.0))
