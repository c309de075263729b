"""A job's metrics: what its status says, and how long things took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from dtrain.metrics.catalogue import JOB_CHECKPOINT, JOB_RECOVERY, JOB_STATUS, JOB_STEP, Kind
from dtrain.metrics.exporter import Exporter


class JobMetrics:
    """The metrics of one job, kept by its coordinator.

    Threads: every method may be called from any; a scrape reads the newest status and blocks nobody.

    Args:
        job_id: the label on every series.
        version: of dtrain.
    """

    def __init__(self, job_id: str, *, version: str) -> None:
        self._exporter = Exporter(version=version)
        self._job_id = job_id
        self._status: object = None
        labels = {"job_id": job_id}
        self._step = self._exporter.histogram(JOB_STEP, labels=labels)
        self._recovery = self._exporter.histogram(JOB_RECOVERY, labels=labels)
        self._checkpoint = self._exporter.histogram(JOB_CHECKPOINT, labels=labels)
        self._exporter.registry.register(self)

    def update(self, status: object) -> None:
        """Scrapes see `status`, a `JobStatus`, from now on."""
        self._status = status

    def observe_step(self, duration_s: float) -> None:
        """A step was applied `duration_s` after the one before."""
        self._step.observe(duration_s)

    def observe_recovery(self, duration_s: float) -> None:
        """The job came back `duration_s` after a loss was noticed."""
        self._recovery.observe(duration_s)

    def observe_checkpoint(self, duration_s: float) -> None:
        """A checkpoint was durable `duration_s` after its control step."""
        self._checkpoint.observe(duration_s)

    def serve(self, *, port: int = 0) -> int:
        """Answers /metrics on the loopback interface; returns the port. Raises `UnavailableError` when it is taken."""
        return self._exporter.serve(port=port)

    def close(self) -> None:
        """The port is free again."""
        self._exporter.close()

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
