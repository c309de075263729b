"""The command `dtrain`. Heavy imports are inside the command that needs them: `--help` loads none."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from itertools import chain
from typing import Any

import typer
from typer.core import TyperGroup

from dtrain.cli import jobs, lag, machine, parts, proofs, redrive, topics
from dtrain.cli.exits import Exit, exit_of
from dtrain.cli.output import fail
from dtrain.errors import DtrainError, InputError, InternalError

COMMANDS = {
    "On this machine": (machine.up, machine.down, machine.local, machine.version, machine.schema),
    "Jobs": (
        jobs.submit,
        jobs.get,
        jobs.list_jobs,
        jobs.watch,
        jobs.logs,
        jobs.suspend,
        jobs.resume,
        jobs.cancel,
        jobs.scale,
        jobs.checkpoint,
        lag.lag,
        redrive.redrive,
    ),
    "Topics": (topics.topics, topics.peek, topics.produce),
    "Proofs": (proofs.checkpoints, proofs.pin, proofs.verify, proofs.replay),
    "In containers": (parts.control_plane, parts.ray_head, parts.ray_worker, parts.healthy),
}


class _Commands(TyperGroup):
    """Lists commands by what they are about, and their help in full; in plain text, because rich's help loads for 0.3 s."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """What `--help` says of them."""
        for title, functions in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name_of(function), (function.__doc__ or "").strip()) for function in functions])


app = typer.Typer(
    cls=_Commands,
    help="Distributed training on a live stream: every record is in the weights exactly once, and anyone can check it.",
    epilog="Exit codes: 0 done, 1 the job failed, 2 bad input, 3 not found, 4 wrong state, 5 wrong token, 6 no answer, "
    "7 corrupt, 8 disk, 70 our bug, 130 interrupted. Environment: DTRAIN_HOME, DTRAIN_ADDRESS, DTRAIN_TOKEN, KAFKA_BOOTSTRAP.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def name_of(function: Callable[..., object]) -> str:
    """What a user calls the command that `function` is."""
    return function.__name__.removesuffix("_jobs").replace("_", "-")


for _command in chain.from_iterable(COMMANDS.values()):
    app.command(name_of(_command))(_command)


def run(words: list[str]) -> int:
    """Run a command; its exit code. Whatever goes wrong ends here, as one clear sentence on standard error."""
    as_json = "json" in {word.removeprefix("--output=").removeprefix("-o") for word in words}
    try:
        return int(typer.main.get_command(app).main(words or ["--help"], prog_name="dtrain", standalone_mode=False) or Exit.OK)
    except DtrainError as error:
        fail(error, as_json=as_json)
        return exit_of(error.code)
    except (typer.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stdout = None
        return Exit.OK
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's word for wrong usage
            fail(InputError(error.format_message().rstrip("."), fix="see: dtrain --help"), as_json=as_json)
            return Exit.INPUT
        traceback.print_exc()
        bug = InternalError(f"{type(error).__name__}: {error}", fix="this is a bug of dtrain's: please report the lines above")
        fail(bug, as_json=as_json)
        return Exit.INTERNAL


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
