"""Examples, each by one command: trained by dtrain on two workers beside a plain PyTorch loop, on a broker of their own.

python -m examples.run digits               # or reviews, movielens, weather; several, or all
python -m examples.run digits --kill        # a worker is killed on the way
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from rich.console import Console

from dtrain import Client, DtrainError
from examples.example import NAMES, Example
from examples.result import Result
from examples.stage import ROOT, Stage, broker, cluster, fresh_topic
from examples.trial import Trial

FOLDER = ROOT / "build" / "examples"
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Place:
    """Where examples run: a broker, and dtrain, of which nothing is left afterwards; results are in `folder/NAME/result.json`."""

    folder: Path
    stage: Stage
    client: Client
    console: Console

    def run(self, name: str, *, num_steps: int = 0, kills: bool = False) -> Result:
        """The example in a topic of its own; its figures are in `result.json` too."""
        began_s = time.monotonic()
        example = Example.load(name)

        def tell(text: str) -> None:
            self.console.print(f"[dim]{time.monotonic() - began_s:6.1f} s[/dim]  {name}: {text}")

        tell(f"{example.num_rows:,} rows")
        with fresh_topic(self.stage.bootstrap, name, num_partitions=example.num_partitions) as topic:
            stage = replace(self.stage, topic=topic)
            result = Trial(example, stage, self.client, tell, num_steps=num_steps, kills=kills).run()
        result.save(self.folder / name / "result.json")
        return result


@contextmanager
def place(folder: Path, *, console: Console) -> Iterator[Place]:
    """Broker and dtrain are up, with all that they write in `folder/run`; what an earlier run wrote there is gone."""
    with broker(folder / "run") as bootstrap:
        console.print(f"[bold]Kafka[/bold] at {bootstrap}; [bold]dtrain up[/bold]")
        stage = Stage(folder / "run", bootstrap, topic="")
        with cluster(stage), Client.from_home(stage.home) as client:
            yield Place(folder, stage, client, console)


def run(names: Sequence[str], *, num_steps: int, kills: bool, console: Console) -> int:
    """Each example in turn; 0 if every one is as promised."""
    with place(FOLDER, console=console) as here:
        results = [here.run(name, num_steps=num_steps, kills=kills) for name in names]
    for result in results:
        console.print(result.text())
    console.print(f"[dim]the same as JSON: {FOLDER}/NAME/result.json[/dim]")
    return 0 if all(result.holds for result in results) else 1


def main() -> int:
    """The command line. Leaves no process behind, however it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=(*NAMES, "all"), metavar="NAME", help=f"{', '.join(NAMES)}, or all")
    parser.add_argument("--steps", type=int, default=0, help="train only so many")
    parser.add_argument("--kill", action="store_true", help="kill a worker on the way")
    args = parser.parse_args()
    names = NAMES if "all" in args.names else args.names
    console = Console(highlight=False, soft_wrap=True)
    for kind in ENDS:
        signal.signal(kind, _interrupt)
    try:
        return run(names, num_steps=args.steps, kills=args.kill, console=console)
    except KeyboardInterrupt:
        console.print("stopped; nothing of the example is running any more")
        return 130
    except DtrainError as error:
        console.print(f"[red]{error}[/red]")
        return 1


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    for kind in ENDS:
        signal.signal(kind, signal.SIG_IGN)  # a second Ctrl-C would leave behind what the first is ending
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
