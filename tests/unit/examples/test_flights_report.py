from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.flights.chart import Axis
from examples.flights.figures import Check, Figures
from examples.flights.report import render, write
from examples.flights.timeline import Mark, Sample, Timeline

FIGURES = Figures(
    produced=40_000, trained=40_000, lost=0, doubled=0, auroc=0.64, auroc_constant=0.5, auroc_frozen=0.58, recovery_s=0.31, replay="equal",
    loss=0.55, loss_frozen=0.57, loss_constant=0.571, late_share=0.26, month_starts=[n * 3000 for n in range(12)], seconds=100.0,
    checks=[Check("All there", "counted", "0 lost", holds=True)], setting={"torch": "2.13"},
)  # fmt: skip
RUN = Timeline(
    samples=[Sample(n / 2, "RUNNING", n * 500, n * 400, 2, 0.6 - n / 1000, 0.5 + n / 500, 0.6, 0.55) for n in range(81)],
    marks=[
        Mark(5, 4000, "kill", "pid 7"),
        Mark(5.5, 4000, "recovered", "step 9 <&>"),
        Mark(9, 7000, "suspend", ""),
        Mark(12, 7000, "resumed", ""),
    ],
    frozen=[Sample(0, "", 0, 20_000, 1, 0.57, 0.58, 0.57, 0.58), Sample(0, "", 0, 40_000, 1, 0.58, 0.57, 0.58, 0.57)],
)


class Tags(HTMLParser):
    """Fails where a tag is closed that is not open."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_asks_for_nothing_from_outside() -> None:
    page = render(FIGURES, RUN)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert re.findall(r"""(?:src|href|url|import)\s*[=(:]|https?://""", page) == []


def test_page_escapes_what_the_job_said() -> None:
    assert "step 9 &lt;&amp;&gt;" in render(FIGURES, RUN)


@pytest.mark.parametrize(("lost", "tone"), [(0, "good"), (3, "bad")])
def test_page_shows_lost_rows_as_what_they_are(lost: int, tone: str) -> None:
    assert re.search(rf"card {tone}'><dt>lost</dt><dd>{lost}</dd>", render(replace(FIGURES, lost=lost), RUN))


def test_page_of_a_run_without_kill_or_samples_is_drawn_all_the_same() -> None:
    assert "</html>" in render(FIGURES, Timeline())


def test_report_drawn_again_from_its_files_is_the_same(tmp_path: Path) -> None:
    page = write(tmp_path, FIGURES, RUN).read_text()
    again = render(Figures.load(tmp_path / "report.json"), Timeline.load(tmp_path / "timeline.json"))
    assert again == page


def test_history_forgets_steps_that_a_return_to_a_checkpoint_undid() -> None:
    seen = Timeline([Sample(n, "RUNNING", 0, trained, 2) for n, trained in enumerate([0, 10, 20, 30, 10, 15, 25])])
    assert [sample.trained for sample in seen.history()] == [0, 10, 10, 15, 25]


def test_rate_of_a_steady_stream_is_its_rate_and_of_a_stall_is_zero() -> None:
    steady = Timeline([Sample(n / 4, "RUNNING", n * 25, n * 25, 2) for n in range(40)])
    assert {round(rate, 6) for _, rate in steady.rates()[0]} == {100.0}
    stalled = Timeline([Sample(n / 4, "RUNNING", n, 7, 2) for n in range(40)])
    assert {rate for _, rate in stalled.rates()[0]} == {0.0}


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_axis_holds_the_range_that_it_was_made_for_with_few_ticks(low: float, span: float) -> None:
    axis = Axis.fitting(low, low + span, title="")
    slack = 1e-6 * max(span, abs(low))
    assert axis.low <= low + slack
    assert axis.high >= low + span - slack
    assert 2 <= len(axis.ticks) <= 9
