"""Run benchmarks by id.

python -m benchmarks.run P1
python -m benchmarks.run P1 --pairs 9
python -m benchmarks.run --list
"""

from __future__ import annotations

import argparse
from importlib import import_module

from benchmarks import machine

BENCHMARKS = {"P1": "benchmarks.p01_step_time"}
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
