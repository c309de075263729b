"""A job's metrics: what its status says, and how long things took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from dtrain.metrics.catalogue import JOB_CHECKPOINT, JOB_RECOVERY, JOB_STATUS, JOB_STEP, Kind
from dtrain.metrics.exporter import Exporter


class JobMetrics(Exporter):
    """The metrics of one job, kept by its coordinator.

    Threads: every method may be called from any; a scrape reads the newest status and blocks nobody.
    """

    def __init__(self, job_id: str, *, version: str) -> None:
        super().__init__(version=version)
        self._job_id = job_id
        self._status: object = None
        labels = {"job_id": job_id}
        self.observe_step = self.histogram(JOB_STEP, labels=labels).observe
        """Told the seconds from one applied step to the next."""
        self.observe_recovery = self.histogram(JOB_RECOVERY, labels=labels).observe
        """Told the seconds from noticing a loss to being back."""
        self.observe_checkpoint = self.histogram(JOB_CHECKPOINT, labels=labels).observe
        """Told the seconds from a control step to its durable manifest."""
        self.registry.register(self)

    def update(self, status: object) -> None:
        """Scrapes see `status`, a `JobStatus`, from now on."""
        self._status = status

    def collect(self) -> Iterator[Family]:
        """What prometheus_client asks a collector for: one family a metric that has a value."""
        status = self._status
        for metric in JOB_STATUS:
            value = getattr(status, metric.attribute, None)
            if value is None:
                continue
            family = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
            made = family(metric.name, metric.help, labels=("job_id", *metric.labels))
            for label, number in value.items() if isinstance(value, Mapping) else ((None, value),):
                made.add_metric([self._job_id, *([label] if label is not None else [])], float(number))
            yield made
