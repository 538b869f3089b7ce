"""The path to an NTP server and the crystal here, told apart: where in the interval of an answer the truth lies most likely.

An answer gives z = x + a e + v at raw t. x is the server's time on the raw clock, and moves as a crystal does:

    x' = y,   y' = white noise of strength w^2

e is the excess of the round trip over the shortest of late. What delays a request makes the server's time seem late, what delays the reply
makes it seem early, so the error of an answer lies within half of its excess on either side. Where both ways are alike a = 0 and v is
uniform; where one way is idle a is a half, and nothing is left to v. So v has the standard deviation ``share`` (e + f), where f is how much
shorter than the shortest round trip a still shorter one may be. An answer without excess is worth a hundred others, and an answer with
much of it still says something: a and v are weighed by what fits the answers.

How the crystal wanders and which ``share`` a path has is not known. There is a Kalman filter for each pair, with and without a. They are
weighed by how likely they make the answers.

Flow: answer -> **PathFilter** -> phase and rate, to the estimator, which moves them into what is certain. Pure. Seconds, ns.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import product
from typing import Final

WANDERS: Final = (0.3, 1.0, 3.0, 10.0, 40.0, 150.0)
"""ns/s per sqrt(s), of the crystals that are thought of: from a TCXO to one that is breathed on."""
SHARES: Final = (0.05, 0.3, 1.0)
"""Standard deviation of an answer's error beside its excess: of a path with noise on one way only, of one with the same noise on both
(uniform within half of the excess: 1/sqrt(12)), and of one with other noise besides."""
SKEWNESS: Final = 1 / math.sqrt(12)
"""Standard deviation of a before the first answer: it is between minus and plus a half."""
READING_NS: Final = 50.0
"""ns; standard deviation of what has nothing to do with the path: stamps of both clocks."""
TRIPS: Final = 64
"""Round trips of which the shortest is the path's own, at most: at 64 s an hour. After that another route is the path's own."""
UNSEEN: Final = 0.5
"""Share of the first round trip that may be excess; half as much with every further one."""
ASTRAY: Final = 3.0
"""Sigmas; an answer that lies farther from what a filter expects is believed less by it."""
IMPOSSIBLE: Final = 5.0
"""Sigmas beyond which an answer is no less likely: one alone decides nothing."""
KEPT_OF_WEIGHT: Final = 0.98
"""Share of its log weight that a filter keeps at an answer: fifty answers count."""


@dataclass(slots=True)
class _Hypothesis:
    """One filter: x, y, a and their covariances. ``q``: w^2."""

    q: float
    share: float
    x: float
    y: float
    xx: float
    yy: float
    aa: float
    a: float = 0.0
    xy: float = 0.0
    xa: float = 0.0
    ya: float = 0.0
    log_weight: float = 0.0

    def predict(self, dt: float) -> None:
        """``dt`` seconds pass."""
        self.x += self.y * dt
        self.xx += dt * (2 * self.xy + dt * (self.yy + self.q * dt / 3))
        self.xy += dt * (self.yy + self.q * dt / 2)
        self.xa += dt * self.ya
        self.yy += self.q * dt

    def update(self, z: float, excess: float, variance: float) -> float:
        """An answer. Returns its log likelihood."""
        hx, hy, ha = self.xx + excess * self.xa, self.xy + excess * self.ya, self.xa + excess * self.aa
        s, nu = hx + excess * ha + variance, z - self.x - excess * self.a
        misfit = nu * nu / s
        log_p = -0.5 * (min(misfit, IMPOSSIBLE**2) + math.log(s))
        if misfit > ASTRAY**2:
            s += nu * nu / ASTRAY**2
        self.x += hx * nu / s
        self.y += hy * nu / s
        self.a += ha * nu / s
        self.xx -= hx * hx / s
        self.xy -= hx * hy / s
        self.xa -= hx * ha / s
        self.yy -= hy * hy / s
        self.ya -= hy * ha / s
        self.aa -= ha * ha / s
        return log_p


@dataclass(frozen=True, slots=True)
class Course:
    """Most likely, x is ``x`` (ns) at ``t`` (s) and runs at ``y`` (ns/s); with their standard deviations."""

    t: float
    x: float
    y: float
    x_sigma: float
    y_sigma: float
    wander: float
    """ns/s per sqrt(s), of the crystal: the geometric mean of what is thought of."""

    def stray_ns(self, t: float) -> float:
        """Standard deviation of x as it is foretold for ``t``, or more."""
        dt = t - self.t
        return self.x_sigma + self.y_sigma * dt + self.wander * float(dt**1.5) / math.sqrt(3)


class PathFilter:
    """See the module. ``course``: after the last answer; None before the first. ``y``, ``y_sigma``: what is known of the rate before."""

    def __init__(self, y: float, y_sigma: float) -> None:
        self._rate = y, y_sigma
        self._trips: deque[float] = deque(maxlen=TRIPS)
        self._hypotheses: list[_Hypothesis] = []
        self.course: Course | None = None

    def add(self, t: float, z: float, trip: float) -> None:
        """An answer at ``t`` (s), later than the one before: it says ``z`` (ns), after a round trip of ``trip`` (ns)."""
        self._trips.append(trip)
        if self.course is None:
            (y, y_sigma), half = self._rate, trip / 2 + READING_NS
            kinds = product(WANDERS, SHARES, (0.0, SKEWNESS**2))
            self._hypotheses = [_Hypothesis(w * w, share, z, y, half * half, y_sigma * y_sigma, aa) for w, share, aa in kinds]
        else:
            excess, unseen = self._excess(trip)
            for h in self._hypotheses:
                h.predict(t - self.course.t)
                log_p = h.update(z, excess, (h.share * (excess + unseen)) ** 2 + READING_NS**2)
                h.log_weight = KEPT_OF_WEIGHT * h.log_weight + log_p
            best = max(h.log_weight for h in self._hypotheses)
            for h in self._hypotheses:
                h.log_weight -= best
        self.course = self._mixed(t)

    @property
    def shortest(self) -> float:
        """ns; the shortest round trip of late. Needs an answer."""
        return min(self._trips)

    def runs_at(self, y: float, y_sigma: float) -> None:
        """The rate is known from elsewhere."""
        self._rate = y, y_sigma
        for h in self._hypotheses:
            h.y, h.yy, h.xy, h.ya = y, y_sigma * y_sigma, 0.0, 0.0
        if self.course is not None:
            self.course = self._mixed(self.course.t)

    def _excess(self, trip: float) -> tuple[float, float]:
        """ns by which the last round trip exceeds the shortest, and by which that one may exceed a shorter one. The shortest of n sums
        of two delays with exponential tails of J is 1.25 J / sqrt(n) longer than possible, their mean 2 J."""
        n, shortest = len(self._trips), self.shortest
        return trip - shortest, (sum(self._trips) / n - shortest) / math.sqrt(n) + shortest * UNSEEN**n

    def _mixed(self, t: float) -> Course:
        weights = [math.exp(h.log_weight) for h in self._hypotheses]
        total, both = sum(weights), list(zip(weights, self._hypotheses, strict=True))
        x, y = sum(w * h.x for w, h in both) / total, sum(w * h.y for w, h in both) / total
        xx = sum(w * (h.xx + (h.x - x) ** 2) for w, h in both) / total
        yy = sum(w * (h.yy + (h.y - y) ** 2) for w, h in both) / total
        wander = math.exp(sum(w * math.log(h.q) for w, h in both) / total / 2)
        return Course(t, x, y, math.sqrt(max(0.0, xx)), math.sqrt(max(0.0, yy)), wander)
