"""Search histories of the protocol for one that breaks it.

python -m tests.simulation.run --n 50000                  all rules: nothing may be found
python -m tests.simulation.run --off promise --n 20000    without a rule: the shortest history that breaks
python -m tests.simulation.run --ablate --n 3000          each rule in turn
python -m tests.simulation.run --seed 7                   one history, event by event
python -m tests.simulation.run --shuffled --n 20000       rows are shuffled: nothing may be found
python -m tests.simulation.run --changing --n 20000       what is read changes, and members leave: nothing may be found
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from dtrain.steplog import segments
from tests.simulation.process import ViolationError
from tests.simulation.rules import Rules
from tests.simulation.world import World


@dataclass(frozen=True, order=True)
class Finding:
    """A history that broke."""

    events: int
    seed: int
    reason: str


def history(
    seed: int,
    rules: Rules = Rules(),  # noqa: B008
    *,
    is_traced: bool = False,
    is_shuffled: bool = False,
    is_changing: bool = False,
) -> tuple[World, Finding | None]:
    """One history, and how it broke."""
    world = World(seed, rules, is_traced=is_traced, is_shuffled=is_shuffled, is_changing=is_changing)
    try:
        world.run()
    except ViolationError as error:
        return world, Finding(world.events, seed, str(error))
    return world, None


def search(
    rules: Rules,
    seeds: range,
    *,
    limit: int,
    counts: Counter[str] | None = None,
    is_shuffled: bool = False,
    is_changing: bool = False,
) -> list[Finding]:
    """Histories that broke, the shortest first; at most `limit`."""
    found: list[Finding] = []
    for seed in seeds:
        world, finding = history(seed, rules, is_shuffled=is_shuffled, is_changing=is_changing)
        if counts is not None:
            counts.update(world.counts, histories=1, events=world.events)
        found += [finding] if finding else []
        if len(found) >= limit:
            break
    return sorted(found)


@contextmanager
def small_world() -> Iterator[None]:
    """Segments are merged two by two; the threads of a history, which take turns, are on one core: that costs them a fifth."""
    cores, fanout = os.sched_getaffinity(0), segments.FANOUT
    os.sched_setaffinity(0, {random.choice(sorted(cores))})
    segments.FANOUT = 2
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        segments.FANOUT = fanout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="histories")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed")
    parser.add_argument("--off", default="", help="rules to take out, separated by commas")
    parser.add_argument("--limit", type=int, default=40, help="findings to stop at")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--shuffled", action="store_true", help="rows are shuffled: steps are parts of spans")
    parser.add_argument("--changing", action="store_true", help="partitions come, rows are passed over, members leave")
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    kinds = {"is_shuffled": args.shuffled, "is_changing": args.changing}
    rules = replace(Rules(), **dict.fromkeys(filter(None, args.off.split(",")), False))
    seeds = range(args.first, args.first + args.n)
    with small_world():
        if args.seed is not None:
            world, finding = history(args.seed, rules, is_traced=True, **kinds)
            print(*world.trace, finding, sep="\n")
        elif args.ablate:
            for rule in fields(Rules):
                _report(rule.name, replace(rules, **{rule.name: False}), seeds, limit=1, **kinds)
        else:
            _report(args.off or "all rules", rules, seeds, limit=args.limit, **kinds)


def _report(name: str, rules: Rules, seeds: range, *, limit: int, **kinds: bool) -> None:
    began_s, counts = time.perf_counter(), Counter[str]()
    found = search(rules, seeds, limit=limit, counts=counts, **kinds)
    print(f"{name}: {len(found)} of {counts['histories']} broke, {time.perf_counter() - began_s:.1f} s", flush=True)
    for finding in found[:5]:
        print("   ", finding)
    if len(found) < limit:
        print("   ", dict(sorted(counts.items())))


if __name__ == "__main__":
    main()
