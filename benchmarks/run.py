"""Run benchmarks by id.

python -m benchmarks.run P1
python -m benchmarks.run P1 --pairs 9
python -m benchmarks.run --list
"""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module

from benchmarks import machine

BENCHMARKS = {
    "P1": "benchmarks.p01_step_time",
    "P2": "benchmarks.p02_throughput",
    "P3": "benchmarks.p03_ray_data",
    "P4": "benchmarks.p04_ingest",
    "P5": "benchmarks.p05_json",
    "P6": "benchmarks.p06_recovery",
    "P7": "benchmarks.p07_freeze",
    "P8": "benchmarks.p08_goodput",
    "P9": "benchmarks.p09_checkpoint_gap",
    "P10": "benchmarks.p10_log_price",
    "P11": "benchmarks.p11_freshness",
    "P14": "benchmarks.p14_growth",
    "READERS": "benchmarks.readers",
}
"""Id → module; its `run(pairs)` measures and gives figures, its docstring says what and against whom."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("ids", nargs="*", metavar="ID", help="which; all when none is named")
    parser.add_argument("--pairs", type=int, default=5, help="how often each side is measured, in turn")
    parser.add_argument("--list", action="store_true", help="say what there is")
    args = parser.parse_args()
    chosen = [name.upper() for name in args.ids] or list(BENCHMARKS)
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there is {', '.join(BENCHMARKS)}")
    modules = {name: import_module(BENCHMARKS[name]) for name in chosen}
    if args.list:
        for name, module in modules.items():
            print((module.__doc__ or name).splitlines()[0])
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended then too
    print(machine.describe())
    figures = []
    for name, module in modules.items():
        print(f"\n{(module.__doc__ or name).splitlines()[0]}")
        figures += module.run(pairs=args.pairs)
    print()
    for figure in figures:
        print(figure.sentence())
    for figure in figures:
        print(figure.line())


if __name__ == "__main__":
    main()
