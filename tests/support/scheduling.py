"""Which test process runs which tests: whole files, the longest first, and Ray in two of the processes."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

NUM_WITH_RAY = 2
"""So many processes start jobs on Ray, as long as the others have something else: those wait more than they compute."""

WITH_RAY = (
    "fault/test_partition.py",
    "fault/test_elastic.py",
    "fault/test_nemesis.py",
    "integration/test_shuffle.py",
    "fault/test_readers.py",
    "integration/test_runtime.py",
    "fault/test_changing_topics.py",
    "integration/test_transforms.py",
    "integration/test_backfill.py",
    "integration/test_requirements.py",
    "integration/test_up_down.py",
)
"""The files whose tests start trainers or clusters, in the order in which they run."""

LONG = (
    "fault/test_kills.py",
    "simulation/test_protocol.py",
    "integration/test_bad_network.py",
    "fault/test_backfill.py",
    "integration/test_security.py",
    "integration/test_kafka_source.py",
    "contract/test_source.py",
    "integration/test_changing_topics.py",
    "numerics/",
)
"""What else takes long, in the order in which it runs; before all that is short."""

APART = ("fault/test_elastic.py", "fault/test_kills.py", "fault/test_backfill.py", "simulation/test_protocol.py")
"""Files whose tests are long and share nothing: each may run in another process."""


def place(nodeid: str) -> int:
    """The place of a test's file in the order of all."""
    order = (*WITH_RAY, *LONG)
    return next((number for number, name in enumerate(order) if nodeid.startswith(f"tests/{name}")), len(order))


class LongestFirst(LoadScopeScheduling):
    """As `--dist loadfile`, but for files whose tests are long, and with a second kind of files that few processes take.

    A process that has Ray's cluster keeps it for the session; two of them leave the cores to somebody who computes.
    """

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests, it would be

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file.removeprefix("tests/") in APART else file

    def _assign_work_unit(self, node: Any) -> None:
        has_ray = self.nodes.index(node) < NUM_WITH_RAY
        fitting = (scope for scope in self.workqueue if (place(scope) < len(WITH_RAY)) == has_ray)
        if (scope := next(fitting, None)) is not None:
            self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: Any) -> None:
        if self._pending_of(self.assigned_work[node]) < 2:  # it needs to know one test behind that which it runs
            super()._reschedule(node)
