"""The measurement noise of one channel, learned from its innovations: how wide, what to do with its tails, how much one sample tells.

Theory. Of a sample only a clipped part is believed (Huber 1964): psi(u) = u clipped at -k and k, u = innovation / scale, scale = 1.4826
MAD. To first order the estimate then errs like that of a linear filter fed with

    scale (psi(u) - c) / s,   s = E[psi'],   c = E[psi(u) - s u],   which has the variance   V = scale^2 var[psi] / s^2

The filter is fed with just that, so its covariance is that of its error, whatever the noise is shaped like.

* ``centre`` (c) keeps the filter at the **mean** of the samples, outliers aside. The clip alone would pull it towards the median of a
  skewed noise. To first order c does not depend on where the filter stands, so nothing feeds back.
* ``lean`` does the same for likelihoods. The square of a clipped skewed error is not smallest where the filter is right: its derivative
  there is 2 E[f f'] of the fed f. A straight line of that slope is taken off. It is found of innovations less their mean, as if the filter
  were right; else the filter's error would confirm itself.
* k is the one of ``CLIPS`` with the smallest V: small where the tails are long, beyond the whole of a uniform noise.

The expectations are means over the last ``MEMORY`` innovations. Flow: an estimator adds each innovation and feeds its bank (``kalman``)
with what ``feed`` makes of it. Pure; innovations in ns. Constants without a derivation: as in ``kalman``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from copy import copy
from typing import Self

from refclock.robust import MAD_TO_SIGMA

MEMORY = 2048
"""Innovations in the statistics: half an hour of pulses. The scale of Gaussian ones is then known to 2.6 %."""
LATEST = 128
"""Innovations that may say that the noise has become wider; their scale is known to 10 %. Also the fewest that make a shape worth
saving."""
WIDER = 1.4
"""Ratio of the latest scale to that of the whole memory from which the noise is taken to be wider now: four standard errors."""
LOOK_EVERY, LOOK_EVERY_AT_FIRST = 64, 4
"""Samples between two looks at the statistics, for sorting them is what costs; the second while there are fewer than ``LATEST``."""
LINEAR_BELOW = 64
"""Innovations; with fewer the noise is taken to be Gaussian and its scale is looked at with every sample up to half as many."""
FEWEST = 5
"""Innovations that have a scale at all."""
CLIPS = (1.0, 1.5, 2.5, 4.0)
"""Candidates for k, robust sigmas: from Huber's to nearly the mean. (One-sided pairs were tried: 0.257 us instead of 0.236 us
RMS in scenario b-quiet, two seeds.)"""
GATE, WIDEST_GATE, GATE_MARGIN = 8.0, 20.0, 1.5
"""Robust sigmas beyond which a sample is an outlier, whatever the shape. A seventh of the samples or more that lie together somewhat
farther off are no outliers but a second latency (scenario bimodal): then the gate is put ``GATE_MARGIN`` times as far as they are, up to
the widest."""
NO_OUTLIERS = 0.85
"""Share of the samples that are no outliers."""
CLIP_KEPT = 0.93
"""Ratio of two V below which another clip is taken: a lucky draw is no reason to change."""
QUANTILES, COPIES = 21, 5
"""Values of a shape that are saved for the next start, and how often each then counts: enough to be looked at like a hundred samples, few
enough that two minutes of another noise outweigh them."""
CAUTION = 8.0
"""Of n samples the scale is taken to be 1 + CAUTION/n larger: the MAD of five residuals of a line is seldom below a third of the truth."""


class Noise:
    """See the module's text. ``floor_ns``: no scale is believed below it. ``known``: ``quantiles`` of an earlier run on this line.

    ``scale_ns``: robust standard deviation. ``gate``: scales beyond which a sample is an outlier. ``clip`` is k, ``slope`` s, ``centre`` c,
    ``variance`` V (ns^2). ``centre_variance`` (ns^2): of what c moves the filter by, an error that no number of samples averages away.
    """

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

    def twin(self) -> Self:
        """A noise of the same statistics that goes on by itself."""
        twin = copy(self)
        twin._values = self._values.copy()
        return twin

    def start(self, innovations: Sequence[float], scale_ns: float) -> None:
        """Forget all but the residuals that a new state was made from, of about ``scale_ns``."""
        self.known = False
        self._values.clear()
        self._values.extend(innovations)
        self._first_ns = scale_ns
        self._linear(max(self.floor_ns, scale_ns))

    def _linear(self, scale_ns: float) -> None:
        """Take it to be Gaussian: samples go to the filter as they are."""
        self.scale_ns = scale_ns
        self.gate = GATE
        self.clip, self.slope, self.centre, self.lean = 1.5, 1.0, 0.0, 0.0
        self.variance = scale_ns**2
        self.centre_variance = 0.0

    def quantiles(self) -> list[float]:
        """The innovations' shape in ``QUANTILES`` numbers (ns); empty while there are too few."""
        if len(self._values) < LATEST:
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
        n = len(self._values)
        if self._count % LOOK_EVERY == 0 or n < LINEAR_BELOW // 2 or (n < LATEST and self._count % LOOK_EVERY_AT_FIRST == 0):
            self._look()

    def feed(self, innovation_ns: float, pxx: float) -> float:
        """The limited innovation for a filter with prediction variance ``pxx``. The clip scales with that filter's innovations. The
        correction for the noise's shape shrinks with the share of noise in them."""
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
        """V (ns^2), or scale^2 where the prediction is the worse of the two and nothing is clipped."""
        noisy = self.scale_ns**2 / (pxx + self.scale_ns**2)
        return self.variance * noisy + self.scale_ns**2 * (1.0 - noisy)

    def _look(self) -> None:
        """Learn scale, gate and clip from the innovations in memory."""
        n = len(self._values)
        if n < FEWEST:
            return
        sigma, common = _spread(list(self._values))
        scale = max(self.floor_ns, sigma * (1 + CAUTION / n))
        if n > LATEST and self._became_wider(scale):
            return
        if n < LINEAR_BELOW:
            self._few(n, scale)
            return
        self.scale_ns = scale
        self.gate = min(WIDEST_GATE, max(GATE, GATE_MARGIN * common / scale))
        # From here on in units of the scale. Outliers are left out of the sums but count in n.
        units = [u for v in self._values if abs(u := v / scale) <= self.gate]
        mean = sum(units) / n
        variance = self._choose_clip(units, n, mean)
        # What psi(u) - s u scatters by: its mean, c, is known no better than n samples tell.
        beyond = [max(-self.clip, min(self.clip, u)) - self.slope * u for u in units]
        self.centre_variance = scale * scale * sum([(b - self.centre) ** 2 for b in beyond]) / (n * self.slope) ** 2
        self.lean = _lean([u - mean for u in units], self.clip)
        self.variance = max(self.floor_ns**2, scale * scale * variance)

    def _became_wider(self, scale_ns: float) -> bool:
        """Whether the latest innovations are wider than ``scale_ns``, that of all. Then their scale holds, taken to be Gaussian."""
        latest_ns, _ = _spread(list(self._values)[-LATEST:])
        if latest_ns <= WIDER * scale_ns:
            return False
        known = self.variance
        self._linear(latest_ns)
        self.variance = max(self.variance, known)
        # The mean: a narrower clip would pull a skewed noise off it while its centre is not known.
        self.clip = CLIPS[-1]
        return True

    def _few(self, n: int, scale_ns: float) -> None:
        """``n`` innovations say how wide they are, not how they are shaped."""
        self._linear(max(scale_ns, self._first_ns) if n < LINEAR_BELOW // 2 else scale_ns)
        # Two latencies far apart: the middle of the noise says little of its width.
        self.variance *= max(1.0, sum([u * u for v in self._values if abs(u := v / self.scale_ns) <= WIDEST_GATE]) / n)

    def _choose_clip(self, units: list[float], n: int, mean: float) -> float:
        """Set clip, slope and centre to those with the smallest V of ``units`` (scales; ``n`` with the outliers). Returns V, scales^2."""
        best, chosen = math.inf, (1.5, 1.0, 0.0, 1.0)
        for k in (*CLIPS, self.gate):
            clipped = [-k if u < -k else k if u > k else u for u in units]
            slope = sum([-k <= u <= k for u in units]) / n
            total = sum(clipped)
            variance = (sum([c * c for c in clipped]) / n - (total / n) ** 2) / (slope * slope) if slope else math.inf
            # The clip in force has an advantage. The gate moves, so two clips beyond the widest candidate are the same one.
            price = variance if k == self.clip or (k > CLIPS[-1] and self.clip > CLIPS[-1]) else variance / CLIP_KEPT
            if price < best:
                best, chosen = price, (k, slope, total / n - slope * mean, variance)
        self.clip, self.slope, self.centre, variance = chosen
        return variance


def _lean(units: list[float], k: float) -> float:
    """2 E[f f'] of units with mean 0 clipped at k."""
    within = [u for u in units if -k <= u <= k]
    slope = len(within) / len(units)
    if not within:
        return 0.0
    centre = sum([-k if u < -k else k if u > k else u for u in units]) / len(units)
    return 2 * (sum(within) / len(units) - centre * slope) / slope**2


def _spread(values: list[float]) -> tuple[float, float]:
    """Robust standard deviation, 1.4826 times the median absolute deviation, and how far from the median ``NO_OUTLIERS`` of the values lie.
    Of an even number the upper one is taken as the median; half a step of the order is nothing here."""
    values.sort()
    middle = values[len(values) // 2]
    away = sorted([abs(v - middle) for v in values])
    return MAD_TO_SIGMA * away[len(away) // 2], away[int(NO_OUTLIERS * len(away))]
