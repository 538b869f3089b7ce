"""Oscillators: what the local crystal does. A model returns a **frequency error**, never a time.

Sign and unit: dimensionless, positive = the oscillator is fast (its clock gains that many seconds per true second). The shell that owns
simulated time integrates it: raw time advances by dt * (1 + error).

    error = constant + random-walk FM + terms of time (ramp, step with thermal lag, sinusoid)

Random-walk FM of step w per second^0.5 has an Allan deviation of w * sqrt(tau / 3). Presets are measured in kind, not of one device:
a free crystal on a single-board computer wanders by 1e-9 in a second, a TCXO by 1e-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

Term = Callable[[float], float]
"""Seconds since the start to a frequency error."""


def ramp(size: float, start_s: float, length_s: float) -> Term:
    """From 0 at ``start_s`` linearly to ``size`` after ``length_s``, which stays."""
    return lambda t_s: size * min(1.0, max(0.0, (t_s - start_s) / length_s))


def step(size: float, start_s: float, lag_s: float = 0.0) -> Term:
    """``size`` after ``start_s``, approached with the thermal time constant ``lag_s`` (0: at once)."""

    def term(t_s: float) -> float:
        if t_s <= start_s:
            return 0.0
        return size * (1.0 - math.exp((start_s - t_s) / lag_s)) if lag_s > 0 else size

    return term


def sinusoid(amplitude: float, period_s: float, phase: float = 0.0) -> Term:
    """A room's heating, a day: amplitude * sin(2 pi t / period + phase)."""
    return lambda t_s: amplitude * math.sin(2 * math.pi * t_s / period_s + phase)


class Oscillator:
    """One crystal. ``constant``: error at the start; ``wander``: random-walk step per second^0.5; the same seed gives the same history."""

    def __init__(self, seed: int, constant: float = 0.0, wander: float = 0.0, terms: Sequence[Term] = ()) -> None:
        self.t_s = 0.0
        self._walk = constant
        self._wander = wander
        self._terms = tuple(terms)
        self._gauss = Random(f"oscillator {seed}").gauss

    def advance(self, dt_s: float = 1.0) -> float:
        """The mean frequency error of the next ``dt_s`` true seconds, which then are over. Cost: 1 µs and 0.3 µs per term."""
        if self._wander:
            self._walk += self._gauss(0.0, self._wander * math.sqrt(dt_s))
        error = self._walk
        for term in self._terms:
            error += term(self.t_s)
        self.t_s += dt_s
        return error


PRESETS = {
    "perfect": (0.0, 0.0),
    "crystal": (12e-6, 1e-9),
    "noisy-crystal": (12e-6, 1e-8),
    "tcxo": (1e-6, 1e-10),
}
"""Name to (constant, wander)."""


def oscillator(name: str, seed: int, terms: Sequence[Term] = ()) -> Oscillator:
    """A preset; KeyError for a name that is none."""
    constant, wander = PRESETS[name]
    return Oscillator(seed, constant, wander, terms)
