"""Oscillators: a frequency error for each second. *An oscillator returns a frequency error, a pulse returns a phase error.*

Dimensionless, positive = fast: during a step of true length dt the local clock advances by (1 + f) dt. Seeded and cheap (a few us a step).
Random-walk FM of step w a second has ADEV w sqrt(tau / 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Ramp:
    """A change of temperature: ``ppm`` more, linearly from ``at_s`` over ``over_s`` (0: a step with thermal lag ``lag_s``)."""

    ppm: float
    at_s: float
    over_s: float = 0.0
    lag_s: float = 60.0

    def value(self, t: float) -> float:
        """Part of the frequency error at ``t`` s after the start."""
        if t <= self.at_s:
            return 0.0
        if self.over_s > 0:
            return self.ppm * 1e-6 * min(1.0, (t - self.at_s) / self.over_s)
        return self.ppm * 1e-6 * (1.0 - math.exp(-(t - self.at_s) / self.lag_s))


class Oscillator:
    """Constant error, random walk, ramps and a daily (or any) sinusoid."""

    def __init__(
        self,
        seed: int,
        ppm: float = 12.0,
        wander: float = 1e-9,
        ramps: tuple[Ramp, ...] = (),
        *,
        sine_ppm: float = 0.0,
        sine_period_s: float = 7200.0,
    ) -> None:
        self._random = Random(seed)
        self._walk = ppm * 1e-6
        self._wander = wander
        self._ramps = ramps
        self._sine = (sine_ppm * 1e-6, 2 * math.pi / sine_period_s)

    def step(self, t: float) -> float:
        """Frequency error during the second that begins ``t`` s after the start. Call once a second, in order."""
        self._walk += self._wander * self._random.gauss(0.0, 1.0)
        f = self._walk
        for ramp in self._ramps:
            f += ramp.value(t)
        if self._sine[0]:
            f += self._sine[0] * math.sin(self._sine[1] * t)
        return f
