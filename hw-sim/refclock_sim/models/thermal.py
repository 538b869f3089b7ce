"""Heat: how air and load warm the crystal, and what a thermometer beside it reads.

    surroundings (a day, ramps, load) --- thermal lag ---> crystal     error = curve (T - turnover)^2
                                      --- its own lag, noise, steps ---> thermometer

The curve is a parabola around the turnover: -0.004 ppm/K^2 stands for an AT cut twenty degrees away from it (single-board computers were
measured at 0.1 to 0.2 ppm/K), -0.034 ppm/K^2 for a tuning fork (data sheets). A thermometer may lie: it freezes, jumps, runs against the
truth, measures something else or is silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

LIES = ("sensor-frozen", "sensor-jump", "sensor-inverted", "sensor-elsewhere", "sensor-lost")
"""Faults of a thermometer, by the names that scenarios use."""


@dataclass(frozen=True, slots=True)
class Warming:
    """``kelvin`` more from ``at_s`` on, linearly over ``over_s``."""

    kelvin: float
    at_s: float
    over_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Heat:
    """The surroundings, the crystal and the thermometer. Temperatures in °C, differences in K, times in s.

    ``celsius``, ``day``, ``day_s``: mean, amplitude and period of the air. ``load`` K of load for ``load_for_s`` of every ``load_every_s``.
    ``turnover``, ``curve_ppm`` (ppm/K^2), ``lag_s``: the crystal. ``sensor_lag_s``, ``noise`` (white, K), ``quantum`` (K): the thermometer.
    """

    celsius: float = 45.0
    day: float = 0.0
    day_s: float = 86_400.0
    warmings: tuple[Warming, ...] = ()
    load: float = 0.0
    load_for_s: float = 300.0
    load_every_s: float = 1500.0
    turnover: float = 25.0
    curve_ppm: float = -0.004
    lag_s: float = 60.0
    sensor_lag_s: float = 10.0
    noise: float = 0.2
    quantum: float = 0.5

    def surroundings(self, t_s: float) -> float:
        """°C around the board at ``t_s``, load included."""
        around = self.celsius + self.day * math.sin(2 * math.pi * t_s / self.day_s)
        around += sum(w.kelvin * min(1.0, max(0.0, (t_s - w.at_s) / w.over_s)) for w in self.warmings)
        return around + (self.load if self.load and (t_s - self.load_for_s) % self.load_every_s < self.load_for_s else 0.0)


class Board:
    """A crystal and a thermometer side by side. ``error`` is an oscillator's term; ``lies(t_s)``: the present one of ``LIES``, or ""."""

    def __init__(self, heat: Heat, seed: int, lies: Callable[[float], str] = lambda _: "") -> None:
        self._heat, self._lies = heat, lies
        self._crystal = self._sensor = heat.surroundings(0.0)
        self._start = self._error()
        self._t_s = 0.0
        self._gauss = Random(f"thermometer {seed}").gauss
        self._said: float | None = None
        self._turned_at: float | None = None

    def error(self, t_s: float) -> float:
        """Frequency error (dimensionless, positive = fast) at ``t_s``, which increases from call to call; 0 at the start."""
        dt, self._t_s = t_s - self._t_s, t_s
        around = self._heat.surroundings(t_s)
        self._crystal += (around - self._crystal) * (1.0 - math.exp(-dt / self._heat.lag_s))
        self._sensor += (around - self._sensor) * (1.0 - math.exp(-dt / self._heat.sensor_lag_s))
        return self._error() - self._start

    def _error(self) -> float:
        return self._heat.curve_ppm * 1e-6 * (self._crystal - self._heat.turnover) ** 2

    def celsius(self) -> float | None:
        """Reading of the thermometer at the time of the last ``error``; None when it is silent."""
        lie = self._lies(self._t_s)
        if lie == "sensor-lost" or (lie == "sensor-frozen" and self._said is not None):
            return self._said if lie == "sensor-frozen" else None
        value = self._sensor
        if lie == "sensor-jump":
            value += 20.0
        elif lie == "sensor-inverted":
            self._turned_at = value if self._turned_at is None else self._turned_at
            value = 2 * self._turned_at - value
        elif lie == "sensor-elsewhere":
            value = 40.0 + 5.0 * math.sin(2 * math.pi * self._t_s / 2900.0) + 2.0 * math.sin(2 * math.pi * self._t_s / 611.0)
        self._said = round((value + self._gauss(0.0, self._heat.noise)) / self._heat.quantum) * self._heat.quantum
        return self._said
