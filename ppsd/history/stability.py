"""Statistics of measurements: percentiles, and the stability of a clock (Allan deviation). Pure.

Source of the deviation: W. Riley, Handbook of Frequency Stability Analysis (NIST Special Publication 1065), 5.2.4, from phase data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which ``percent`` of the values lie, between the two nearest ones by straight line. ``ordered``: at least one value,
    the smallest first."""
    place = (len(ordered) - 1) * percent / 100.0
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def allan_deviation(phase_s: Sequence[float | None], every_s: float, steps: int) -> float | None:
    """The overlapping Allan deviation at the averaging time ``steps`` * ``every_s``: sigma_y, without a unit.

    ``phase_s``: errors in s, one each ``every_s``; None: there was none, and no difference is made with it. None: not one second difference
    could be made. Costs one pass through the data.
    """
    total, count = 0.0, 0
    for early, middle, late in zip(phase_s, phase_s[steps:], phase_s[2 * steps :], strict=False):
        if early is not None and middle is not None and late is not None:
            total += (late - 2.0 * middle + early) ** 2
            count += 1
    return math.sqrt(total / (2.0 * count)) / (steps * every_s) if count else None


def deviations(phase_s: Sequence[float | None], every_s: float) -> Iterator[tuple[float, float]]:
    """(averaging time in s, Allan deviation) at the powers of two that have at least as many second differences as steps: the longest would
    say next to nothing."""
    steps = 1
    while 3 * steps < len(phase_s):
        found = allan_deviation(phase_s, every_s, steps)
        if found is not None:
            yield steps * every_s, found
        steps *= 2
