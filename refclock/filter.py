"""Robust statistics of pulses: medians, lines through outliers, and which edge is the second.

Sits between the pulse device and pairing (``EdgeChooser``), and lends its line fit to the estimator. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from refclock.sample import NS, Edge, EdgeKind

MAD_TO_SIGMA = 1.4826
"""1 / Phi^-1(3/4): a Gaussian's standard deviation over its median absolute deviation."""


def median(values: Sequence[float]) -> float:
    """Middle value (mean of the middle two); ``values`` must not be empty."""
    ordered = sorted(values)
    n = len(ordered)
    return ordered[n // 2] if n % 2 else 0.5 * (ordered[n // 2 - 1] + ordered[n // 2])


def spread(values: Sequence[float], centre: float | None = None) -> float:
    """Robust standard deviation: 1.4826 x median absolute deviation from ``centre`` (default: the median)."""
    middle = median(values) if centre is None else centre
    return MAD_TO_SIGMA * median([abs(v - middle) for v in values])


def robust_line(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Theil-Sen line through (t, z): (z at t = 0, slope, robust sigma of the residuals). Holds up to 29 % outliers (Sen 1968).

    Needs two different t. Cost: n^2/2 slopes; meant for n <= 32.
    """
    slopes = [(zb - za) / (tb - ta) for i, (ta, za) in enumerate(points) for tb, zb in points[i + 1 :] if tb != ta]
    slope = median(slopes)
    level = median([z - slope * t for t, z in points])
    return level, slope, spread([z - slope * t for t, z in points], level)


class EdgeChooser:
    """Finds the edge that marks the second.

    A receiver's pulse is short: the edge that starts the *shorter* part of the period is the leading one, whatever the wiring
    inverts. When only one kind arrives it is that one; between 45 and 55 % duty both look alike and assert is taken.
    """

    PULSES = 3
    """Pulses that must agree before the choice changes."""
    SQUARE = 0.05
    """Duty cycles this near to one half (fraction of the period) tell nothing."""

    def __init__(self, fixed: EdgeKind | None = None) -> None:
        self.fixed = fixed
        self.chosen = fixed
        self.width_ns: int | None = None
        self._last: dict[EdgeKind, Edge] = {}
        self._votes: deque[EdgeKind] = deque(maxlen=self.PULSES)
        self._alone = 0

    def accept(self, edge: Edge) -> bool:
        """True when ``edge`` marks a second. Until three pulses agree nothing does."""
        other = self._last.get(EdgeKind.CLEAR if edge.kind is EdgeKind.ASSERT else EdgeKind.ASSERT)
        same = self._last.get(edge.kind)
        self._last[edge.kind] = edge
        if self.fixed is not None:
            return edge.kind is self.fixed
        if same is not None:
            period = edge.at.mono_ns - same.at.mono_ns
            if other is None or other.at.mono_ns <= same.at.mono_ns:
                self._alone += 1
                if self._alone >= self.PULSES:
                    self.chosen, self.width_ns = edge.kind, None
            elif 0 < period < 10 * NS:
                self._alone = 0
                self._vote(edge, other, period)
        return edge.kind is self.chosen

    def _vote(self, edge: Edge, other: Edge, period: int) -> None:
        """``other`` lies between two edges of ``edge``'s kind: the part before it was started by ``edge``'s kind."""
        second_part = edge.at.mono_ns - other.at.mono_ns
        duty = 1.0 - second_part / period
        leading = EdgeKind.ASSERT if abs(duty - 0.5) <= self.SQUARE else edge.kind if duty < 0.5 else other.kind
        self.width_ns = min(second_part, period - second_part)
        self._votes.append(leading)
        if len(self._votes) == self.PULSES and len(set(self._votes)) == 1:
            self.chosen = leading
