"""`python -m deploy.kafka.serve`: a broker of one's own in the foreground, for trying things out; Ctrl-C ends it, and what it held is gone."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from deploy.kafka.broker import find_broker
from dtrain.errors import DtrainError

BUILD = Path(__file__).parents[2] / "build"


def main() -> None:
    """A fresh broker answers until a signal comes; KAFKA_HOME names another Kafka than ours."""
    BUILD.mkdir(exist_ok=True)
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.default_int_handler)
    with (
        suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="broker-", dir=BUILD) as folder,
        find_broker(
            bootstrap=None, home=os.environ.get("KAFKA_HOME"), cache=BUILD / "kafka", folder=Path(folder, "kafka")
        ) as broker,
    ):
        sys.stdout.write(
            f"a broker answers; Ctrl-C ends it. In other terminals:\n\n  export KAFKA_BOOTSTRAP={broker.bootstrap}\n\n"
        )
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    try:
        main()
    except DtrainError as error:
        sys.exit(f"{error.reason}\n  {error.fix}")
