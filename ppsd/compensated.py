"""An estimate made of samples less what the temperature has done, beside the one that knows nothing of it.

Both see every sample. The compensated one starts as a copy of the plain one when the temperature has proved itself (``ppsd.temperature``)
and adds what the temperature has done since (``Bend``, 0 at that instant), so nothing jumps; its wander is that of the forecasts with
temperature. When the samples become less likely with it than without, it ends: a cumulative sum of log likelihood ratios (Page 1954),
each innovation clipped, tells within seconds of an error as large as the noise. Pure.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace

from ppsd.estimator import COVER_RATE, Estimate, Estimator
from ppsd.temperature import Bend, Temperature
from refclock.sample import NS

CLIP = 3.0
"""Scales: an outlier is none of the temperature's fault."""
DRIFT, ALARM = 0.02, 8.0
"""Nats a sample that are taken off, and the sum that ends it: a false one in some e^8 times a hundred samples."""
APART = 3.0
"""Sigmas of the plain estimate by which the two may differ before the rest goes into the bound."""


class Compensated:
    """See the module's text. ``plain``: to start from, at raw ``mono_ns``."""

    def __init__(self, plain: Estimator, temperature: Temperature, mono_ns: int) -> None:
        self._plain, self._temperature = plain, temperature
        self._estimator = copy.deepcopy(plain)
        self._bend = Bend(temperature, mono_ns)
        self._sum = 0.0

    @property
    def ready(self) -> bool:
        """There is an estimate: the samples may have to start it anew after a holdover."""
        return self._estimator.ready

    @property
    def worse(self) -> bool:
        """The samples speak against it."""
        return self._sum > ALARM

    def add(self, mono_ns: int, tai_ns: int) -> None:
        """A sample, before the plain estimator gets it."""
        if self._plain.ready and self.ready:
            plain = self._plain.estimate(mono_ns)
            limit = CLIP * plain.jitter_ns
            misses = [max(-limit, min(limit, float(tai_ns - e.tai_ns))) for e in (plain, self.estimate(plain))]
            self._sum = max(0.0, self._sum + (misses[1] ** 2 - misses[0] ** 2) / 2 / plain.jitter_ns**2 - DRIFT)
        self._estimator.add(mono_ns, tai_ns - round(self._bend.at(mono_ns)[0]))

    def estimate(self, plain: Estimate) -> Estimate:
        """As ``plain``, the plain estimator's, with the temperature."""
        mono_ns = plain.mono_ns
        self._estimator.bias_ns = self._plain.bias_ns
        e = self._estimator.estimate(mono_ns)
        ns, rate = self._bend.at(mono_ns)
        tai_ns = e.tai_ns + round(ns)
        apart = max(0.0, abs(tai_ns - plain.tai_ns) - APART * plain.phase_sigma_ns)
        return replace(
            e,
            tai_ns=tai_ns,
            rate=e.rate + rate / NS,
            bound_ns=e.bound_ns + apart,
            bound_wander_ns=min(e.bound_wander_ns, COVER_RATE * self._temperature.wander() / math.sqrt(3)),
        )
