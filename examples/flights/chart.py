"""A line chart as inline SVG: lines labelled where they end, bands and pins for what happened meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10

Point = tuple[float, float]

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 132, 34, 44
LABEL_GAP = 16


@dataclass(frozen=True, slots=True)
class Line:
    """A row of points; `tone` is its class in the page's style sheet (live, frozen, plain; faint), `label` may be empty."""

    label: str
    points: Sequence[Point]
    tone: str
    is_dashed: bool = False
    is_filled: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """A span of x in which something lasted."""

    start: float
    end: float
    label: str
    tone: str


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values and where its ticks are; `ticks` are (value, text)."""

    low: float
    high: float
    title: str
    ticks: Sequence[tuple[float, str]]

    @classmethod
    def fitting(cls, low: float, high: float, *, title: str, unit: str = "", num_ticks: int = 5) -> Axis:
        """An axis that holds [low, high] with ticks at round numbers."""
        step = _round_step((high - low or 1.0) / num_ticks)
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        ticks = [(n * step, _text(n * step, step) + unit) for n in range(first, last + 1)]
        return cls(first * step, last * step, title, ticks)


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over common axes. `describes` says in one sentence what is to be seen, for those who cannot see it."""

    lines: Sequence[Line]
    x: Axis
    y: Axis
    describes: str
    bands: Sequence[Band] = field(default=())

    def svg(self) -> str:
        """The chart as one `<svg>` element; its colours come from the page."""
        shown = [line for line in self.lines if line.points]
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.describes)}">',
            *self._grid(),
            *self._bands(),
            *(self._path(line) for line in shown),
            *self._labels([line for line in shown if line.label]),
            "</svg>",
        ]
        return "\n".join(parts)

    def _at(self, point: Point) -> Point:
        """Where a point is drawn; one that is outside the axes is drawn at their edge."""
        across = (point[0] - self.x.low) / (self.x.high - self.x.low)
        up = (point[1] - self.y.low) / (self.y.high - self.y.low)
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + min(1, max(0, across)) * width, TOP + (1 - min(1, max(0, up))) * height

    def _grid(self) -> list[str]:
        bottom = HEIGHT - BOTTOM
        parts = [f'<text class="axis" x="{LEFT - 44}" y="{TOP - 18}">{escape(self.y.title)}</text>']
        for value, text in self.y.ticks:
            y = self._at((self.x.low, value))[1]
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        for value, text in self.x.ticks:
            x = self._at((value, self.y.low))[0]
            parts.append(f'<line class="notch" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
            parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{escape(text)}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(self.x.title)}</text>')
        return parts

    def _bands(self) -> list[str]:
        parts: list[str] = []
        ends_at, label_y = -1e9, TOP - 6
        for band in sorted(self.bands, key=lambda band: band.start):
            left, right = self._at((band.start, 0))[0], self._at((band.end, 0))[0]
            middle, half = (left + right) / 2, 4.2 * len(band.label)  # about 8 units a letter
            label_y = TOP - 6 - (13 if middle - half < ends_at and label_y == TOP - 6 else 0)
            ends_at = middle + half
            tone = band.tone + (" thin" if right - left < 2 else "")
            frame = f'y="{TOP}" width="{max(2.0, right - left):.1f}" height="{HEIGHT - TOP - BOTTOM}"'
            parts.append(f'<rect class="band {tone}" x="{left:.1f}" {frame}/>')
            text = escape(band.label)
            parts.append(f'<text class="note {band.tone}" x="{middle:.1f}" y="{label_y}" text-anchor="middle">{text}</text>')
        return parts

    def _path(self, line: Line) -> str:
        drawn = [self._at(point) for point in line.points]
        path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        dashed = " dashed" if line.is_dashed else ""
        area = ""
        if line.is_filled:
            floor_y = HEIGHT - BOTTOM
            area = f'<path class="area {line.tone}" d="{path}L{drawn[-1][0]:.1f},{floor_y}L{drawn[0][0]:.1f},{floor_y}Z"/>'
        return f'{area}<path class="line {line.tone}{dashed}" d="{path}"/>'

    def _labels(self, lines: Sequence[Line]) -> list[str]:
        """Each line's name where it ends, moved apart where they would overlap."""
        wanted = sorted(((self._at(line.points[-1])[1], line) for line in lines), key=lambda pair: pair[0])
        parts: list[str] = []
        above = -1e9
        for y, line in wanted:
            above = max(y, above + LABEL_GAP)
            parts.append(
                f'<text class="name {line.tone}" x="{WIDTH - RIGHT + 8}" y="{above + 4:.1f}">{escape(line.label)}</text>'
            )
        return parts


def _round_step(step: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    power: float = 10.0 ** floor(log10(step))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * (1 - 1e-9))


def _text(value: float, step: float) -> str:
    if step >= 1000 and value:
        return f"{value / 1000:g}k"
    decimals = len(f"{step:.9f}".rstrip("0").partition(".")[2])
    return f"{value:.{decimals}f}"
