"""A comparison with a peer: alternating pairs, the median of their ratios, and when it does not count."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

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
    """One line of the results. `goal` is of the ratio, and met from below."""

    id: str
    figure: str
    dtrain: float
    peer: float
    peer_name: str
    ratio: float
    ratio_min: float
    ratio_max: float
    peer_spread: float
    pairs: int
    goal: float
    met: bool | None
    """None when the run is void."""

    @classmethod
    def of(cls, pairs: Pairs, *, id: str, figure: str, peer_name: str, goal: float) -> Figure:  # noqa: A002
        """Medians of `pairs`; a smaller measure is a better one."""
        ratios = pairs.ratios
        return cls(
            id=id,
            figure=figure,
            dtrain=median(pairs.dtrain),
            peer=median(pairs.peer),
            peer_name=peer_name,
            ratio=median(ratios),
            ratio_min=min(ratios),
            ratio_max=max(ratios),
            peer_spread=max(pairs.peer) / min(pairs.peer),
            pairs=len(ratios),
            goal=goal,
            met=None if pairs.is_void else median(ratios) <= goal,
        )

    def sentence(self) -> str:
        """The figure for people."""
        verdict = {True: "goal met", False: "goal missed", None: f"void: the peer's runs differ by {self.peer_spread:.2f}x"}
        return (
            f"{self.id} {self.figure}: dtrain {self.dtrain:.4g}, {self.peer_name} {self.peer:.4g}, ratio {self.ratio:.3f} "
            f"({self.ratio_min:.3f} to {self.ratio_max:.3f} over {self.pairs} pairs), goal {self.goal:g}: {verdict[self.met]}"
        )

    def line(self) -> str:
        """The figure for programs: one JSON object."""
        rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in asdict(self).items()}
        return json.dumps(rounded)


def alternate(dtrain: Callable[[], float], peer: Callable[[], float], *, pairs: int) -> Pairs:
    """Measure dtrain and its peer in turn, `pairs` times each, so that a drift of the machine meets both."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(1, pairs + 1):
        ours.append(dtrain())
        theirs.append(peer())
        print(f"  pair {number}: dtrain {ours[-1]:.4g}, peer {theirs[-1]:.4g}, ratio {ours[-1] / theirs[-1]:.3f}", flush=True)
    return Pairs(ours, theirs)
