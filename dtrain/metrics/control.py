"""The control plane's metrics, and where Prometheus finds those of the jobs."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import Counter
from prometheus_client.metrics_core import GaugeMetricFamily

from dtrain.metrics.catalogue import CYCLE, JOBS, RPCS
from dtrain.metrics.exporter import Exporter


class ControlMetrics(Exporter):
    """The metrics of one control plane, served with /sd.

    Args:
        version: of dtrain.
        states: every state that is counted.
        jobs: asked at a scrape: the state and the id of each job that is not over, and host:port of its /metrics (empty: none).
    """

    def __init__(self, *, version: str, states: Iterable[str], jobs: Callable[[], Iterable[tuple[str, str, str]]]) -> None:
        self._states = tuple(states)
        self._jobs = jobs
        super().__init__(version=version, pages={"/sd": self._targets})
        self.observe_cycle = self.histogram(CYCLE).observe
        """Told the seconds that a scheduler's cycle took."""
        self._rpcs = Counter(RPCS.name, RPCS.help, RPCS.labels, registry=self.registry)
        self.registry.register(self)

    def count_rpc(self, method: str, code: str) -> None:
        """A call of `method` ended with `code`."""
        self._rpcs.labels(method=method, code=code).inc()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What prometheus_client asks a collector for."""
        counts = collections.Counter(state for state, _, _ in self._jobs())
        family = GaugeMetricFamily(JOBS.name, JOBS.help, labels=JOBS.labels)
        for state in self._states:
            family.add_metric([state], counts[state])
        yield family

    def _targets(self) -> tuple[str, bytes]:
        """Prometheus's HTTP service discovery: every job that has a /metrics."""
        targets: list[Mapping[str, object]] = [
            {"targets": [address], "labels": {"__meta_dtrain_job_id": job_id}} for _, job_id, address in self._jobs() if address
        ]
        return "application/json", json.dumps(targets).encode()
