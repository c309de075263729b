from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from dtrain.errors import UnavailableError
from dtrain.job.status import JobStatus
from dtrain.metrics.catalogue import CATALOGUE, JOB_STATUS, Kind
from dtrain.metrics.control import ControlMetrics
from dtrain.metrics.job import JobMetrics

STATUS = JobStatus(
    step=7, rows_trained=700, loss=0.5, scores={"auroc": 0.75, "accuracy": 0.5}, world_size=2, lag_s=1.5, held_out_loss=0.6
)


@pytest.fixture
def job() -> Iterator[JobMetrics]:
    made = JobMetrics("flights-00001", version="1.2.3")
    yield made
    made.close()


def scraped(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return answer.read().decode()


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_metric_keeps_the_naming_rules(metric) -> None:
    assert re.fullmatch(r"dtrain_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
    assert metric.help.endswith(".")
    assert "job" not in metric.labels
    assert (metric.kind is Kind.HISTOGRAM) is bool(metric.buckets)


def test_names_are_used_once() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("metric", JOB_STATUS, ids=lambda metric: metric.name)
def test_metric_of_a_status_names_one_of_its_fields(metric) -> None:
    assert hasattr(STATUS, metric.attribute)


def test_scrape_before_the_first_status_has_no_figures_that_nobody_said(job: JobMetrics) -> None:
    assert "dtrain_job_rows_trained_total{" not in scraped(job.serve())


def test_scrape_says_what_the_newest_status_says(job: JobMetrics) -> None:
    port = job.serve()
    job.update(JobStatus(step=6))
    job.update(STATUS)
    job.observe_step(0.003)
    text = scraped(port)
    for line in (
        'dtrain_job_rows_trained_total{job_id="flights-00001"} 700.0',
        'dtrain_job_steps_total{job_id="flights-00001"} 7.0',
        'dtrain_job_score{job_id="flights-00001",metric="auroc"} 0.75',
        'dtrain_job_lag_seconds{job_id="flights-00001"} 1.5',
        'dtrain_job_step_seconds_bucket{job_id="flights-00001",le="0.005"} 1.0',
        'dtrain_build_info{version="1.2.3"} 1.0',
    ):
        assert line in text.splitlines()
    assert "dtrain_job_freshness_seconds{" not in text


def test_counter_may_fall_when_a_job_goes_back_to_a_checkpoint(job: JobMetrics) -> None:
    port = job.serve()
    job.update(STATUS)
    job.update(JobStatus(step=3))
    assert 'dtrain_job_steps_total{job_id="flights-00001"} 3.0' in scraped(port).splitlines()


def test_port_that_is_taken_is_said_with_a_fix(job: JobMetrics) -> None:
    port = job.serve()
    with pytest.raises(UnavailableError, match="another port"):
        JobMetrics("other", version="1").serve(port=port)


def test_closed_exporter_gives_its_port_back(job: JobMetrics) -> None:
    port = job.serve()
    job.close()
    assert job.serve(port=port) == port


def test_other_paths_are_not_found(job: JobMetrics) -> None:
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://127.0.0.1:{job.serve()}/secrets")


def test_score_that_is_not_a_number_does_not_break_a_scrape(job: JobMetrics) -> None:
    job.update(JobStatus(loss=float("nan"), scores={'odd "name"\n': 1.0}))
    assert 'dtrain_job_loss{job_id="flights-00001"} NaN' in scraped(job.serve()).splitlines()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's prometheus")
def test_promtool_finds_nothing_to_say(job: JobMetrics) -> None:
    job.update(STATUS)
    job.observe_step(0.1)
    job.observe_recovery(0.1)
    job.observe_checkpoint(0.1)
    control = ControlMetrics(version="1.2.3", states=["RUNNING"], jobs=lambda: [("RUNNING", "flights-00001", "10.0.0.7:9")])
    control.count_rpc("GetJob", "OK")
    control.observe_cycle(0.1)
    ports = [job.serve(), control.serve(host="127.0.0.1", port=0)]
    texts = [scraped(port) for port in ports]
    control.close()
    assert all(
        any(f"# HELP {metric.name} " in text for text in texts) for metric in CATALOGUE if metric.attribute != "freshness_s"
    )
    for text in texts:
        found = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stdout + found.stderr) == (0, "")
