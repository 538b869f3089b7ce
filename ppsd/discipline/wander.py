"""How far the crystal strays by itself, learned from how wrong our own forecasts were.

Theory. Holdover is a forecast: x(t) + y(t) tau. Its errors are known afterwards, when samples have gone on. For a random walk of frequency
their mean square is w^2 tau^3 / 3 + Pyy tau^2, so forecasts over each span of ``SPANS`` give a w. Where a longer span gives clearly more
than the likelihood of short-term behaviour does (a room's temperature, a day), it is believed. Before the crystal was watched for long,
``ASSUMED`` stands in: what it may do next is not read off a quiet minute.

Flow: an estimator adds its state once in ``STEP_S`` and puts ``expected`` into the growth of its bound. Pure; seconds, ns.
"""

from __future__ import annotations

import math
from collections import deque
from copy import copy
from typing import Self

STEP_S = 64.0
"""Between two forecasts. A gap without samples that is longer may have brought what only ``expected`` knows of."""
SPANS = (4, 16, 64)
"""Of the forecasts, in steps of ``STEP_S``: four minutes, a quarter of an hour, an hour."""
ASSUMED = 10.0
"""ns/s per sqrt(s): a crystal in a room with people in it (scenario b-wander: 1e-8)."""
TRUST_S = 3600.0
"""Watching for this long takes the logarithm of the assumption to 1/e of its distance from what was seen. An hour: the longest span."""
TRUST_MORE = 1.5
"""Standard errors by which a span's w^2 must exceed the likelihood's to be believed: chance does so once in 15 times."""
STEP_WEIGHT = 1e-3
"""Weight of a step in a span's long-run mean: 18 hours."""


class Wander:
    """See the module's text. ``known``: w of an earlier run, and for how long that run watched (s). It counts for no more than
    ``TRUST_S``, for a machine that was off is not as warm as it was, and w is not taken to be less before this run has watched for long."""

    def __init__(self, known: tuple[float, float] | None = None) -> None:
        self._known, watched_s = known or (0.0, 0.0)
        self.watched_s = min(watched_s, TRUST_S)
        self._past: deque[tuple[float, float, float, float]] = deque(maxlen=SPANS[-1] + 1)
        self._squares = [0.0] * len(SPANS)
        self._counts = [0] * len(SPANS)

    def twin(self) -> Self:
        """One that has seen the same and goes on by itself."""
        twin = copy(self)
        twin._past, twin._squares, twin._counts = self._past.copy(), self._squares.copy(), self._counts.copy()
        return twin

    def restart(self) -> None:
        """The state was replaced: forecasts made before say nothing of the crystal."""
        self._past.clear()

    def due(self, t: float) -> bool:
        """Whether the state at ``t`` is wanted."""
        return not self._past or t - self._past[-1][0] >= STEP_S

    def add(self, t: float, x: float, y: float, pyy: float, likely: float) -> None:
        """The state after a sample at ``t``, its frequency's variance, and the w that the short term makes likeliest."""
        if self._past:
            gap = t - self._past[-1][0]
            if gap > 2 * STEP_S:
                self._past.clear()
            else:
                self.watched_s += gap
        self._past.append((t, x, y, pyy))
        for i, span in enumerate(SPANS):
            if len(self._past) > span:
                t0, x0, y0, pyy0 = self._past[-1 - span]
                tau = t - t0
                self.missed(i, (x - x0 - y0 * tau) ** 2, pyy0 * tau * tau, tau, likely)

    def missed(self, i: int, square: float, expected: float, tau: float, likely: float) -> None:
        """A forecast over span ``i`` (``tau`` s) was wrong by ``square`` (ns^2), ``expected`` of it by the doubt in its frequency."""
        if expected > likely * likely * tau**3 / 3:
            return  # a forecast that was expected to fail by its frequency says nothing of wander
        self._counts[i] += 1
        self._squares[i] += max(STEP_WEIGHT, 1 / self._counts[i]) * (3 * (square - expected) / tau**3 - self._squares[i])

    def expected(self, likely: float) -> float:
        """w to reckon with (ns/s per sqrt(s)); ``likely``: what the short term makes likeliest."""
        w2 = likely * likely
        for span, square, count in zip(SPANS, self._squares, self._counts, strict=True):
            independent = count / span  # forecasts that overlap tell the same
            if independent >= 2:
                w2 = max(w2, square / (1 + TRUST_MORE * math.sqrt(2 / independent)))
        seen = max(math.sqrt(w2), self._known if self.watched_s < 2 * TRUST_S else 0.0)
        return seen * math.pow(max(1.0, ASSUMED / seen), math.exp(-self.watched_s / TRUST_S))
