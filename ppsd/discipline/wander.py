"""How far the crystal strays by itself, learned from how wrong our own forecasts were.

Holdover is a forecast: x(t) + y(t) tau. Its errors are known afterwards, when the samples have gone on. For a random walk of frequency
their mean square is w^2 tau^3 / 3 + Pyy tau^2, so that each of a few ``LAGS`` gives a w; where the longer ones give clearly more than the
likelihood of short-term behaviour does (a room's temperature, a day), they are believed. Before the crystal was watched for long,
``ASSUMED`` stands in: what it may do next is not read off a quiet minute.

Pure. Seconds, ns.
"""

from __future__ import annotations

import math
from collections import deque

EVERY_S = 64.0
LAGS = (4, 16, 64)
"""In steps of ``EVERY_S``: four minutes, a quarter of an hour, an hour."""
ASSUMED = 10.0
"""ns/s per sqrt(s): a crystal in a room with people in it (discipline scenario b-wander: 1e-8)."""
TRUST_S = 3600.0
"""Watching for this long takes the logarithm of the assumption to 1/e of its distance from what was seen."""
TRUST_MORE = 1.5
"""Standard errors by which a lag must exceed the likelihood's value."""
FADE = 1e-3
"""Weight of a step in the long run: 18 hours."""


class Wander:
    """See the module's text. ``known``: w of an earlier run, and for how long that run watched (s). It counts for no more than
    ``TRUST_S``, for a machine that was off is not as warm as it was, and w is not taken to be less before this run has watched for long."""

    def __init__(self, known: tuple[float, float] | None = None) -> None:
        self._known, watched_s = known or (0.0, 0.0)
        self.watched_s = min(watched_s, TRUST_S)
        self._past: deque[tuple[float, float, float, float]] = deque(maxlen=LAGS[-1] + 1)
        self._squares = [0.0] * len(LAGS)
        self._counts = [0] * len(LAGS)

    def restart(self) -> None:
        """The state was replaced: forecasts made before say nothing of the crystal."""
        self._past.clear()

    def due(self, t: float) -> bool:
        """Whether the state at ``t`` is wanted."""
        return not self._past or t - self._past[-1][0] >= EVERY_S

    def add(self, t: float, x: float, y: float, pyy: float, likely: float) -> None:
        """The state after a sample at ``t``, its frequency's variance, and the w that the short term makes likeliest."""
        if self._past:
            gap = t - self._past[-1][0]
            if gap > 2 * EVERY_S:
                self._past.clear()
            else:
                self.watched_s += gap
        self._past.append((t, x, y, pyy))
        for i, lag in enumerate(LAGS):
            if len(self._past) > lag:
                t0, x0, y0, pyy0 = self._past[-1 - lag]
                tau = t - t0
                self.missed(i, (x - x0 - y0 * tau) ** 2, pyy0 * tau * tau, tau, likely)

    def missed(self, i: int, square: float, expected: float, tau: float, likely: float) -> None:
        """A forecast over lag ``i`` of ``LAGS`` (``tau`` s) was wrong by ``square`` (ns^2), ``expected`` of it by its frequency."""
        if expected > likely * likely * tau**3 / 3:
            return  # a forecast that was expected to fail by its frequency says nothing of wander
        self._counts[i] += 1
        self._squares[i] += max(FADE, 1 / self._counts[i]) * (3 * (square - expected) / tau**3 - self._squares[i])

    def expected(self, likely: float) -> float:
        """w to reckon with (ns/s per sqrt(s)); ``likely``: what the short term makes likeliest."""
        w2 = likely * likely
        for lag, square, count in zip(LAGS, self._squares, self._counts, strict=True):
            independent = count / lag
            if independent >= 2:
                w2 = max(w2, square / (1 + TRUST_MORE * math.sqrt(2 / independent)))
        seen = max(math.sqrt(w2), self._known if self.watched_s < 2 * TRUST_S else 0.0)
        return seen * math.pow(max(1.0, ASSUMED / seen), math.exp(-self.watched_s / TRUST_S))
