"""A comparison with a peer: alternating pairs, the median of their ratios, and when it does not count."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal

STEADY = 1.3
"""If a peer's own runs differ by more than this factor, the machine was not quiet and the comparison is void."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """What dtrain and its peer measured, in turn: the i-th of one ran next to the i-th of the other."""

    dtrain: Sequence[float]
    peer: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """dtrain's measure over its peer's, pair by pair."""
        return [ours / theirs for ours, theirs in zip(self.dtrain, self.peer, strict=True)]

    @property
    def is_void(self) -> bool:
        """Whether the peer's runs differ too much among themselves."""
        return max(self.peer) > STEADY * min(self.peer)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the results."""

    id: str
    figure: str
    dtrain: float
    goal: float
    goal_of: Literal["ratio", "dtrain"]
    met: bool | None
    """None when the run is void."""
    is_more_better: bool = False
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    """dtrain's measure over its peer's."""
    ratio_min: float | None = None
    ratio_max: float | None = None
    peer_spread: float | None = None
    """Of the peer's own runs; None where those are not repetitions of one thing."""
    pairs: int = 1

    @classmethod
    def of(cls, pairs: Pairs, *, id: str, figure: str, peer_name: str, goal: float, is_more_better: bool = False) -> Figure:  # noqa: A002
        """Medians of `pairs`; the goal is of their ratio, and met from below unless more is better."""
        ratios = pairs.ratios
        return cls(
            id=id,
            figure=figure,
            dtrain=median(pairs.dtrain),
            goal=goal,
            goal_of="ratio",
            met=None if pairs.is_void else _is_met(median(ratios), goal=goal, is_more_better=is_more_better),
            is_more_better=is_more_better,
            peer=median(pairs.peer),
            peer_name=peer_name,
            ratio=median(ratios),
            ratio_min=min(ratios),
            ratio_max=max(ratios),
            peer_spread=max(pairs.peer) / min(pairs.peer),
            pairs=len(ratios),
        )

    @classmethod
    def absolute(
        cls,
        dtrain: float,
        *,
        id: str,  # noqa: A002
        figure: str,
        goal: float,
        is_more_better: bool = False,
        peer: float | None = None,
        peer_name: str = "",
        pairs: int = 1,
    ) -> Figure:
        """A figure whose goal is of dtrain's own measure; a peer's stands beside it."""
        return cls(
            id=id,
            figure=figure,
            dtrain=dtrain,
            goal=goal,
            goal_of="dtrain",
            met=_is_met(dtrain, goal=goal, is_more_better=is_more_better),
            is_more_better=is_more_better,
            peer=peer,
            peer_name=peer_name,
            ratio=dtrain / peer if peer else None,
            pairs=pairs,
        )

    def sentence(self) -> str:
        """The figure for people."""
        verdict = {
            True: "goal met",
            False: "goal missed",
            None: f"void: the peer's runs differ by {self.peer_spread or 0:.2f}x",
        }
        peer = "" if self.peer is None else f", {self.peer_name} {self.peer:.4g}"
        ratio = "" if self.ratio is None else f", ratio {self.ratio:.3f}"
        spread = "" if self.ratio_min is None else f" ({self.ratio_min:.3f} to {self.ratio_max:.3f} over {self.pairs} pairs)"
        bound = f"{self.goal_of} {'at least' if self.is_more_better else 'at most'} {self.goal:g}"
        return f"{self.id} {self.figure}: dtrain {self.dtrain:.4g}{peer}{ratio}{spread}; {bound}: {verdict[self.met]}"

    def line(self) -> str:
        """The figure for programs: one JSON object."""
        rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in asdict(self).items()}
        return json.dumps(rounded)


def _is_met(value: float, *, goal: float, is_more_better: bool) -> bool:
    return value >= goal if is_more_better else value <= goal


def alternate(dtrain: Callable[[], float], peer: Callable[[], float], *, pairs: int) -> Pairs:
    """Measure dtrain and its peer in turn, `pairs` times each, so that a drift of the machine meets both."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(1, pairs + 1):
        ours.append(dtrain())
        theirs.append(peer())
        print(f"  pair {number}: dtrain {ours[-1]:.4g}, peer {theirs[-1]:.4g}, ratio {ours[-1] / theirs[-1]:.3f}", flush=True)
    return Pairs(ours, theirs)
