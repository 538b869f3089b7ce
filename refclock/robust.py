"""Robust statistics: medians, and lines through outliers.

The estimator and the rhythm of pulses use the line fit. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

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
