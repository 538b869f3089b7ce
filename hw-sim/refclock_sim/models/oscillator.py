"""Oscillators: the frequency error of the local crystal, second by second.

Unit and sign: dimensionless (seconds gained per true second), positive = fast. A model never returns a time: the shell that owns simulated
time integrates the error, so that raw time advances by dt * (1 + error).

    error = constant + random-walk FM + terms of time (ramp, step with thermal lag, sinusoid)

Random-walk FM of step w per second^0.5 has an Allan deviation of w * sqrt(tau / 3). The crystal of a single-board computer is off by some
1e-5 and wanders by 1e-9 in a second, a TCXO by 1e-6 and 1e-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

Term = Callable[[float], float]
"""Seconds since the start to a frequency error."""


def ramp(size: float, start_s: float, length_s: float) -> Term:
    """0 until ``start_s``, then linearly up to ``size`` within ``length_s``, then ``size``."""
    return lambda t_s: size * min(1.0, max(0.0, (t_s - start_s) / length_s))


def step(size: float, start_s: float, lag_s: float = 0.0) -> Term:
    """0 until ``start_s``, then ``size``, approached with the thermal time constant ``lag_s`` (0: at once)."""

    def term(t_s: float) -> float:
        if t_s <= start_s:
            return 0.0
        return size * (1.0 - math.exp((start_s - t_s) / lag_s)) if lag_s > 0 else size

    return term


def sinusoid(amplitude: float, period_s: float, phase: float = 0.0) -> Term:
    """amplitude * sin(2 pi t / period + phase): the heating of a room, or a day."""
    return lambda t_s: amplitude * math.sin(2 * math.pi * t_s / period_s + phase)


class Oscillator:
    """One crystal. ``constant``: its error at the start; ``wander``: random-walk step per second^0.5. A seed repeats its history."""

    def __init__(self, seed: int, constant: float = 0.0, wander: float = 0.0, terms: Sequence[Term] = ()) -> None:
        self.t_s = 0.0
        self._walk = constant
        self._wander = wander
        self._terms = tuple(terms)
        self._gauss = Random(f"oscillator {seed}").gauss

    def advance(self, dt_s: float = 1.0) -> float:
        """Advance by ``dt_s`` true seconds and return the mean frequency error over them. Cost: 1 µs, and 0.3 µs per term."""
        if self._wander:
            self._walk += self._gauss(0.0, self._wander * math.sqrt(dt_s))
        error = self._walk
        for term in self._terms:
            error += term(self.t_s)
        self.t_s += dt_s
        return error
