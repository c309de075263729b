"""Commands about this machine: up, down, local, version, schema."""

from __future__ import annotations

import sys
from typing import Annotated

from typer import Option

from dtrain import __version__
from dtrain.cli import home
from dtrain.cli.output import Form, Output, console, emit, line
from dtrain.cli.words import JobFile, Sets, overrides
from dtrain.errors import UnavailableError


def up(
    address: Annotated[str, Option(help="Where the API listens; port 0 for a free one.")] = "127.0.0.1:0",
    metrics_address: Annotated[str, Option(help="Where /metrics listens; port 0 for a free one.")] = "127.0.0.1:0",
    ray_address: Annotated[str, Option(help="A running Ray cluster to use instead of one of our own.")] = "",
    cpus: Annotated[int | None, Option(min=1, help="CPUs that jobs may use; all by default.")] = None,
    gpus: Annotated[int | None, Option(min=0, help="GPUs that jobs may use; all by default.")] = None,
    output: Output = Form.TABLE,
) -> None:
    """Start Ray and the control plane, or what of them does not run."""
    from rich.text import Text

    from dtrain.cli.cluster import Cluster, Wishes

    say = console().print if output is Form.TABLE else lambda _: None
    found = Cluster(home.home(), environment=home.environment(), say=say).up(
        Wishes(address, metrics_address, ray_address, cpus, gpus)
    )
    hint = "submit a job with: dtrain submit job.yaml --watch\nstop it all with:  dtrain down"
    emit(found, output, table=lambda: Text(hint, style="dim"), name=found.address)


def down() -> None:
    """Stop them, and with them every job's processes; jobs go on from their last checkpoint after the next `up`."""
    from dtrain.cli.cluster import Cluster

    Cluster(home.home(), environment=home.environment(), say=console().print).down()


def local(
    file: JobFile,
    sets: Sets = None,
    allow_gap: Annotated[
        bool, Option("--allow-gap", help="Go on from where records are left, if the topic has lost some; it is logged.")
    ] = False,
    accept_code_change: Annotated[bool, Option("--accept-code-change", help="Go on with changed code; it is logged.")] = False,
    output: Output = Form.TABLE,
) -> int:
    """Run a whole job in this process, without Ray and control plane. Ctrl-C stops it after a last checkpoint."""
    from dtrain.cli.alone import run_alone
    from dtrain.spec.load import load_job

    spec = load_job(file, environment=home.environment(), overrides=overrides(sets))
    return run_alone(spec, output, allow_gap=allow_gap, accept_code_change=accept_code_change)


def version(output: Output = Form.TABLE) -> None:
    """Show this version, and that of the control plane if one answers."""
    server, why = None, ""
    try:
        with home.client(timeout_s=2) as client:
            server = client.server_info().version
    except UnavailableError as error:
        why = error.reason
    value = {"version": __version__, "server": server, "python": sys.version.split()[0]}
    emit(value, output, table=lambda: f"dtrain {__version__}\nserver {server or why}", name=__version__)


def schema() -> None:
    """Print the job file's JSON schema, for editors."""
    from dtrain.spec.job import json_schema

    line(json_schema(), Form.JSON, is_pretty=True)
