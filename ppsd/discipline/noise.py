"""The measurement noise of one channel, learned from its innovations: how wide, what to do with its tails, how much one sample tells.

Theory. Of a sample only a clipped part is believed (Huber 1964): psi(u) = u clipped at -k and k, u = innovation / scale, scale = 1.4826
MAD. To first order the estimate then errs like that of a linear filter fed with

    scale (psi(u) - c) / s,   s = E[psi'],   c = E[psi(u) - s u],   which has the variance   V = scale^2 var[psi] / s^2

so the filter is fed with just that, and its covariance is that of its error, whatever the shape. ``c`` keeps the filter at the **mean** of
the samples (outliers aside) where the clip would pull it towards the median of a skewed noise; to first order it does not depend on where
the filter stands, so nothing feeds back. ``lean`` does the same for likelihoods: the square of a clipped skewed error is not smallest
where the filter is right, its derivative there being 2 E[f f'] of the fed f; that much of a straight line is taken off (found of
innovations less their mean, as if the filter were right: else its being wrong would confirm it). The expectations are means over the last
``MEMORY`` innovations; k is the one of ``CLIPS`` with the smallest V: small where the tails are long, beyond the whole of a uniform noise.

Pure; one of these in each estimator. Innovations in ns.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from refclock.robust import MAD_TO_SIGMA

MEMORY = 2048
"""Innovations in the statistics: 1.6 % on a scale, half an hour of pulses."""
RECENT = 128
"""Innovations that may say that the noise has become wider, by ``WIDER``."""
WIDER = 1.4
EVERY = 64
"""Samples between two looks: sorting is what costs."""
FEW = 32
"""Below twice as many, samples are looked at oftener and taken linearly."""
CLIPS = (1.0, 1.5, 2.5, 4.0)
"""Candidates for k, robust sigmas: from Huber's to nearly the mean. (One-sided pairs were tried: 0.257 us instead of 0.236 us
RMS in discipline scenario b-quiet, two seeds.)"""
GATE, WIDEST_GATE = 8.0, 20.0
"""Robust sigmas: beyond, a sample is an outlier whatever the shape. A seventh of the samples or more that lie together somewhat farther off
are no outliers but a second latency (discipline scenario bimodal): up to the second the gate is put half as far again as they are."""
COMMON = 0.85
"""So many samples are no outliers."""
KEEP = 0.93
"""Another clip must have a V this much smaller: a draw is no reason."""
QUANTILES, COPIES = 21, 5
"""What is kept of a shape for the next start, and how often each then counts: enough to be looked at like a hundred samples, few enough
for two minutes of another noise to speak up."""
CAUTION = 8.0
"""n samples: the scale is taken 1 + CAUTION/n larger (the MAD of five residuals of a line is seldom below a third of the truth)."""


class Noise:
    """See the module's text. ``floor_ns``: no scale is believed below it. ``known``: ``quantiles`` of an earlier run on this line."""

    def __init__(self, floor_ns: float, known: Sequence[float] = ()) -> None:
        self.floor_ns = floor_ns
        self._values: deque[float] = deque(maxlen=MEMORY)
        self._count = 0
        self.start([], floor_ns)
        self.known = len(known) > 0
        """What an earlier run saw still stands in for what this one has not seen yet."""
        if self.known:
            self._values.extend([v for v in known for _ in range(COPIES)])
            self._look()

    def start(self, innovations: Sequence[float], scale_ns: float) -> None:
        """Forget all but the residuals that a new state was made from, of about ``scale_ns``."""
        self.known = False
        self._values.clear()
        self._values.extend(innovations)
        self._first_ns = scale_ns
        self._linear(max(self.floor_ns, scale_ns))

    def _linear(self, scale_ns: float) -> None:
        self.scale_ns = scale_ns
        self.gate = GATE
        self.clip, self.slope, self.centre, self.lean = 1.5, 1.0, 0.0, 0.0
        self.variance = scale_ns**2  # V, ns^2
        self.centre_variance = 0.0  # of what c moves the filter by: an error that no sample averages away, ns^2

    def quantiles(self) -> list[float]:
        """The innovations' shape in ``QUANTILES`` numbers (ns); empty while there are too few."""
        if len(self._values) < RECENT:
            return []
        values = sorted(self._values)
        return [values[int((i + 0.5) / QUANTILES * len(values))] for i in range(QUANTILES)]

    def widen(self, scale_ns: float) -> None:
        """At least this scale from now on."""
        self.floor_ns = max(self.floor_ns, scale_ns)
        self._linear(max(self.scale_ns, self.floor_ns))

    def add(self, innovation_ns: float) -> None:
        """One sample less its prediction, outliers included."""
        self._values.append(innovation_ns)
        self._count += 1
        if self._count % EVERY == 0 or len(self._values) < FEW or (len(self._values) < RECENT and self._count % 4 == 0):
            self._look()

    def feed(self, innovation_ns: float, pxx: float) -> float:
        """What a filter with prediction variance ``pxx`` is fed with; its clip is as wide as the innovations that such a filter has."""
        s2 = self.scale_ns**2
        wide = math.sqrt(pxx + s2)
        noisy = s2 / (pxx + s2)
        clipped = max(-self.clip * wide, min(self.clip * wide, innovation_ns))
        return (clipped - self.centre * self.scale_ns * noisy) / (1.0 - (1.0 - self.slope) * noisy)

    def misfit(self, fed: float, pxx: float) -> float:
        """Of something fed, ns^2: what stands for its square in a likelihood, least on average where the filter is right."""
        noisy = self.scale_ns**2 / (pxx + self.scale_ns**2)
        return fed * (fed - self.lean * self.scale_ns * noisy)

    def variance_beside(self, pxx: float) -> float:
        """V, or scale^2 where the prediction is the worse of the two and nothing is clipped."""
        noisy = self.scale_ns**2 / (pxx + self.scale_ns**2)
        return self.variance * noisy + self.scale_ns**2 * (1.0 - noisy)

    def _look(self) -> None:
        n = len(self._values)
        if n < 5:
            return
        sigma, common = _spread(list(self._values))
        scale = max(self.floor_ns, sigma * (1 + CAUTION / n))
        if n > RECENT:
            recent, _ = _spread(list(self._values)[-RECENT:])
            if recent > WIDER * scale:
                known = self.variance
                self._linear(recent)
                self.variance = max(self.variance, known)
                self.clip = CLIPS[-1]  # the mean: a narrower clip would pull a skewed noise off it while its centre is not known
                return
        if n < 2 * FEW:
            self._linear(max(scale, self._first_ns) if n < FEW else scale)
            # Two latencies far apart: the middle of the noise says little of its width.
            self.variance *= max(1.0, sum([u * u for v in self._values if abs(u := v / self.scale_ns) <= WIDEST_GATE]) / n)
            return
        self.scale_ns = scale
        self.gate = min(WIDEST_GATE, max(GATE, 1.5 * common / scale))
        units = [u for v in self._values if abs(u := v / scale) <= self.gate]
        mean = sum(units) / n
        best, chosen = math.inf, (1.5, 1.0, 0.0, 1.0)
        for k in (*CLIPS, self.gate):
            clipped = [-k if u < -k else k if u > k else u for u in units]
            slope = sum([-k <= u <= k for u in units]) / n
            total = sum(clipped)
            variance = (sum([p * p for p in clipped]) / n - (total / n) ** 2) / (slope * slope) if slope else math.inf
            price = variance if k == self.clip or (k > CLIPS[-1] and self.clip > CLIPS[-1]) else variance / KEEP
            if price < best:
                centre = total / n - slope * mean
                best, chosen = price, (k, slope, centre, variance)
        self.clip, self.slope, self.centre, v = chosen
        apart = [max(-self.clip, min(self.clip, u)) - self.slope * u for u in units]
        self.centre_variance = scale * scale * sum([(a - self.centre) ** 2 for a in apart]) / (n * self.slope) ** 2
        self.lean = _lean([u - mean for u in units], self.clip)
        self.variance = max(self.floor_ns**2, scale * scale * v)


def _lean(units: list[float], k: float) -> float:
    """2 E[f f'] of units with mean 0 clipped at k."""
    within = [u for u in units if -k <= u <= k]
    slope = len(within) / len(units)
    if not within:
        return 0.0
    centre = sum([-k if u < -k else k if u > k else u for u in units]) / len(units)
    return 2 * (sum(within) / len(units) - centre * slope) / slope**2


def _spread(values: list[float]) -> tuple[float, float]:
    """Robust standard deviation, 1.4826 median absolute deviation (upper median: nothing hangs on it); how far ``COMMON`` of them lie."""
    values.sort()
    middle = values[len(values) // 2]
    away = sorted([abs(v - middle) for v in values])
    return MAD_TO_SIGMA * away[len(away) // 2], away[int(COMMON * len(away))]
